"""The kernel against its referees: vectorbt and the hand simulation, on random bars, targets, costs and stops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt_trader.backtesting.execution import execute, load_vectorbt
from gpt_trader.bars import Bars, Floats
from gpt_trader.requests import BacktestRequest
from gpt_trader.simulation import kernel
from tests.bars_factory import STOCK
from tests.examples import examples
from tests.property.test_engine_vs_hand import LEVELS, gapping_bars, requests
from tests.reference_simulation import by_hand

SIDES = {"long": (0, 1), "short": (-1, 0), "both": (-1, 1)}


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    load_vectorbt()  # seconds: not to be charged to an example


def targets_for(bars: Bars, request: BacktestRequest, choices: st.DataObject) -> Floats:
    runs = st.tuples(st.sampled_from(LEVELS), st.integers(1, 8))
    drawn = choices.draw(st.lists(runs, max_size=30))
    wanted = [level for level, bars_held in drawn for _ in range(bars_held)]
    return np.clip([*wanted, *[0.0] * len(bars)][: len(bars)], *SIDES[request.direction])


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bars=gapping_bars(), request=requests(), choices=st.data())
def test_equity_and_position_are_vectorbts(
    bars: Bars, request: BacktestRequest, choices: st.DataObject
) -> None:
    targets = targets_for(bars, request, choices)
    equity, position = kernel.simulate(bars, targets, request)
    referee = execute(bars, targets, request)
    scale = referee.equity.max() + np.abs(referee.position * bars.close).max()
    np.testing.assert_allclose(equity, referee.equity, rtol=1e-9, atol=1e-12 * scale)
    np.testing.assert_allclose(position, referee.position, rtol=1e-9)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bars=gapping_bars(), request=requests(), choices=st.data())
def test_stepped_bar_by_bar_in_plain_python_it_is_the_same(
    bars: Bars, request: BacktestRequest, choices: st.DataObject
) -> None:
    targets = targets_for(bars, request, choices)
    equity, position = kernel.simulate(bars, targets, request)
    hand = by_hand(bars, targets.tolist(), request)
    account, terms, wanted, trades = kernel.opened(request.capital), kernel.terms_of(request), 0.0, 0
    for i in range(len(bars)):
        bar = kernel.Bar(*(float(getattr(bars, name)[i]) for name in kernel.Bar._fields))
        before = account
        account, *fills = kernel.step.py_func(account, bar, wanted, terms)
        wanted = float(targets[i])
        trades += sum(fill.reason == kernel.ENTRY for fill in fills)
        held = before.units + sum(fill.units for fill in fills)
        assert account.units == pytest.approx(held, abs=1e-9 * max(abs(fill.units) for fill in fills))
        assert account.cash + account.units * bar.close == pytest.approx(equity[i], rel=1e-12, abs=1e-12)
        assert account.units == pytest.approx(position[i], rel=1e-12)
    assert trades == len(hand.trades)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bars=gapping_bars(), request=requests(), choices=st.data())
def test_what_trades_add_up_to_is_that_of_the_hand_simulation(
    bars: Bars, request: BacktestRequest, choices: st.DataObject
) -> None:
    targets = targets_for(bars, request, choices)
    hand = by_hand(bars, targets.tolist(), request)
    prices, terms = kernel.prices_of(bars), kernel.terms_of(request)
    tally = kernel.run(prices, targets, request.capital, terms, kernel.Curve.empty(len(bars)))
    closed = [trade for trade in hand.trades if trade["exit"] is not None]
    results = [float(str(trade["pnl"])) for trade in closed]
    scale = 1e-9 * max(hand.equity)
    assert (tally.entries, tally.closed) == (len(hand.trades), len(closed))
    assert tally.held == np.count_nonzero(hand.position)
    assert tally.costs == pytest.approx(hand.costs, rel=1e-9)
    assert tally.gained == pytest.approx(sum(r for r in results if r > 0), rel=1e-9, abs=scale)
    assert tally.lost == pytest.approx(sum(r for r in results if r < 0), rel=1e-9, abs=scale)
    if all(abs(result) > scale for result in results):  # a win of a rounding is none
        assert tally.wins == sum(result > 0 for result in results)


@settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1), capital=st.sampled_from([100.0, 1e4, 1e9, 1e12]))
def test_a_trade_that_ends_where_it_began_is_no_win(seed: int, capital: float) -> None:
    random = np.random.default_rng(seed)
    price = random.choice([99.99, 100.0, 100.01, 33.3], 200)
    day = np.datetime64("2010-01-04", "us") + np.arange(200) * np.timedelta64(1, "D")
    bars = Bars(STOCK, "1d", day, price, price, price, price, np.full(200, 1.0))
    targets = random.choice([0.0, 0.5, 1.0], 200)
    request = BacktestRequest(symbol="TEST", capital=capital, commission=0, slippage=0)
    tally = kernel.run(
        kernel.prices_of(bars), targets, capital, kernel.terms_of(request), kernel.Curve.empty(200)
    )
    trades = [trade for trade in execute(bars, targets, request).trades if trade.exit_time is not None]
    assert any(trade.pnl == 0 for trade in trades)
    assert (tally.closed, tally.wins) == (len(trades), sum(trade.pnl > 0 for trade in trades))
