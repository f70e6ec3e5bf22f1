"""`gpt-trader portfolio`: many symbols, one cash account."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from cli.commands.complete import complete_param, complete_strategy, complete_symbol
from cli.commands.simulation_options import (
    COSTS,
    REQUEST,
    AsOf,
    Capital,
    Commission,
    End,
    NoReport,
    OnGaps,
    Seed,
    Slippage,
    Source,
    Start,
    Timeframe,
)

_WEIGHTS = "Weights"


def backtest(
    *,
    symbol: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            help="Instrument; twice or more (default: those of --weight).",
            autocompletion=complete_symbol,
            rich_help_panel=REQUEST,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="How target weights are found: equal (default), inverse_volatility, given (by --weight) or strategy "
            "(by --strategy).",
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID=FRACTION",
            help="A symbol's target weight, e.g. AAPL=0.6; repeatable.",
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    volatility_window: Annotated[
        str | None,
        typer.Option(
            metavar="BARS",
            help="Returns that a volatility is taken over (inverse_volatility; default: 60).",
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What decides whether a symbol has its equal share: a registered strategy, or ./mine.py:MyStrategy.",
            autocompletion=complete_strategy,
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter of the strategy; repeatable.",
            autocompletion=complete_param,
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    rebalance: Annotated[
        Literal["none", "day", "week", "month", "quarter", "year"] | None,
        typer.Option(
            help="Trade back to the weights at the first open of each (default: month).",
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    drift: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTION",
            help="And whenever a weight is off by more than this fraction of equity.",
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    max_weight: Annotated[
        str | None,
        typer.Option(metavar="FRACTION", help="Most for one symbol (default: 1).", rich_help_panel=_WEIGHTS),
    ] = None,
    exposure: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTION", help="Most for all together (default: 1).", rich_help_panel=_WEIGHTS
        ),
    ] = None,
    min_trade: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTION", help="Smaller trades are left out (default: 0).", rich_help_panel=COSTS
        ),
    ] = None,
    start: Start = None,
    end: End = None,
    timeframe: Timeframe = None,
    source: Source = None,
    as_of: AsOf = None,
    on_gaps: OnGaps = None,
    capital: Capital = None,
    commission: Commission = None,
    slippage: Slippage = None,
    seed: Seed = None,
    no_report: NoReport = False,
) -> None:
    """Simulate a portfolio on stored bars and show its metrics beside buying and holding equal parts.

    Long only, shared cash, fills at each symbol's next open. Weights apply to the equity after the costs of trading to
    them. Symbols that the lake lacks are ingested first.

    Example: gpt-trader portfolio backtest --symbol AAPL --symbol IBM --symbol MSFT --weights equal --rebalance month
    """
    from cli.actions.portfolio import run_portfolio
    from cli.runs.parameters import pairs

    values: dict[str, Any] = {
        "symbols": symbol or None,
        "weights": weights,
        "weight": pairs(weight or [], option="weight") or None,
        "volatility_window": volatility_window,
        "strategy": strategy,
        "params": pairs(param or []) or None,
        "rebalance": rebalance,
        "drift": drift,
        "max_weight": max_weight,
        "exposure": exposure,
        "min_trade": min_trade,
        "start": start,
        "end": end,
        "timeframe": timeframe,
        "source": source,
        "snapshot": as_of,
        "on_gaps": on_gaps,
        "capital": capital,
        "commission": commission,
        "slippage": slippage,
        "seed": seed,
        "report": False if no_report else None,
    }
    run_portfolio(values)


def register(app: typer.Typer) -> None:
    """Put the commands on the group."""
    app.command()(backtest)
