"""`gpt-trader backtest`: simulate a strategy on stored bars, with a report."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.commands.complete import complete_param
from cli.commands.simulation_options import (
    REQUEST,
    RUN,
    AsOf,
    Capital,
    Commission,
    Direction,
    End,
    NoReport,
    OnGaps,
    Seed,
    Size,
    Slippage,
    Source,
    Start,
    StopLoss,
    StrategyName,
    Symbol,
    TakeProfit,
    Timeframe,
)


def backtest(
    *,
    symbol: Symbol = None,
    strategy: StrategyName = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter of the strategy; repeatable.",
            autocompletion=complete_param,
            rich_help_panel=REQUEST,
        ),
    ] = None,
    start: Start = None,
    end: End = None,
    timeframe: Timeframe = None,
    direction: Direction = None,
    source: Source = None,
    as_of: AsOf = None,
    on_gaps: OnGaps = None,
    capital: Capital = None,
    commission: Commission = None,
    slippage: Slippage = None,
    size: Size = None,
    stop_loss: StopLoss = None,
    take_profit: TakeProfit = None,
    seed: Seed = None,
    no_report: NoReport = False,
    open_report: Annotated[
        bool | None,
        typer.Option(
            "--open-report/--no-open-report",
            help="Open the report in a browser (default: the setting open_report).",
            rich_help_panel=RUN,
        ),
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Ask for what is not given.", rich_help_panel=RUN)
    ] = False,
    in_process: Annotated[
        bool,
        typer.Option(
            "--in-process", help="Run the flow in this process, for debugging.", rich_help_panel=RUN
        ),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Run again whenever the strategy's file changes, beside the run before; Ctrl-C ends it.",
            rich_help_panel=RUN,
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
        "on_gaps": on_gaps,
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
    if watch:
        from cli.actions.watch import watch_backtest

        watch_backtest(values, in_process=in_process, open_report=open_report)
        return
    run_backtest(values, in_process=in_process, open_report=open_report)


def register(app: typer.Typer) -> None:
    """Put the command on the tree."""
    app.command()(backtest)
