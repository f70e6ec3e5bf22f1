"""Commission and slippage as models: what they charge, what can be afforded, and how they are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from gpt_trader.backtesting.engine import simulate
from gpt_trader.errors import GptTraderError
from gpt_trader.requests import BacktestRequest
from gpt_trader.simulation import kernel
from gpt_trader.strategies.registry import build, strategy_type
from gpt_trader.validation import validated
from tests.bars_factory import bars_of

BROKER = "per_unit=0.005,minimum=1,maximum=0.01"  # Interactive Brokers' fixed pricing of US stocks


def terms(**fields: object) -> kernel.Terms:
    return kernel.terms_of(BacktestRequest.model_validate({"symbol": "TEST", **fields}))


@pytest.mark.parametrize(
    ("units", "price", "charged"),
    [(100, 25.0, 1.00), (1000, 25.0, 5.00), (1000, 0.25, 2.50), (-1000, 25.0, 5.00), (0, 25.0, 0.0)],
)
def test_the_broker_s_own_examples(units: float, price: float, charged: float) -> None:
    assert kernel.commission_of(units, price, terms(commission=BROKER).commission) == pytest.approx(charged)


@pytest.mark.parametrize("budget", [0.5, 3.0, 99.0, 250.0, 10_000.0, 1e7])
@pytest.mark.parametrize(
    "commission",
    [
        0.0,
        0.001,
        BROKER,
        "rate=0.001,per_order=2.5",
        "minimum=5",
        "rate=0.002,per_unit=0.01,per_order=1,minimum=4,maximum=0.2",
    ],
)
def test_what_is_affordable_costs_the_budget_and_no_less_is_left(commission: object, budget: float) -> None:
    of = terms(commission=commission).commission
    for price in (0.01, 1.0, 37.5, 4000.0):
        units = kernel.affordable(budget, price, of)
        outlay = units * price + kernel.commission_of(units, price, of)
        if units > 0.0:
            assert outlay == pytest.approx(budget, rel=1e-12)
        else:  # the least that one must pay is more than there is
            tiny = 1e-9 * budget / price
            assert tiny * price + kernel.commission_of(tiny, price, of) > budget


def test_a_model_of_a_rate_alone_is_the_number() -> None:
    numbers = BacktestRequest(symbol="AAPL", commission=0.002, slippage=0.001)
    models = BacktestRequest.model_validate(
        {"symbol": "AAPL", "commission": {"rate": 0.002}, "slippage": "rate=0.001"}
    )
    assert models == numbers
    assert models.canonical() == numbers.canonical()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (
            {"commission": "per_unt=0.005"},
            "commission.per_unt: is not a known field; allowed: rate, per_unit",
        ),
        ({"commission": "per_unit=free"}, "commission.per_unit: Input should be a valid number"),
        ({"commission": {"minimum": -1}}, "commission.minimum: Input should be greater than or equal to 0"),
        ({"commission": 0.5}, "commission: Input should be less than 0.5"),
        ({"slippage": {"per_order": 1}}, "slippage.per_order: is not a known field; allowed: rate, per_unit"),
        ({"slippage": float("nan")}, "slippage: Input should be a finite number"),
    ],
)
def test_what_is_no_cost_is_refused_by_name(given: dict[str, object], complaint: str) -> None:
    with pytest.raises(GptTraderError, match=complaint):
        validated(BacktestRequest, {"symbol": "AAPL", **given})


def test_every_order_of_a_backtest_is_charged_by_the_model() -> None:
    close = 100.0 + np.cumsum(np.resize([2.0, 2.0, 2.0, -3.0, -3.0], 200))
    request = BacktestRequest.model_validate(
        {"symbol": "TEST", "commission": BROKER, "slippage": "per_unit=0.02"}
    )
    strategy = build(strategy_type("ma_crossover"), {"fast": 2, "slow": 5})
    result = simulate(bars_of(close), 0, strategy, request)
    assert result.metrics.trades > 10
    for trade in result.trades:
        charged = min(max(0.005 * trade.size, 1.0), 0.01 * trade.size * trade.entry_price)
        assert trade.entry_costs == pytest.approx(charged + 0.02 * trade.size, rel=1e-9)
    total = sum(trade.entry_costs + trade.exit_costs for trade in result.trades)
    assert result.metrics.costs == pytest.approx(total)


def test_what_cannot_pay_its_commission_is_not_opened() -> None:
    close = np.linspace(10.0, 20.0, 50)
    request = BacktestRequest.model_validate({"symbol": "TEST", "commission": "minimum=60", "capital": 100})
    strategy = build(strategy_type("ma_crossover"), {"fast": 2, "slow": 5})
    result = simulate(bars_of(close), 0, strategy, request)
    assert result.trades == ()
    assert result.equity.tolist() == [100.0] * 50
