"""The portfolio simulation against its referees: vectorbt's own rebalancing, and a hand simulation in decimals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt_trader.backtesting.execution import load_vectorbt
from gpt_trader.bars import Floats
from gpt_trader.portfolio.engine import simulate
from gpt_trader.portfolio.panel import Panel
from gpt_trader.portfolio.request import PortfolioRequest
from tests.examples import examples
from tests.portfolio_samples import panels, walking_panel, wishes
from tests.reference_portfolio import by_hand

COMMISSIONS = (
    {"per_unit": 0.005, "minimum": 1.0, "maximum": 0.01},
    {"rate": 0.001, "per_order": 2.5},
    {"rate": 0.0005, "per_unit": 0.01, "per_order": 0.1, "minimum": 5.03},
)
PERIODS = ("none", "day", "week", "month", "quarter", "year")


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    panel = walking_panel(5, 2)  # seconds: not to be charged to an example
    simulate(panel, PortfolioRequest(symbols=panel.symbols))
    load_vectorbt()


@st.composite
def requests(draw: st.DrawFn, panel: Panel) -> PortfolioRequest:
    method = draw(st.sampled_from(["equal", "equal", "inverse_volatility", "given", "strategy"]))
    exposure = draw(st.sampled_from([1.0, 1.0, 0.6]))
    own: dict[str, object] = {}
    if method == "given":
        parts = draw(st.lists(st.integers(0, 5), min_size=len(panel.symbols), max_size=len(panel.symbols)))
        parts[0] += 1
        total = draw(st.sampled_from([1.0, 0.7])) * exposure
        own["weight"] = {s: total * p / sum(parts) for s, p in zip(panel.symbols, parts, strict=True)}
    elif method == "inverse_volatility":
        own["volatility_window"] = draw(st.sampled_from([2, 3, 6]))
    elif method == "strategy":
        own["strategy"] = "momentum"
    return PortfolioRequest(
        symbols=panel.symbols,
        weights=method,
        rebalance=draw(st.sampled_from(PERIODS)),
        drift=draw(st.none() | st.sampled_from([0.013, 0.11])),
        exposure=exposure,
        max_weight=1.0 if method == "given" else draw(st.sampled_from([1.0, 0.4])),
        min_trade=draw(st.sampled_from([0.0, 0.0, 0.0213])),
        capital=draw(st.sampled_from([500.0, 10_000.0, 1e9])),
        commission=draw(st.sampled_from([0.0, 0.001, 0.02, *COMMISSIONS])),
        slippage=draw(st.sampled_from([0.0, 0.0005, 0.01, {"rate": 0.001, "per_unit": 0.005}])),
        **own,
    )


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(panel=panels(), choices=st.data())
def test_equity_cash_units_and_fills_are_those_of_the_hand_simulation(
    panel: Panel, choices: st.DataObject
) -> None:
    """And at run time vectorbt has kept the books of every one of these: a difference would raise."""
    request = choices.draw(requests(panel))
    wanted = wishes(panel, choices.draw(st.integers(0, 999))) if request.weights == "strategy" else None
    result = simulate(panel, request, wanted=wanted)
    hand = by_hand(panel, request, wanted)

    equity = np.array(hand.equity, np.float64)
    np.testing.assert_allclose(result.equity, equity, rtol=1e-11)
    np.testing.assert_allclose(
        result.cash, np.array(hand.cash, np.float64), rtol=1e-9, atol=1e-11 * equity.max()
    )
    assert (result.cash >= 0).all()
    fills = result.fills
    assert [(int(b), panel.symbols[s]) for b, s in zip(fills.bar, fills.symbol, strict=True)] == [
        f[:2] for f in hand.fills
    ]
    for place, (bar, _, units, price, commission) in enumerate(hand.fills):
        worth = 1e-10 * equity[bar]
        assert fills.units[place] * fills.price[place] == pytest.approx(
            float(units * price), rel=1e-9, abs=worth
        )
        assert fills.price[place] == pytest.approx(float(price), rel=1e-12)
        assert fills.commission[place] == pytest.approx(float(commission), rel=1e-9, abs=worth)
    assert result.rebalances == hand.rebalances


def by_target_percent(panel: Panel, weights: Floats, at: Floats, capital: float) -> Floats:
    """Return the equity by vectorbt's own sizing: percentages of the group's value, sells first."""
    import pandas as pd
    import vectorbt as vbt

    size = np.full(panel.close.shape, np.nan)
    size[at] = weights
    portfolio = vbt.Portfolio.from_orders(
        pd.DataFrame(panel.close),
        size=size,
        price=panel.open,
        size_type="targetpercent",
        group_by=True,
        cash_sharing=True,
        call_seq="auto",
        init_cash=capital,
        freq="1D",
    )
    return np.asarray(portfolio.value())


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(panel=panels(whole=True), choices=st.data())
def test_without_costs_it_is_vectorbts_own_rebalancing(panel: Panel, choices: st.DataObject) -> None:
    """From orders of target percentages; with costs vectorbt sizes them on the equity before the costs, we after."""
    parts = choices.draw(
        st.lists(st.integers(1, 9), min_size=len(panel.symbols), max_size=len(panel.symbols)), label="parts"
    )
    weights = np.array(parts) / sum(parts) * choices.draw(st.sampled_from([1.0, 0.8]))
    request = PortfolioRequest(
        symbols=panel.symbols,
        weight=dict(zip(panel.symbols, weights.tolist(), strict=True)),
        rebalance=choices.draw(st.sampled_from(["none", "day", "week", "month"])),
        commission=0,
        slippage=0,
    )
    result = simulate(panel, request)
    traded = panel.traded
    theirs = by_target_percent(traded, weights, result.rebalanced, request.capital)
    np.testing.assert_allclose(result.equity, theirs, rtol=1e-9)
