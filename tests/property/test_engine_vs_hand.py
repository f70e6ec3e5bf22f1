"""The engine against the hand simulation: random bars, targets, directions, costs, sizes and stops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from gpt_trader.backtesting.engine import simulate
from gpt_trader.backtesting.execution import load_vectorbt
from gpt_trader.bars import Bars, Floats
from gpt_trader.requests import BacktestRequest
from gpt_trader.strategies.base import Strategy
from tests.bars_factory import STOCK
from tests.examples import examples
from tests.reference_simulation import by_hand

COMMISSIONS = (
    {"per_unit": 0.005, "minimum": 1.0, "maximum": 0.01},
    {"rate": 0.001, "per_order": 2.5},
    {"rate": 0.0005, "per_unit": 0.01, "per_order": 0.1, "minimum": 5.03},
)
LEVELS = (-1.0, -0.5, 0.0, 0.5, 1.0)


@pytest.fixture(scope="module", autouse=True)
def _vectorbt() -> None:
    load_vectorbt()  # seconds: not to be charged to an example


class Given(Strategy):
    """Targets read from an array."""

    name = "given"
    values: tuple[float, ...]

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        return np.asarray(self.values)


@st.composite
def gapping_bars(draw: st.DrawFn) -> Bars:
    """Bars with gaps at the open, wide ranges now and then, and a trend strong enough to ruin a short."""
    size, rng = draw(st.integers(1, 60)), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    level, drift = draw(st.sampled_from([0.005, 0.03, 0.15])), draw(st.sampled_from([0.0, 0.0, 0.05]))
    steps = rng.normal(drift, level, (size, 2)) * (rng.random((size, 2)) > draw(st.sampled_from([0.0, 0.5])))
    walk = draw(st.sampled_from([0.004, 0.01, 100.0, 50_000.0])) * np.exp(np.cumsum(steps.ravel())).reshape(
        size, 2
    )
    opened, closed = walk[:, 0].copy(), walk[:, 1].copy()
    reach = np.abs(rng.normal(0, level, (size, 2)))
    return Bars(
        instrument=STOCK,
        timeframe="1d",
        time=np.datetime64("2010-01-04", "us") + np.arange(size) * np.timedelta64(1, "D"),
        open=opened,
        high=np.maximum(opened, closed) * (1 + reach[:, 0]),
        low=np.minimum(opened, closed) * np.exp(-reach[:, 1]),
        close=closed,
        volume=np.full(size, 1000.0),
        logical_hash="gapping",
    )


def requests() -> st.SearchStrategy[BacktestRequest]:
    return st.builds(
        BacktestRequest,
        symbol=st.just("TEST"),
        direction=st.sampled_from(["long", "short", "both", "both"]),
        capital=st.sampled_from([100.0, 10_000.0, 1e9]),
        commission=st.sampled_from([0.0, 0.001, 0.02, *COMMISSIONS]),
        slippage=st.sampled_from([0.0, 0.0005, 0.01, {"rate": 0.001, "per_unit": 0.005}]),
        size=st.sampled_from([1.0, 1.0, 0.3, 0.05]),
        stop_loss=st.none() | st.sampled_from([0.005, 0.05, 0.5]),
        take_profit=st.none() | st.sampled_from([0.005, 0.05, 0.5, 3.0]),
    )


@settings(max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bars=gapping_bars(), request=requests(), choices=st.data())
def test_equity_position_and_trades_are_those_of_the_hand_simulation(
    bars: Bars, request: BacktestRequest, choices: st.DataObject
) -> None:
    runs = st.tuples(st.sampled_from(LEVELS), st.integers(1, 8))
    wanted = [
        level for level, bars_held in choices.draw(st.lists(runs, max_size=30)) for _ in range(bars_held)
    ]
    targets = [*wanted, *[0.0] * len(bars)][: len(bars)]
    allowed = np.clip(
        targets, *{"long": (0, 1), "short": (-1, 0), "both": (-1, 1)}[request.direction]
    ).tolist()

    result = simulate(bars, 0, Given(values=tuple(targets)), request)
    expected = by_hand(bars, allowed, request)

    for reason in {t.exit_reason for t in result.trades}:
        event(reason)
    scale = max(expected.equity) + max(abs(p * c) for p, c in zip(expected.position, bars.close, strict=True))
    np.testing.assert_allclose(result.equity, expected.equity, rtol=1e-9, atol=1e-12 * scale)
    np.testing.assert_allclose(result.position, expected.position, rtol=1e-9)
    assert len(result.trades) == len(expected.trades)
    for trade, hand in zip(result.trades, expected.trades, strict=True):
        assert trade.entry_time == bars.time[hand["entry"]]
        assert trade.exit_time == (None if hand["exit"] is None else bars.time[hand["exit"]])
        assert (trade.side, trade.exit_reason) == (hand["side"], hand["reason"])
        assert trade.bars == (len(bars) if hand["exit"] is None else hand["exit"]) - hand["entry"]
        assert trade.size == pytest.approx(hand["size"], rel=1e-9)
        assert trade.entry_price == pytest.approx(hand["entry_price"], rel=1e-9)
        assert trade.exit_price == pytest.approx(hand["exit_price"], rel=1e-9)
        notional = trade.size * trade.entry_price
        assert trade.pnl == pytest.approx(hand["pnl"], rel=1e-9, abs=1e-9 * notional / request.size)
        assert trade.return_ == pytest.approx(trade.pnl / notional, rel=1e-9, abs=1e-12)
    assert result.metrics.costs == pytest.approx(expected.costs, rel=1e-9)
    assert sum(t.bars for t in result.trades) == np.count_nonzero(result.position)
