"""Contenders for tests of comparisons, from the sample backtests."""

from __future__ import annotations

from typing import Any

from gpt_trader.backtesting.result import BacktestResult
from gpt_trader.backtesting.summary import summary
from gpt_trader.comparison.contenders import Contender, contender
from tests.backtest_samples import aapl, sma_cross

PRICES = aapl()
REQUEST = {
    "capital": 10_000.0, "commission": 0.001, "slippage": 0.0005, "size": 1.0, "stop_loss": None, "take_profit": None,
}  # fmt: skip


def run_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def crossed(number: int = 1, *, fast: int = 20, slow: int = 60, **terms: Any) -> Contender:
    """Return a run of the moving averages on AAPL."""
    return contender_of(number, sma_cross(PRICES, fast=fast, slow=slow), **terms)


def contender_of(number: int, result: BacktestResult, **terms: Any) -> Contender:
    request = {**REQUEST, **terms}
    return contender(run_id(number), "backtest", request, summary(result), (result.time, result.equity))
