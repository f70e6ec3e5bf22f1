"""The engine: refusals, execution in small known cases, equality with vectorbt's Portfolio, determinism."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from typing import Any

import numpy as np
import pytest
from pydantic import Field

from gpt_trader.backtesting.engine import simulate, wanted_targets
from gpt_trader.backtesting.result import BacktestResult
from gpt_trader.bars import Bars, Floats
from gpt_trader.errors import NotEnoughBars, Refused
from gpt_trader.requests import BacktestRequest
from gpt_trader.strategies.base import Strategy
from tests.bars_factory import STOCK
from tests.reference_simulation import by_hand
from tests.sample_bars import sample_bars


class Given(Strategy):
    """Targets as given."""

    name = "given"
    values: Any = Field(exclude=True)  # an array is no parameter
    needs: int = 1

    @property
    def warmup(self) -> int:
        return self.needs

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        return self.values


class SmaCross(Strategy):
    """Long while SMA(fast) > SMA(slow); the sums are numpy's."""

    name = "sma_cross"
    fast: int = 10
    slow: int = 30

    @property
    def warmup(self) -> int:
        return self.slow

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        fast, slow = (np.convolve(bars.close, np.ones(n) / n)[: len(bars)] for n in (self.fast, self.slow))
        wanted = (fast > slow).astype(float)
        wanted[: max(first, self.slow - 1)] = 0.0
        return wanted


def ohlc(*rows: tuple[float, float, float, float]) -> Bars:
    opened, high, low, close = np.array(rows, dtype=float).T
    day = np.datetime64("2010-01-04", "us") + np.arange(len(rows)) * np.timedelta64(1, "D")
    return Bars(STOCK, "1d", day, opened, high, low, close, np.ones(len(rows)), logical_hash="test")


def flat(count: int, price: float = 100.0) -> Bars:
    return ohlc(*[(price, price, price, price)] * count)


def run(bars: Bars, targets: list[float], **terms: Any) -> BacktestResult:
    terms = {"commission": 0.0, "slippage": 0.0, "direction": "both", **terms}
    return simulate(bars, 0, Given(values=np.array(targets)), BacktestRequest(symbol="TEST", **terms))


def exits(result: BacktestResult) -> list[tuple[int, str, float]]:
    days = result.time.tolist()
    return [
        (days.index(t.exit_time.item()), t.exit_reason, t.exit_price) for t in result.trades if t.exit_time
    ]


# A known strategy on real bars.


def test_sma_cross_of_aapl_is_the_hand_simulation() -> None:
    bars = sample_bars("AAPL", end="2012-12-31")
    first = int(np.searchsorted(bars.time, np.datetime64("2005-01-03")))
    request = BacktestRequest(
        symbol="AAPL", start=date(2005, 1, 3), end=date(2012, 12, 31), commission=0.001, slippage=0.0
    )
    result = simulate(bars, first, SmaCross(), request)

    close = bars.close.tolist()
    wanted = [
        float(sum(close[i - 9 : i + 1]) / 10 > sum(close[i - 29 : i + 1]) / 30)
        for i in range(first, len(close))
    ]
    expected = by_hand(bars[first:], wanted, request)
    np.testing.assert_allclose(result.equity, expected.equity, rtol=1e-12)
    assert (len(result.time), result.metrics.trades, len(expected.trades)) == (2013, 32, 32)
    assert result.metrics.final_equity == pytest.approx(84119.30498754681, rel=1e-12)
    assert result.metrics.sharpe == pytest.approx(1.1468361797866464, rel=1e-12)
    assert result.equity[0] == request.capital


@pytest.mark.parametrize("direction", ["long", "short"])
def test_without_stops_it_is_vectorbts_portfolio_on_plain_bars(direction: str) -> None:
    import pandas as pd
    import vectorbt as vbt

    bars = sample_bars("MSFT", start="2008-01-01", end="2010-12-31")
    sign = 1.0 if direction == "long" else -1.0
    targets = sign * SmaCross(fast=5, slow=15).targets(bars)
    request = BacktestRequest(symbol="MSFT", direction=direction, size=0.6, commission=0.002, slippage=0.001)
    result = simulate(bars, 0, Given(values=targets), request)

    wanted = np.concatenate(([False], targets[:-1] != 0))
    before = np.concatenate(([False], wanted[:-1]))
    index = pd.DatetimeIndex(bars.time)
    portfolio = vbt.Portfolio.from_signals(
        pd.Series(bars.close, index),
        entries=pd.Series(wanted & ~before, index),
        exits=pd.Series(before & ~wanted, index),
        direction=f"{direction}only",
        price=pd.Series(bars.open, index),
        size=0.6,
        size_type="percent",
        init_cash=request.capital,
        fees=0.002,
        slippage=0.001,
        freq="1D",
    )
    np.testing.assert_allclose(result.equity, portfolio.value().to_numpy(), rtol=1e-12)
    records = portfolio.exit_trades.values
    assert len(records) == len(result.trades) > 10
    for name, ours in (
        ("size", "size"),
        ("entry_price", "entry_price"),
        ("pnl", "pnl"),
        ("return", "return_"),
    ):
        np.testing.assert_allclose([getattr(t, ours) for t in result.trades], records[name], rtol=1e-9)


# Fills.


def test_a_target_is_filled_at_the_next_open_with_slippage_and_commission() -> None:
    bars = ohlc((100, 100, 100, 100), (110, 125, 110, 120), (130, 130, 130, 130))
    result = run(bars, [1, 1, 1], commission=0.01, slippage=0.02, capital=1000.0)
    shares = 1000 / (110 * 1.02 * 1.01)
    np.testing.assert_allclose(result.equity, [1000, shares * 120, shares * 130], rtol=1e-12)
    (trade,) = result.trades
    assert (trade.exit_time, trade.exit_reason, trade.bars) == (None, "open", 2)
    assert (trade.entry_price, trade.exit_price) == pytest.approx((112.2, 130))
    assert trade.entry_costs == pytest.approx(shares * 112.2 * 0.01 + shares * 110 * 0.02)
    assert result.metrics.costs == pytest.approx(trade.entry_costs)


def test_the_last_bars_target_is_never_filled() -> None:
    assert run(flat(3), [0, 0, 1]).trades == ()


def test_size_is_the_fraction_of_equity_put_in() -> None:
    bars = ohlc((100, 100, 100, 100), (100, 100, 100, 100), (200, 200, 200, 200))
    assert run(bars, [1, 1, 1], size=0.25, capital=1000.0).equity[-1] == pytest.approx(1250)
    assert run(bars, [0.5, 0.5, 0.5], size=0.5, capital=1000.0).equity[-1] == pytest.approx(1250)


def test_a_reversal_closes_and_reopens_at_one_open_with_commission_on_both() -> None:
    result = run(flat(4), [1, -1, -1, 0], commission=0.01, capital=1000.0)
    long, short = result.trades
    assert long.exit_time == short.entry_time == result.time[2]
    shares = 1000 / 101
    assert (long.side, long.size, short.side) == (1, pytest.approx(shares), -1)
    left = shares * 100 * 0.99
    assert short.size == pytest.approx(left / 101)
    assert result.equity[2] == pytest.approx(left - left / 101 * 100 * 0.01)


def test_a_change_of_fraction_is_a_new_trade_of_the_new_size() -> None:
    result = run(flat(4), [0.5, 1.0, 1.0, 1.0], capital=1000.0)
    assert [t.size for t in result.trades] == pytest.approx([5.0, 10.0])
    assert [t.bars for t in result.trades] == [1, 2]


@pytest.mark.parametrize(("direction", "sides"), [("long", [1]), ("short", [-1]), ("both", [1, -1])])
def test_direction_drops_the_other_side(direction: str, sides: list[int]) -> None:
    assert [t.side for t in run(flat(6), [1, 0, -1, 0, 0, 0], direction=direction).trades] == sides


# Stops.


def test_a_stop_hangs_on_the_fill_price_and_spares_the_entry_bar() -> None:
    bars = ohlc((100, 100, 100, 100), (100, 100, 50, 90), (92, 96, 80, 95), (95, 95, 95, 95))
    result = run(bars, [1, 1, 1, 1], stop_loss=0.1, slippage=0.01)
    level = 100 * 1.01 * 0.9
    assert exits(result) == [(2, "stop_loss", pytest.approx(level * 0.99))]


def test_a_gap_through_the_stop_fills_at_the_open() -> None:
    bars = ohlc((100, 100, 100, 100), (100, 100, 100, 100), (70, 75, 65, 72))
    assert exits(run(bars, [1, 1, 1], stop_loss=0.1)) == [(2, "stop_loss", pytest.approx(70))]
    bars = ohlc((100, 100, 100, 100), (100, 100, 100, 100), (130, 135, 125, 132))
    assert exits(run(bars, [1, 1, 1], take_profit=0.1)) == [(2, "take_profit", pytest.approx(130))]
    assert exits(run(bars, [-1, -1, -1], stop_loss=0.1)) == [(2, "stop_loss", pytest.approx(130))]


def test_within_a_bar_the_stop_loss_goes_first_but_a_gap_at_the_open_goes_before_it() -> None:
    wide = ohlc((100, 100, 100, 100), (100, 100, 100, 100), (100, 120, 80, 100))
    assert exits(run(wide, [1, 1, 1], stop_loss=0.1, take_profit=0.1)) == [
        (2, "stop_loss", pytest.approx(90))
    ]
    gap = ohlc((100, 100, 100, 100), (100, 100, 100, 100), (115, 120, 80, 100))
    assert exits(run(gap, [1, 1, 1], stop_loss=0.1, take_profit=0.1)) == [
        (2, "take_profit", pytest.approx(115))
    ]


def test_a_change_of_target_at_the_open_goes_before_the_stop_of_that_bar() -> None:
    bars = ohlc((100, 100, 100, 100), (100, 100, 100, 100), (100, 100, 80, 85), (85, 85, 85, 85))
    result = run(bars, [1, -1, -1, -1], stop_loss=0.1)
    assert exits(result) == [(2, "target", pytest.approx(100))]
    assert [t.side for t in result.trades] == [1, -1]


def test_no_reentry_after_a_stop_until_the_target_changes() -> None:
    day, crash = (100.0, 100.0, 100.0, 100.0), (100.0, 100.0, 80.0, 100.0)
    result = run(ohlc(day, day, crash, day, day, day, day), [1, 1, 1, 0, 1, 1, 1], stop_loss=0.1)
    assert [int(np.searchsorted(result.time, t.entry_time)) for t in result.trades] == [1, 5]
    assert result.position.tolist()[2:5] == [0, 0, 0]


def test_a_short_that_loses_everything_is_liquidated() -> None:
    up = [(p, p, p, p) for p in (100.0, 100.0, 150.0, 210.0, 90.0, 90.0, 90.0)]
    result = run(ohlc(*up), [-1, -1, -1, -1, 1, 1, 1], capital=1000.0)
    assert result.equity.tolist() == [1000, 1000, 500, 0, 0, 0, 0]
    (trade,) = result.trades
    assert (trade.exit_reason, trade.exit_price) == ("ruin", pytest.approx(200))
    assert (trade.pnl, trade.return_, trade.bars) == (pytest.approx(-1000), pytest.approx(-1), 2)
    assert (result.metrics.total_return, result.metrics.max_drawdown) == (-1.0, -1.0)
    assert result.metrics.annualized_return == -1.0
    assert len(result.result_hash) == 64  # every metric is a finite number or None


# The value returned.


def test_defaults_given_or_left_out_hash_alike_and_twice_is_the_same() -> None:
    bars = sample_bars("IBM", start="2004-01-01", end="2005-12-31")
    plain = BacktestRequest(symbol="IBM", strategy="sma_cross")
    spelled = BacktestRequest(symbol="IBM", strategy="sma_cross", params={"fast": 10}, report=False)
    results = [
        simulate(bars, 40, SmaCross(), r, snapshot_id=s)
        for r, s in ((plain, "a"), (plain, "b"), (spelled, ""))
    ]
    assert len({r.result_hash for r in results}) == 1
    assert results[0].request["params"] == results[0].params == {"fast": 10, "slow": 30}
    assert results[0].result_hash != simulate(bars, 41, SmaCross(), plain).result_hash
    assert results[0].result_hash != simulate(bars, 40, SmaCross(slow=31), plain).result_hash


def test_arrays_are_aligned_and_stages_told() -> None:
    stages: list[str] = []
    bars = sample_bars("IBM", start="2004-01-01", end="2004-12-31")
    result = simulate(bars, 40, SmaCross(), BacktestRequest(symbol="IBM"), on_stage=stages.append)
    size = len(bars) - 40
    for name in ("time", "close", "equity", "benchmark_equity", "drawdown", "position"):
        assert getattr(result, name).shape == (size,), name
    assert stages == ["targets", "simulate", "metrics"] == list(result.provenance["durations"])
    np.testing.assert_allclose(result.benchmark_equity, 10_000 * bars.close[40:] / bars.close[40])


def test_one_bar_is_enough_to_say_nothing_happened() -> None:
    result = run(flat(1), [1])
    assert (result.equity.tolist(), result.trades, result.metrics.sharpe) == ([10_000.0], (), None)


# Refusals.


def test_too_few_bars_say_how_many_there_are_and_are_needed() -> None:
    request = BacktestRequest(symbol="TEST", end=date(2010, 1, 8))
    with pytest.raises(NotEnoughBars, match=r"TEST has 5 1d bars up to the end .*given needs 6") as caught:
        simulate(flat(5), 2, Given(values=np.zeros(5), needs=6), request)
    assert (caught.value.problems[0].field, caught.value.problems[0].value) == ("end", "2010-01-08")
    assert len(simulate(flat(6), 2, Given(values=np.zeros(6), needs=6), request).time) == 4


def test_nothing_is_decided_before_the_warm_up_ends() -> None:
    rising = flat(6)
    strategy, request = Given(values=np.ones(6), needs=4), BacktestRequest(symbol="TEST")
    assert wanted_targets(strategy, rising, 0, request).tolist() == [0, 0, 0, 1, 1, 1]
    assert wanted_targets(strategy, rising, 2, request).tolist() == [0, 1, 1, 1]
    assert wanted_targets(strategy, rising, 5, request).tolist() == [1]


def test_a_strategy_is_not_asked_with_less_than_its_warm_up() -> None:
    class Needs(Given):
        def targets(self, bars: Bars, first: int = 0) -> Floats:
            return np.array([bars.close[3], 0.0, 0.0, 0.0]) * 0  # an IndexError with three bars

    assert wanted_targets(Needs(values=0, needs=4), flat(3), 1, BacktestRequest(symbol="TEST")).tolist() == [
        0,
        0,
    ]


@pytest.mark.parametrize("declared", [0, -1, 2.5, True, None])
def test_a_warm_up_that_is_no_number_of_bars_is_refused(declared: object) -> None:
    class Odd(Given):
        @property
        def warmup(self) -> int:
            return declared  # type: ignore[return-value]

    with pytest.raises(Refused, match=r"warmup is .*whole number of bars, at least 1"):
        simulate(flat(1), 0, Odd(values=np.zeros(1)), BacktestRequest(symbol="TEST"))


@pytest.mark.parametrize("count", [0, 5])
def test_an_empty_range_says_what_there_is(count: int) -> None:
    request = BacktestRequest(symbol="TEST", start=date(2030, 1, 1))
    with pytest.raises(
        NotEnoughBars, match="TEST has 0 1d bars from 2030-01-01 to the last bar, at least 1"
    ) as caught:
        simulate(flat(5)[:count], count, Given(values=np.zeros(count)), request)
    assert ("2010-01-08" in str(caught.value)) == bool(count)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.zeros(4), r"shape \(4,\) for 5 bars"),
        (np.zeros((5, 1)), r"shape \(5, 1\) for 5 bars"),
        (np.array([0, 0, np.nan, 0, 0]), r"targets\(\)\[2\] is nan"),
        (np.array([0, 0, 0, 1.5, -2]), r"targets\(\)\[3\] is 1.5 \(2 such values\)"),
        (np.array(["long"] * 5), "not numbers"),
        (None, r"shape \(\) for 5 bars"),
    ],
)
def test_targets_that_break_the_contract_are_refused(targets: object, message: str) -> None:
    with pytest.raises(Refused, match=message):
        simulate(flat(5), 0, Given(values=targets), BacktestRequest(symbol="TEST"))


def test_what_cannot_be_sold_short_is_not() -> None:
    from dataclasses import replace

    bars = replace(flat(3), instrument=STOCK.model_copy(update={"shortable": False}))
    with pytest.raises(Refused, match="TEST cannot be sold short"):
        run(bars, [0, 0, 0], direction="short")
    assert run(bars, [0, 0, 0], direction="long").trades == ()


# Before a fork.

WARM = """
import os, threading
from gpt_trader.backtesting import engine
engine.warm_up()
import sys
assert threading.active_count() == 1, threading.enumerate()
assert "numba.core.compiler" in sys.modules and "IPython" not in sys.modules
names = [open(f"/proc/self/task/{t}/comm").read().strip() for t in os.listdir("/proc/self/task")]
print(sum(n != "jemalloc_bg_thd" for n in names))
child = os.fork()
if not child:
    from gpt_trader.backtesting.engine import warm_up
    warm_up()
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_warm_up_leaves_no_thread_and_a_fork_can_simulate() -> None:
    """pyarrow's allocator keeps one thread of its own, which it handles across forks."""
    ended = subprocess.run(
        [sys.executable, "-c", WARM],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "1"), ended.stderr
