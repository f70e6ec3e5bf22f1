"""Runs one portfolio backtest: weights, decisions, the kernel, vectorbt's verdict on it, metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpt_trader.backtesting import metrics as measure
from gpt_trader.backtesting.execution import vectorbt_version
from gpt_trader.bars import Floats
from gpt_trader.errors import NotEnoughBars, Problem
from gpt_trader.portfolio import kernel
from gpt_trader.portfolio.panel import Panel, never_traded
from gpt_trader.portfolio.rebalancing import due
from gpt_trader.portfolio.referee import verified_orders
from gpt_trader.portfolio.request import PortfolioRequest
from gpt_trader.portfolio.result import PortfolioResult
from gpt_trader.portfolio.trades import holdings_of, trades_of
from gpt_trader.portfolio.weights import target_weights
from gpt_trader.simulation.kernel import costs_of


def simulate(
    panel: Panel,
    request: PortfolioRequest,
    *,
    wanted: Floats | None = None,
    bars_hash: str | None = None,
    snapshot_id: str = "",
    on_stage: Callable[[str], None] | None = None,
) -> PortfolioResult:
    """Backtest a portfolio on the rows of a panel from `first` on; earlier ones are history for the weights.

    The first decision falls at the first close and is filled at the next opens, so `equity[0]` is the capital; what is
    held at the end is valued at the last closes. The rules are in `gpt_trader.portfolio.kernel` (trading) and `weights`
    (targets), every metric in `gpt_trader.backtesting.metrics`. The same arguments give the same `result_hash`.

    Args:
        panel: Prices of the request's symbols, in its order.
        request: Weights, rebalancing, bounds, capital and costs (its dates have been applied to `panel`).
        wanted: Each symbol's target by its strategy at each row (n, m), within [0, 1]; for weights strategy.
        bars_hash: Of the bars behind `wanted`, where they are more than the panel; default: the panel's own.
        snapshot_id: Where the bars came from; recorded, not part of the hash.
        on_stage: Told each stage's name as it starts: `weights`, `simulate`, `verify`, `metrics`.

    Raises:
        NotEnoughBars: A symbol has no bar in the range.
        GptTraderError: vectorbt's books of the fills are not the kernel's; the message names the first bar.
    """
    if panel.symbols != request.symbols or (wanted is None) != (request.weights != "strategy"):
        raise ValueError("the panel is not the request's")
    require_bars(panel)
    durations: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        if on_stage is not None:
            on_stage(name)
        started = time.perf_counter()
        yield
        durations[name] = time.perf_counter() - started

    traded = panel.traded
    with stage("weights"):
        decisions = decide(panel, request, wanted)
    with stage("simulate"):
        fills, course = trade(traded, decisions, request)
    with stage("verify"):
        orders = verified_orders(traded, fills, course, request.capital)
    with stage("metrics"):
        year, equity = panel.periods_a_year, course.equity
        trades = trades_of(traded, fills, course, orders)
        found = measure.metrics(equity, trades, request.capital, year, equity - course.cash)
        held, held_metrics = measure.benchmark(bought_and_held(traded), traded.time, request.capital, year)
        drawdowns = measure.drawdowns(equity, traded.time)
        weights = _weights_held(traded, course)
        holdings = holdings_of(traded, weights, decisions.weights[-1], fills, trades)
    return PortfolioResult(
        symbols=panel.symbols,
        timeframe=panel.timeframe,
        request=_canonical(request),
        snapshot_id=snapshot_id,
        bars_hash=panel.bars_hash if bars_hash is None else bars_hash,
        metrics=found,
        benchmark=held_metrics,
        trades=trades,
        holdings=holdings,
        drawdowns=drawdowns,
        fills=fills,
        time=traded.time,
        equity=equity,
        benchmark_equity=held,
        drawdown=measure.drawdown(equity),
        cash=course.cash,
        weights=weights,
        rebalanced=course.rebalanced,
        periods_a_year=year,
        provenance={"engine": f"vectorbt {vectorbt_version()}", "durations": durations},
    )


def require_bars(panel: Panel) -> None:
    """Raise NotEnoughBars that names the symbols without a bar in the range."""
    if missing := never_traded(panel):
        raise NotEnoughBars.of(
            *(Problem("symbols", symbol, f"{symbol} has no bars in the range") for symbol in missing[:20])
        )


def decide(panel: Panel, request: PortfolioRequest, wanted: Floats | None) -> kernel.Decisions:
    """Return the target weights of the range, and when they are traded to.

    On the schedule; with weights strategy a symbol also when its own target changes; with a drift the weights of every
    close are needed.
    """
    first, bars = panel.first, len(panel.time) - panel.first
    scheduled = due(panel.time[first:], request.rebalance)
    every = wanted is not None or request.drift is not None
    rows = np.arange(bars) if every or bars == 1 else np.flatnonzero(scheduled)
    row = np.full(bars, -1, np.int64)
    row[rows] = np.arange(len(rows))
    changed = np.zeros((0, len(panel.symbols)), np.bool_)
    if wanted is not None:
        before = np.vstack([wanted[first : first + 1], wanted[first:-1]])
        changed = wanted[first:] != before
    return kernel.Decisions(target_weights(panel, rows + first, request, wanted), row, scheduled, changed)


def trade(
    panel: Panel, decisions: kernel.Decisions, request: PortfolioRequest
) -> tuple[kernel.Fills, kernel.Course]:
    """Simulate the decisions on a range; return the fills and what came of them."""
    commission, slippage = costs_of(request)
    drift = np.inf if request.drift is None else request.drift
    terms = kernel.Terms(commission, slippage, request.exposure, request.min_trade, drift)
    course = kernel.Course.empty(len(panel.time), len(panel.symbols))
    prices = kernel.Prices(panel.open, panel.marks)
    return kernel.run(prices, decisions, request.capital, terms, course), course


def bought_and_held(panel: Panel) -> Floats:
    """Return the value (n,) of equal parts in each symbol, bought at its first close and held, relative to the first.

    The part of a symbol that is not listed yet lies in cash; one that has no bar (any more) is worth its last close. No
    costs.
    """
    return np.asarray((panel.marks / panel.marks[0]).mean(axis=1))


def _weights_held(panel: Panel, course: kernel.Course) -> Floats:
    equity = course.equity[:, None]
    return np.divide(course.units * panel.marks, equity, out=np.zeros_like(course.units), where=equity > 0)


def _canonical(request: PortfolioRequest) -> dict[str, Any]:
    """Return what the result depends on, with every default filled in that a method has."""
    found = request.canonical()
    if request.weights == "inverse_volatility":
        found["volatility_window"] = request.window
    return found
