"""Slippage in currency that is as large as the price, or larger: a fill keeps a price, alike on every path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt_trader.backtesting.execution import execute, load_vectorbt
from gpt_trader.bars import Bars, Floats
from gpt_trader.portfolio import engine as portfolio
from gpt_trader.portfolio.request import PortfolioRequest
from gpt_trader.requests import BacktestRequest
from gpt_trader.simulation import kernel
from gpt_trader.trading.request import PaperTradeRequest
from tests.examples import examples
from tests.portfolio_samples import walking_panel
from tests.reference_portfolio import by_hand as portfolio_by_hand
from tests.reference_simulation import by_hand
from tests.trading_samples import Given, traded, walk

#: Currency a unit; bars begin at a price of 100.
SLIPPAGES = st.sampled_from([50.0, 99.0, 100.0, 110.0, 300.0, 1e3])
COMMISSIONS = st.sampled_from([0.0, 0.001, {"per_unit": 5.0, "minimum": 1.0, "maximum": 0.01}])
SIDES = {"long": (0, 1), "short": (-1, 0), "both": (-1, 1)}


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    load_vectorbt()  # seconds: not to be charged to an example


def stepped(bars: Bars, targets: Floats, request: BacktestRequest) -> tuple[Floats, list[kernel.Fill]]:
    """Return the equity at each close by `step` in plain Python, and its fills."""
    account, terms, wanted = kernel.opened(request.capital), kernel.terms_of(request), 0.0
    equity, fills = np.empty(len(bars)), []
    for i in range(len(bars)):
        bar = kernel.Bar(*(float(getattr(bars, name)[i]) for name in kernel.Bar._fields))
        account, *three = kernel.step.py_func(account, bar, wanted, terms)
        wanted, equity[i] = float(targets[i]), account.cash + account.units * bar.close
        fills += [fill for fill in three if fill.units]
    return equity, fills


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), per_unit=SLIPPAGES, commission=COMMISSIONS, choices=st.data())
def test_every_path_fills_above_nothing_and_alike(
    seed: int, per_unit: float, commission: Any, choices: st.DataObject
) -> None:
    """Plain Python, compiled, vectorbt's books, the hand simulation, a session."""
    bars = walk(40, seed, 0.05)
    direction = choices.draw(st.sampled_from(sorted(SIDES)))
    wants = np.random.default_rng(seed).choice([-1.0, 0.0, 0.5, 1.0], 14).repeat(3)[:40]
    targets = np.clip(wants, *SIDES[direction])
    terms = {
        "direction": direction,
        "capital": 10_000.0,
        "commission": commission,
        "slippage": {"rate": choices.draw(st.sampled_from([0.0, 0.3])), "per_unit": per_unit},
        "stop_loss": choices.draw(st.sampled_from([None, 0.05])),
    }
    request = BacktestRequest(symbol="X", **terms)
    equity, fills = stepped(bars, targets, request)
    for fill in fills:
        assert fill.price > 0.0
        if fill.reason != kernel.RUIN:
            assert (fill.price - fill.reference) * fill.units >= 0.0, "never to whoever trades' advantage"
            assert fill.units > 0.0 or fill.price >= 0.0999 * fill.reference
    session = traded(
        PaperTradeRequest(symbol="X", strategy="given", **terms),
        [Given(wants=tuple(targets.tolist()), direction=direction)],
        {"X": bars},
    )
    for other in (
        kernel.simulate(bars, targets, request).equity,
        execute(bars, targets, request).equity,
        by_hand(bars, targets.tolist(), request).equity,
        session.equity,
    ):
        np.testing.assert_allclose(other, equity, rtol=1e-9, atol=1e-6)


@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), per_unit=SLIPPAGES)
def test_a_portfolio_sells_above_nothing_too(seed: int, per_unit: float) -> None:
    """vectorbt keeps the books of it at run time: it takes no price of 0."""
    panel = walking_panel(30, 3, seed)
    request = PortfolioRequest(
        symbols=panel.symbols, rebalance="week", capital=1e6, slippage={"per_unit": per_unit}
    )
    result = portfolio.simulate(panel, request)
    hand = portfolio_by_hand(panel, request)
    np.testing.assert_allclose(result.equity, np.array(hand.equity, np.float64), rtol=1e-9)


def test_a_penny_stock_is_sold_for_a_tenth_of_its_price() -> None:
    """As it failed: half a cent of slippage, and a price below that."""
    price = np.array([0.02, 0.02, 0.004, 0.004, 0.004])
    bars = replace(walk(5, 1), open=price, high=price, low=price, close=price)
    request = BacktestRequest(symbol="X", commission=0, slippage={"per_unit": 0.005})
    (trade,) = execute(bars, np.array([1.0, 1.0, 0.0, 0.0, 0.0]), request).trades
    assert (trade.entry_price, trade.exit_price) == pytest.approx((0.025, 0.0004))
    assert trade.pnl == pytest.approx(10_000 * (0.0004 / 0.025 - 1))
    assert trade.exit_costs == pytest.approx(trade.size * 0.0036)
