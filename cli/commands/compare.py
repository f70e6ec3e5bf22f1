"""`gpt-trader strategy compare`: finished runs, or strategies that are run first, side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands.complete import complete_strategy
from cli.commands.simulation_options import (
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
    Symbol,
    TakeProfit,
    Timeframe,
)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|STRATEGY...",
            help="Ids of finished runs (backtest, or optimize: its best), or strategies to run first; 2 to 20.",
            autocompletion=complete_strategy,
        ),
    ],
    *,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC", help="The best by this metric first, e.g. sharpe (default: as given)."
        ),
    ] = None,
    report: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the comparison as an HTML page, too.")
    ] = None,
    symbol: Symbol = None,
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
) -> None:
    """Compare runs: metrics with the best of each, equity on common dates, correlation, and what differs.

    Strategies are backtested first, with the same terms on the same snapshot, each with its default parameters; the
    options of a backtest are theirs.

    Example: gpt-trader strategy compare momentum ma_crossover --symbol AAPL --sort sharpe --report compared.html
    """
    from cli.actions.compare import compare as compare_runs

    compare_runs(
        runs,
        {
            "symbol": symbol,
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
        },
        sort=sort,
        report=report,
    )


def register(app: typer.Typer) -> None:
    """Put the command on the group of `strategy`."""
    app.command()(compare)
