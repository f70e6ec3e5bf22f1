"""`gpt-trader backtest`: simulate a strategy on stored bars, with a report."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from cli.commands.complete import complete_param, complete_strategy, complete_symbol

_REQUEST = "Request"
_COSTS = "Costs and sizing"
_RUN = "How it runs"


def backtest(
    *,
    symbol: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Instrument, e.g. AAPL.",
            autocompletion=complete_symbol,
            rich_help_panel=_REQUEST,
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A registered strategy, or your own as ./mine.py:MyStrategy (default: momentum).",
            autocompletion=complete_strategy,
            rich_help_panel=_REQUEST,
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter of the strategy; repeatable.",
            autocompletion=complete_param,
            rich_help_panel=_REQUEST,
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="First day, inclusive.", rich_help_panel=_REQUEST)
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Last day, inclusive.", rich_help_panel=_REQUEST)
    ] = None,
    timeframe: Annotated[
        str | None,
        typer.Option(metavar="BAR", help="Length of a bar, e.g. 1d, 1h.", rich_help_panel=_REQUEST),
    ] = None,
    direction: Annotated[
        Literal["long", "short", "both"] | None,
        typer.Option(help="Sides it may take (default: long).", rich_help_panel=_REQUEST),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Where a symbol the lake lacks is ingested from.", rich_help_panel=_REQUEST
        ),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            "--snapshot",
            metavar="TIME|SNAPSHOT",
            help="Read the lake as it was at a time, or by a snapshot's id (default: newest).",
            rich_help_panel=_REQUEST,
        ),
    ] = None,
    capital: Annotated[
        str | None,
        typer.Option(metavar="CASH", help="Initial cash (default: 10000).", rich_help_panel=_COSTS),
    ] = None,
    commission: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTION", help="Of an order's notional (default: 0.001).", rich_help_panel=_COSTS
        ),
    ] = None,
    slippage: Annotated[
        str | None,
        typer.Option(metavar="FRACTION", help="Of the fill price (default: 0.0005).", rich_help_panel=_COSTS),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTION", help="Of equity put into a position (default: 1).", rich_help_panel=_COSTS
        ),
    ] = None,
    stop_loss: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTION", help="Out at this loss from the fill price.", rich_help_panel=_COSTS
        ),
    ] = None,
    take_profit: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTION", help="Out at this gain from the fill price.", rich_help_panel=_COSTS
        ),
    ] = None,
    seed: Annotated[
        str | None,
        typer.Option(metavar="N", help="Seed of anything random (default: 0).", rich_help_panel=_RUN),
    ] = None,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Write no HTML report and no picture.", rich_help_panel=_RUN)
    ] = False,
    open_report: Annotated[
        bool | None,
        typer.Option(
            "--open-report/--no-open-report",
            help="Open the report in a browser (default: the setting open_report).",
            rich_help_panel=_RUN,
        ),
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Ask for what is not given.", rich_help_panel=_RUN)
    ] = False,
    in_process: Annotated[
        bool,
        typer.Option(
            "--in-process", help="Run the flow in this process, for debugging.", rich_help_panel=_RUN
        ),
    ] = False,
) -> None:
    """Simulate a strategy on stored bars and show its metrics beside buy-and-hold's.

    Fills are at the next bar's open. A symbol that the lake lacks is ingested first. What you leave out keeps
    its default. Ctrl-C cancels the run.

    Example: gpt-trader backtest --symbol AAPL --strategy ma_crossover --param fast=10 --param slow=30
    """
    from cli.actions.backtest import run_backtest
    from cli.runs.parameters import pairs

    values: dict[str, Any] = {
        "symbol": symbol,
        "strategy": strategy,
        "params": pairs(param or []) or None,
        "start": start,
        "end": end,
        "timeframe": timeframe,
        "direction": direction,
        "source": source,
        "snapshot": as_of,
        "capital": capital,
        "commission": commission,
        "slippage": slippage,
        "size": size,
        "stop_loss": stop_loss,
        "take_profit": take_profit,
        "seed": seed,
        "report": False if no_report else None,
    }
    if interactive:
        from cli.actions.interactive import ask

        values = ask(values)
    run_backtest(values, in_process=in_process, open_report=open_report)


def register(app: typer.Typer) -> None:
    """Put the command on the tree."""
    app.command()(backtest)
