"""Every metric: by hand on small arrays, against vectorbt on a real backtest, and undefined where it is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_trader.backtesting import metrics as measure
from gpt_trader.backtesting.engine import simulate
from gpt_trader.backtesting.result import BacktestResult, Metrics, Trade
from gpt_trader.bars import Bars, Floats
from gpt_trader.requests import BacktestRequest
from gpt_trader.strategies.base import Strategy
from tests.sample_bars import sample_bars

DAY = np.datetime64("2020-01-01", "us") + np.arange(1000) * np.timedelta64(1, "D")


def trade(
    pnl: float, *, size: float = 10.0, entry: float = 100.0, costs: float = 1.0, closed: bool = True
) -> Trade:
    return Trade(
        entry_time=DAY[0],
        exit_time=DAY[1] if closed else None,
        side=1,
        size=size,
        entry_price=entry,
        exit_price=entry + pnl / size,
        entry_costs=costs,
        exit_costs=costs if closed else 0.0,
        pnl=pnl,
        return_=pnl / (size * entry),
        bars=1,
        exit_reason="target" if closed else "open",
    )


def measured(
    equity: Sequence[float], trades: Sequence[Trade] = (), year: float = 252.0, **more: Any
) -> Metrics:
    curve = np.array(equity, dtype=float)
    position = more.get("position", np.zeros(len(curve)))
    return measure.metrics(curve, trades, float(curve[0]), year, np.asarray(position))


# By hand.


def test_a_small_curve_by_hand() -> None:
    found = measured([100, 110, 99, 108.9, 99], year=4.0)
    change = [0, 0.1, -0.1, 0.1, 99 / 108.9 - 1]
    mean, deviation = statistics.mean(change), statistics.stdev(change)
    assert found.total_return == pytest.approx(-0.01)
    assert found.annualized_return == pytest.approx(0.99 ** (4 / 5) - 1)
    assert found.annualized_volatility == pytest.approx(deviation * 2)
    assert found.sharpe == pytest.approx(mean / deviation * 2)
    downside = math.sqrt((0.1**2 + change[-1] ** 2) / 5)
    assert found.sortino == pytest.approx(mean / downside * 2)
    assert found.max_drawdown == pytest.approx(-0.1)
    assert found.calmar == pytest.approx((0.99 ** (4 / 5) - 1) / 0.1)
    assert found.max_drawdown_bars == 3  # from the peak at bar 1 to the last bar
    assert found.final_equity == 99


def test_trades_by_hand() -> None:
    closed = [trade(50), trade(-20), trade(30), trade(0)]
    found = measured([1000.0] * 126, [*closed, trade(400, closed=False)])
    assert found.trades == 5
    assert found.win_rate == 0.5
    assert found.profit_factor == pytest.approx(80 / 20)
    assert found.expectancy == pytest.approx(60 / 4)
    assert found.average_trade == pytest.approx(0.015)
    assert (found.best_trade, found.worst_trade) == pytest.approx((0.05, -0.02))
    assert found.costs == pytest.approx(4 * 2 + 1)
    # Five entries of 1,000 and four exits of 1,050 + 980 + 1,030 + 1,000, over 1,000, in half a year.
    assert found.turnover == pytest.approx((5000 + 4060) / 1000 * 2)


def test_exposure_counts_bars_with_a_position_of_either_side() -> None:
    assert measured([100] * 4, position=[0, 2.5, -1, 0]).exposure == 0.5


def test_drawdowns_by_hand_deepest_first() -> None:
    #        0    1    2   3    4    5    6    7   8    9
    curve = [100, 90, 100, 120, 60, 90, 120, 130, 65, 117]
    found = measure.drawdowns(np.array(curve, dtype=float), DAY)
    at = [int(np.searchsorted(DAY, d.peak_time)) for d in found]
    valley = [int(np.searchsorted(DAY, d.valley_time)) for d in found]
    recovery = [
        None if d.recovery_time is None else int(np.searchsorted(DAY, d.recovery_time)) for d in found
    ]
    assert (at, valley, recovery) == ([3, 7, 0], [4, 8, 1], [6, None, 2])
    assert [d.depth for d in found] == pytest.approx([-0.5, -0.5, -0.1])
    assert [d.bars for d in found] == [3, 2, 2]
    assert measure.drawdowns(np.array(curve, dtype=float), DAY, top=1) == found[:1]


def test_benchmark_buys_once_pays_nothing_and_never_sells() -> None:
    close = np.array([50.0, 40.0, 60.0])
    equity, found = measure.benchmark(close, DAY[:3], 1000.0, 252.0)
    assert equity.tolist() == [1000, 800, 1200]
    assert (found.trades, found.costs, found.exposure, found.win_rate) == (1, 0, 1, None)
    assert found.total_return == pytest.approx(0.2)
    assert found.turnover == pytest.approx(252 / 3)


# Undefined is None.


def test_a_flat_curve_has_no_ratios() -> None:
    found = measured([100.0] * 10)
    assert (found.sharpe, found.sortino, found.calmar, found.win_rate, found.profit_factor) == (None,) * 5
    assert (found.expectancy, found.average_trade, found.best_trade, found.worst_trade) == (None,) * 4
    assert (found.annualized_return, found.annualized_volatility, found.max_drawdown, found.turnover) == (
        0,
    ) * 4
    assert found.max_drawdown_bars == 0


def test_one_bar_has_no_deviation() -> None:
    found = measured([100.0])
    assert (found.annualized_volatility, found.sharpe, found.sortino) == (None, None, None)
    assert found.annualized_return == 0


def test_a_curve_that_only_rises_has_no_downside() -> None:
    found = measured([100, 101, 103])
    assert (found.sortino, found.calmar) == (None, None)
    assert found.sharpe is not None


def test_growth_beyond_a_float_is_none() -> None:
    assert measured([1.0, 1e6], year=98_280.0).annualized_return is None


@pytest.mark.parametrize(
    ("pnl", "expected"), [([5.0], None), ([0.0], None), ([-5.0], 0.0), ([5.0, -10.0], 0.5)]
)
def test_profit_factor_needs_a_loss(pnl: list[float], expected: float | None) -> None:
    assert measure.profit_factor(pnl) == expected


def test_a_ruined_account_is_measured_not_divided_by() -> None:
    found = measured([100, 50, 0, 0])
    assert measure.returns(np.array([100.0, 50, 0, 0])).tolist() == [0, -0.5, -1, 0]
    assert (found.total_return, found.annualized_return, found.max_drawdown, found.calmar) == (-1, -1, -1, -1)


@given(
    st.lists(st.just(0.0) | st.floats(1e-6, 1e12), min_size=1, max_size=60),
    st.sampled_from([52.18, 252.0, 98_280.0]),
)
def test_every_metric_is_none_or_finite_and_in_its_range(tail: list[float], year: float) -> None:
    found = measured([1000.0, *tail], [trade(5), trade(-3)], year=year, position=[1.0] + [0.0] * len(tail))
    for name, value in found.as_dict().items():
        assert value is None or math.isfinite(value), name
    assert -1 <= found.max_drawdown <= 0 <= found.max_drawdown_bars <= len(tail)
    assert found.total_return >= -1
    assert 0 < found.exposure <= 1


# Against vectorbt, on a real backtest.


class Cross(Strategy):
    """Close above or below its own level 20 bars ago."""

    name = "cross"

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        before = np.concatenate((bars.close[:20], bars.close[:-20]))
        return np.sign(bars.close - before)


@pytest.fixture(scope="module")
def result() -> BacktestResult:
    bars = sample_bars("IBM", start="2003-01-01", end="2010-12-31")
    return simulate(bars, 30, Cross(), BacktestRequest(symbol="IBM", direction="both"))


def test_curve_metrics_are_vectorbts(result: BacktestResult) -> None:
    import pandas as pd
    import vectorbt as vbt

    assert vbt.__version__ == "1.2.0"  # the one whose definitions these are
    index = pd.DatetimeIndex(result.time)
    for equity, found in ((result.equity, result.metrics), (result.benchmark_equity, result.benchmark)):
        returns = pd.Series(equity, index).vbt.pct_change().fillna(0.0)
        theirs = returns.vbt.returns(freq="1D", year_freq="252 days")
        expected = {
            "total_return": theirs.total(),
            "annualized_return": theirs.annualized(),
            "annualized_volatility": theirs.annualized_volatility(),
            "sharpe": theirs.sharpe_ratio(),
            "sortino": theirs.sortino_ratio(),
            "calmar": theirs.calmar_ratio(),
            "max_drawdown": theirs.max_drawdown(),
        }
        for name, value in expected.items():
            assert getattr(found, name) == pytest.approx(float(value), rel=1e-9), name


def test_drawdowns_are_vectorbts(result: BacktestResult) -> None:
    import pandas as pd

    records = pd.Series(result.equity, pd.DatetimeIndex(result.time)).vbt.drawdowns.values
    depth = records["valley_val"] / records["peak_val"] - 1
    records, depth = records[np.argsort(depth, kind="stable")][:20], np.sort(depth)[:20]
    assert len(result.drawdowns) == len(depth) > 10
    np.testing.assert_allclose([d.depth for d in result.drawdowns], depth, rtol=1e-9)
    assert [d.peak_time for d in result.drawdowns] == list(result.time[records["peak_idx"]])
    assert [d.valley_time for d in result.drawdowns] == list(result.time[records["valley_idx"]])
    assert [d.bars for d in result.drawdowns] == (records["end_idx"] - records["peak_idx"]).tolist()
    deepest = result.drawdowns[0]
    assert (deepest.depth, deepest.bars) == (result.metrics.max_drawdown, result.metrics.max_drawdown_bars)
    assert deepest.depth == result.drawdown.min()


def test_trade_metrics_are_vectorbts(result: BacktestResult) -> None:
    """vectorbt's trades from our fills, for their win rate, profit factor, expectancy and returns."""
    import pandas as pd
    import vectorbt as vbt

    # A reversal's two fills are both on one side of the open: one order at one price to vectorbt's from_orders.
    units = np.diff(np.concatenate(([0.0], result.position)))
    fills = {t.entry_time: t.entry_price for t in result.trades}
    fills |= {t.exit_time: t.exit_price for t in result.trades if t.exit_time and t.exit_time not in fills}
    index = pd.DatetimeIndex(result.time)
    price = pd.Series([fills.get(time, np.nan) for time in result.time], index)
    theirs = vbt.Portfolio.from_orders(
        pd.Series(result.close, index),
        size=pd.Series(units, index),
        price=price,
        fees=0.001,
        init_cash=1e9,
        freq="1D",
    ).trades.closed
    assert theirs.count() == sum(t.exit_time is not None for t in result.trades) > 50
    found = result.metrics
    assert found.win_rate == pytest.approx(float(theirs.win_rate()), rel=1e-9)
    assert found.profit_factor == pytest.approx(float(theirs.profit_factor()), rel=1e-9)
    assert found.expectancy == pytest.approx(float(theirs.expectancy()), rel=1e-9)
    made = theirs.values["return"]
    assert found.average_trade == pytest.approx(made.mean(), rel=1e-9)
    assert (found.best_trade, found.worst_trade) == pytest.approx((made.max(), made.min()), rel=1e-9)


def test_exposure_is_vectorbts_position_coverage_and_costs_add_up(result: BacktestResult) -> None:
    assert result.metrics.exposure == np.mean(result.position != 0)
    gross = sum(
        t.side * t.size * (_reference(t.exit_price, -t.side, t) - _reference(t.entry_price, t.side, t))
        for t in result.trades
    )
    assert gross - result.metrics.costs == pytest.approx(result.metrics.final_equity - 10_000, rel=1e-9)


def _reference(price: float, side: int, trade: Trade) -> float:
    """Return the price before slippage of 0.0005; the open trade's last close has none."""
    is_mark = trade.exit_time is None and price == trade.exit_price
    return price if is_mark else price / (1 + side * 0.0005)
