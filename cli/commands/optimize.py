"""`gpt-trader optimize`: search a strategy's parameters, and say whether to believe the best."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from cli.commands.complete import complete_param
from cli.commands.simulation_options import (
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

_SEARCH = "Search"
_WALK = "Walk-forward"


def optimize(
    *,
    symbol: Symbol = None,
    strategy: StrategyName = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUES",
            help="Values of a parameter, as fast=5,10,20 or slow=20:60:5 (low:high:step); repeatable. "
            "Default: what the strategy declares.",
            autocompletion=complete_param,
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter that is not searched; repeatable.",
            autocompletion=complete_param,
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    method: Annotated[
        Literal["grid", "random", "tpe"] | None,
        typer.Option(
            help="All combinations, or some: drawn, or chosen by what was found so far (default: grid).",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    trials: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="Combinations to try (random, tpe; default: 200).", rich_help_panel=_SEARCH
        ),
    ] = None,
    patience: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Stop when so many trials in a row have not bettered the best (random, tpe).",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="What the best has most of: sharpe, sortino, calmar, total_return, annualized_return, max_drawdown, "
            "win_rate, profit_factor, expectancy (default: sharpe).",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    min_trades: Annotated[
        str | None,
        typer.Option(metavar="N", help="Fewest trades of a choice (default: 1).", rich_help_panel=_SEARCH),
    ] = None,
    max_drawdown: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTION", help="Deepest fall from a peak of a choice.", rich_help_panel=_SEARCH
        ),
    ] = None,
    top: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="So many of the best are shown (default: 10).", rich_help_panel=_SEARCH
        ),
    ] = None,
    walk_forward: Annotated[
        bool,
        typer.Option(
            "--walk-forward",
            help="Walk forward as well: choose on the past, trade what follows.",
            rich_help_panel=_WALK,
        ),
    ] = False,
    windows: Annotated[
        str | None,
        typer.Option(metavar="N", help="Test stretches (default: 8).", rich_help_panel=_WALK),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            metavar="TIMES", help="Training, in lengths of a test (default: 4).", rich_help_panel=_WALK
        ),
    ] = None,
    anchored: Annotated[
        bool,
        typer.Option("--anchored", help="Train from the first bar on each time.", rich_help_panel=_WALK),
    ] = False,
    purge: Annotated[
        str | None,
        typer.Option(
            metavar="BARS", help="Left out between training and test (default: 0).", rich_help_panel=_WALK
        ),
    ] = None,
    embargo: Annotated[
        str | None,
        typer.Option(
            metavar="BARS",
            help="After each test, that no later training is measured on (default: 0).",
            rich_help_panel=_WALK,
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
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN_ID",
            help="Do again what a run did that was killed or cancelled: finished trials are not done anew.",
            rich_help_panel=RUN,
        ),
    ] = None,
) -> None:
    """Search a strategy's parameters on stored bars, and tell whether to believe the best of them.

    Each combination is simulated with the backtest's rules; the best, and a sample, are verified by vectorbt. The
    verdict on overfitting counts every trial. An unfavorable verdict is no failure: the exit code is 0.

    Example: gpt-trader optimize --symbol AAPL --strategy ma_crossover --space fast=5:50:5 --space slow=60:200:20
    """
    from cli.actions.optimize import resume_optimization, run_optimization
    from cli.runs.parameters import pairs, spaces

    walk: dict[str, Any] = {
        "windows": windows,
        "train": train,
        "anchored": anchored or None,
        "purge": purge,
        "embargo": embargo,
    }
    values: dict[str, Any] = {
        "symbol": symbol,
        "strategy": strategy,
        "space": spaces(space or []) or None,
        "params": pairs(param or []) or None,
        "method": method,
        "trials": trials,
        "patience": patience,
        "objective": objective,
        "min_trades": min_trades,
        "max_drawdown": max_drawdown,
        "top": top,
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
    if resume is not None:
        resume_optimization(resume, {**values, "walk_forward": walk_forward or None, **walk})
    else:
        run_optimization(values, walk, walk_forward=walk_forward)


def register(app: typer.Typer) -> None:
    """Put the command on the tree."""
    app.command()(optimize)
