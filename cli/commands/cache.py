"""`gpt-trader cache`: matrices that were computed from the lake and are kept."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli.commands.complete import complete_symbol


def stats() -> None:
    """Show how much the cache holds, and how much it may (setting cache_limit_mb)."""
    from cli.actions.cache import show_size

    show_size()


def clear() -> None:
    """Empty the cache; what is needed again is computed again."""
    from cli.actions.cache import clear_all

    clear_all()


def warm(
    *,
    symbol: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            help="Instrument, in the order of the columns; repeatable. Default: all that are stored.",
            autocompletion=complete_symbol,
        ),
    ] = None,
    timeframe: Annotated[str, typer.Option(metavar="BAR", help="Length of a bar.", show_default=True)] = "1d",
    column: Annotated[
        Literal["open", "high", "low", "close", "volume"],
        typer.Option(help="What the matrix holds.", show_default=True),
    ] = "close",
    start: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="First day, inclusive.")] = None,
    end: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Last day, inclusive.")] = None,
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of", metavar="TIME|SNAPSHOT", help="Version of the lake to read (default: the newest)."
        ),
    ] = None,
    adjust: Annotated[
        Literal["all", "split", "none"],
        typer.Option(help="For splits and dividends, for splits alone, or as printed.", show_default=True),
    ] = "all",
) -> None:
    """Compute a matrix, time by instrument, before it is needed."""
    from cli.actions.cache import fill

    fill(
        {
            "symbols": symbol or None,
            "timeframe": timeframe,
            "column": column,
            "start": start,
            "end": end,
            "as_of": as_of,
            "adjust": adjust,
        }
    )


def register(app: typer.Typer) -> None:
    """Put the commands on the group."""
    app.command()(stats)
    app.command()(clear)
    app.command()(warm)
