"""`gpt-trader data check | instrument | actions | quote`: what is stored of an instrument, judged and corrected."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands.complete import complete_symbol

Symbol = Annotated[
    str, typer.Argument(metavar="SYMBOL", help="Instrument, e.g. AAPL.", autocompletion=complete_symbol)
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of", metavar="TIME|SNAPSHOT", help="Version of the lake to read (default: the newest)."
    ),
]


def check(
    *,
    symbol: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Only this instrument; repeatable.", autocompletion=complete_symbol),
    ] = None,
    timeframe: Annotated[
        list[str] | None, typer.Option(metavar="BAR", help="Only bars of this length; repeatable.")
    ] = None,
    start: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="First day, inclusive.")] = None,
    end: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Last day, inclusive.")] = None,
    as_of: AsOf = None,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the verdicts as an HTML page as well.")
    ] = None,
) -> None:
    """Judge stored bars: gaps, extra sessions, outliers, splits, restated values and more.

    Findings are no failure: the exit code is 0. The setting quality.rules says what each rule leads to.
    """
    from cli.actions.market import check_bars

    check_bars(symbol or [], timeframe or [], start=start, end=end, as_of=as_of, html=html)


def instrument(
    symbol: Symbol,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FACT=VALUE",
            help="Set a fact by hand, e.g. calendar=XNYS, tick=0.25; sources do not overrule it; repeatable.",
        ),
    ] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(metavar="FACT", help="Leave a fact to the sources again; repeatable."),
    ] = None,
    as_of: AsOf = None,
) -> None:
    """Show an instrument's facts and series, or set facts by hand."""
    from cli.actions.market import show_instrument
    from cli.runs.parameters import pairs

    show_instrument(symbol, pairs(set_ or [], option="set"), unset or [], as_of)


def actions(
    symbol: Symbol,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="CSV with the columns ex_date, split, dividend: replaces all that is stored of them.",
        ),
    ] = None,
    as_of: AsOf = None,
) -> None:
    """Show the splits and dividends of a symbol, or replace them from a file."""
    from cli.actions.market import show_actions

    show_actions(symbol, file, as_of)


def remove(
    symbol: Symbol,
    *,
    timeframe: Annotated[str, typer.Option(metavar="BAR", help="Length of a bar.", show_default=True)] = "1d",
) -> None:
    """Take a series out of the lake; older snapshots keep it, and `--as-of` still reads them."""
    from cli.actions.market import remove_series

    remove_series(symbol, timeframe)


def quote(
    symbol: Symbol,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Ask this source (default: the one of the newest bars)."),
    ] = None,
) -> None:
    """Show the newest prices of a symbol; of a source without quotes, the newest stored close."""
    from cli.actions.market import show_quote

    show_quote(symbol, source)


def register(group: typer.Typer) -> None:
    """Put the commands on the group `data`."""
    for command in (check, instrument, actions, quote, remove):
        group.command()(command)
