"""The only place that defines a metric (by the formulas of `ratios`). Fractions, not percent; undefined is None.

Conventions, all as in vectorbt at the market's own year length (tests hold them equal):

- a bar's return is `equity[t] / equity[t−1] − 1`; the first bar's is 0 and counts, as the first decision is only
  made at its close;
- a year has `periods_a_year` bars (252 for daily US stocks, 365 where the market never closes);
- the risk-free rate is 0;
- win rate, profit factor, expectancy and the average, best and worst trade are taken over closed trades; `trades`
  counts entries, so an open trade too.

Means and sums are exactly rounded (`math.fsum`): the same inputs give the same bits on every machine, which the
result hash relies on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpt_trader.backtesting import ratios
from gpt_trader.backtesting.result import Drawdown, Metrics, Trade, finite
from gpt_trader.bars import Floats, Times


def metrics(
    equity: Floats, trades: Sequence[Trade], capital: float, periods_a_year: float, position: Floats
) -> Metrics:
    """Compute every metric of one equity curve.

    Args:
        equity: Equity at each bar's close, (n,), n ≥ 1, ≥ 0, currency.
        trades: Trades behind it, open one included.
        capital: Equity before the first bar, > 0, currency.
        periods_a_year: Bars in a year of this market and timeframe.
        position: Units held over each bar's close, (n,); only whether they are 0 matters.
    """
    change = returns(equity)
    closed = [t for t in trades if t.exit_time is not None]
    pnl, trade_returns = [t.pnl for t in closed], [t.return_ for t in closed]
    depth, length = deepest_drawdown(equity)
    yearly = annualized_return(float(equity[-1]), capital, len(equity), periods_a_year)
    return Metrics(
        total_return=ratios.total_return(float(equity[-1]), capital),
        annualized_return=yearly,
        annualized_volatility=annualized_volatility(change, periods_a_year),
        sharpe=sharpe(change, periods_a_year),
        sortino=sortino(change, periods_a_year),
        calmar=calmar(yearly, depth),
        max_drawdown=depth,
        max_drawdown_bars=length,
        win_rate=win_rate(pnl),
        profit_factor=profit_factor(pnl),
        expectancy=_mean(pnl),
        exposure=float(np.count_nonzero(position)) / len(equity),
        turnover=turnover(trades, equity, periods_a_year),
        average_trade=_mean(trade_returns),
        best_trade=max(trade_returns, default=None),
        worst_trade=min(trade_returns, default=None),
        trades=len(trades),
        costs=costs(trades),
        final_equity=float(equity[-1]),
    )


def returns(equity: Floats) -> Floats:
    """Return each bar's simple return, (n,); the first is 0, and so is one that starts from no equity."""
    before, after = equity[:-1], equity[1:]
    change = np.zeros(len(equity))
    np.divide(after, before, out=change[1:], where=before != 0)
    change[1:][before != 0] -= 1.0
    return change


def annualized_return(final: float, capital: float, bars: int, periods_a_year: float) -> float | None:
    """Compound annual growth rate: `(final / capital)^(periods_a_year / bars) − 1`.

    `bars` counts the bars of the range, as vectorbt and empyrical do. None where it is not a finite number.
    """
    try:
        return finite(ratios.annualized(final, capital, bars, periods_a_year))
    except OverflowError:
        return None


def annualized_volatility(change: Floats, periods_a_year: float) -> float | None:
    """Sample standard deviation (n − 1) of the returns × √periods_a_year. None for fewer than two bars."""
    deviation = _deviation(change)
    return None if deviation is None else deviation * math.sqrt(periods_a_year)


def sharpe(change: Floats, periods_a_year: float) -> float | None:
    """Sharpe ratio (Sharpe 1994), risk-free rate 0: `mean / standard deviation (n − 1) × √periods_a_year`.

    None for fewer than two bars or where no return differs from another.
    """
    mean, deviation = _mean(change), _deviation(change)
    return ratios.over_risk(mean, deviation, periods_a_year) if mean is not None and deviation else None


def sortino(change: Floats, periods_a_year: float) -> float | None:
    """Sortino ratio (Sortino & Price 1994), target 0: `mean / √mean(min(return, 0)²) × √periods_a_year`.

    The downside deviation's mean is over all bars, not the losing ones only. None for fewer than two bars or
    where no bar lost.
    """
    if len(change) < 2:
        return None
    downside = math.sqrt(math.fsum((np.minimum(change, 0.0) ** 2).tolist()) / len(change))
    if downside == 0.0:
        return None
    return ratios.over_risk(math.fsum(change.tolist()) / len(change), downside, periods_a_year)


def calmar(yearly: float | None, max_drawdown: float) -> float | None:
    """Calmar ratio (Young 1991) over the whole range: `annualized return / |max drawdown|`; None without a fall."""
    return None if yearly is None or max_drawdown == 0.0 else ratios.over_fall(yearly, max_drawdown)


def win_rate(pnl: Sequence[float]) -> float | None:
    """Share of closed trades with `pnl > 0`; None without a closed trade."""
    return sum(p > 0 for p in pnl) / len(pnl) if pnl else None


def profit_factor(pnl: Sequence[float]) -> float | None:
    """Gains of the winning closed trades over losses of the losing ones; None where nothing was lost."""
    lost = math.fsum(p for p in pnl if p < 0)
    return ratios.profit_factor(math.fsum(p for p in pnl if p > 0), lost) if lost else None


def turnover(trades: Sequence[Trade], equity: Floats, periods_a_year: float) -> float | None:
    """Notional bought and sold (each fill counts once) over the mean equity, a year (dimensionless).

    All in and out once a year is 2. None where the mean equity is 0.
    """
    traded = math.fsum(t.size * t.entry_price for t in trades)
    traded += math.fsum(t.size * t.exit_price for t in trades if t.exit_time is not None)
    mean = _mean(equity)
    return traded / mean * periods_a_year / len(equity) if mean else None


def costs(trades: Sequence[Trade]) -> float:
    """Commission and slippage paid (currency), the open trade's entry included.

    Slippage paid is `units × |fill price − price before slippage|`.
    """
    return math.fsum(t.entry_costs + t.exit_costs for t in trades)


def buy_and_hold(close: Floats, capital: float) -> Floats:
    """Return the benchmark's equity, (n,): all in at the first close, no costs (vectorbt's `benchmark_value`)."""
    equity: Floats = capital * close / close[0]
    return equity


def benchmark(close: Floats, time: Times, capital: float, periods_a_year: float) -> tuple[Floats, Metrics]:
    """Return buy-and-hold's equity and metrics.

    It is one trade, entered at the first bar's close and never closed: `trades` is 1, `exposure` 1, `costs` 0,
    and what needs a closed trade is None.
    """
    equity = buy_and_hold(close, capital)
    pnl = float(equity[-1]) - capital
    held = Trade(
        entry_time=time[0],
        exit_time=None,
        side=1,
        size=capital / float(close[0]),
        entry_price=float(close[0]),
        exit_price=float(close[-1]),
        entry_costs=0.0,
        exit_costs=0.0,
        pnl=pnl,
        return_=pnl / capital,
        bars=len(close),
        exit_reason="open",
    )
    return equity, metrics(equity, [held], capital, periods_a_year, np.ones(len(close)))


def drawdown(equity: Floats) -> Floats:
    """Return each bar's fall from the highest equity so far, (n,), ≤ 0: `equity / running maximum − 1`."""
    fall: Floats = equity / np.maximum.accumulate(equity) - 1.0
    return fall


def deepest_drawdown(equity: Floats) -> tuple[float, int]:
    """Return the deepest drawdown's depth (≤ 0) and its length in bars, peak to recovery (or to the last bar)."""
    starts, ends, depths = _falls(equity)
    if not len(depths):
        return 0.0, 0
    worst = int(np.argmin(depths))
    return float(depths[worst]), _length(starts[worst], ends[worst], len(equity))


def drawdowns(equity: Floats, time: Times, top: int = 20) -> tuple[Drawdown, ...]:
    """Return the `top` deepest drawdowns, deepest first; of equal ones the earlier first.

    A drawdown runs from the last bar at its peak to the first bar back at or above it; `bars` counts from peak to
    recovery, or to the last bar where there is none yet.
    """
    starts, ends, depths = _falls(equity)
    found = []
    for k in np.argsort(depths, kind="stable")[:top]:
        start, end = int(starts[k]), int(ends[k])
        found.append(
            Drawdown(
                peak_time=time[start - 1],
                valley_time=time[start + int(np.argmin(equity[start:end]))],
                recovery_time=time[end] if end < len(equity) else None,
                depth=float(depths[k]),
                bars=_length(start, end, len(equity)),
            )
        )
    return tuple(found)


def _falls(equity: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Return each drawdown's first bar below the peak, first bar back at it (n: none), and depth."""
    fall = np.append(drawdown(equity), 0.0)
    edges = np.flatnonzero(np.diff(fall < 0.0)) + 1
    depths = np.minimum.reduceat(fall, edges)[::2] if len(edges) else np.empty(0)
    return edges[::2], edges[1::2], depths


def _length(start: int, end: int, bars: int) -> int:
    return int(min(end, bars - 1) - (start - 1))


def _mean(values: Floats | Sequence[float]) -> float | None:
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    return math.fsum(listed) / len(listed) if len(listed) else None


def _deviation(change: Floats) -> float | None:
    """Sample standard deviation (n − 1); None for fewer than two values."""
    mean = _mean(change)
    if mean is None or len(change) < 2:
        return None
    return math.sqrt(math.fsum(((change - mean) ** 2).tolist()) / (len(change) - 1))
