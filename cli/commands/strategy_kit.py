"""`gpt-trader strategy new` and `strategy check`: write a strategy, and find out whether to believe its numbers."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli.commands.complete import complete_param, complete_strategy, complete_symbol


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called, e.g. my-trend.")],
    folder: Annotated[
        str, typer.Option(metavar="PATH", help="Where to put it; made where it is not there.")
    ] = ".",
) -> None:
    """Write a strategy file to begin with, and a test beside it that fails if it looks ahead.

    Example: gpt-trader strategy new my-trend
    """
    from cli.actions.strategy_kit import write_strategy

    write_strategy(name, folder)


def check(
    strategy: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A strategy, or your own as ./mine.py or ./mine.py:MyStrategy.",
            autocompletion=complete_strategy,
        ),
    ],
    *,
    symbol: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Instrument to try it on (default: AAPL); ingested first where the lake lacks it.",
            autocompletion=complete_symbol,
        ),
    ] = None,
    timeframe: Annotated[
        str | None, typer.Option(metavar="BAR", help="Length of a bar, e.g. 1d, 1h (default: 1d).")
    ] = None,
    start: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="First day, inclusive.")] = None,
    end: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Last day, inclusive.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter of the strategy; repeatable.",
            autocompletion=complete_param,
        ),
    ] = None,
    direction: Annotated[
        Literal["long", "short", "both"] | None, typer.Option(help="Sides it may take (default: long).")
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            "--snapshot",
            metavar="TIME|SNAPSHOT",
            help="Read the lake as it was at a time, or by a snapshot's id (default: newest).",
        ),
    ] = None,
) -> None:
    """Try a strategy: does it look ahead, is its warm-up long enough, does it always say the same?

    What is found is a proof, what is not found is none. Problems are an answer and no failure: the exit code is 0.

    Example: gpt-trader strategy check ./my_trend.py --symbol MSFT --param period=50
    """
    from cli.actions.strategy_kit import check_strategy
    from cli.runs.parameters import pairs

    check_strategy(
        strategy,
        {
            "symbol": symbol,
            "timeframe": timeframe,
            "start": start,
            "end": end,
            "params": pairs(param or []) or None,
            "direction": direction,
            "snapshot": as_of,
        },
    )


def register(app: typer.Typer) -> None:
    """Put the commands on the group of `strategy`."""
    app.command()(new)
    app.command()(check)
