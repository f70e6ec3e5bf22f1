"""What a portfolio may be asked: short forms, and every wrong field by its name."""

from __future__ import annotations

from typing import Any

import pytest

from gpt_trader.errors import Refused, UnknownName
from gpt_trader.portfolio.request import PortfolioRequest
from gpt_trader.validation import validated

PAIR = ("AAPL", "MSFT")


def test_defaults() -> None:
    request = PortfolioRequest(symbols=PAIR)
    assert (request.weights, request.rebalance, request.drift) == ("equal", "month", None)
    assert (request.exposure, request.max_weight, request.min_trade, request.capital) == (1, 1, 0, 10_000)


def test_the_method_is_taken_from_what_it_needs_and_symbols_from_weights() -> None:
    given = PortfolioRequest(weight={"msft": 0.4, "AAPL": 0.5})
    assert (given.weights, given.symbols) == ("given", PAIR)
    assert given.weight == {"AAPL": 0.5, "MSFT": 0.4}
    assert PortfolioRequest(symbols=PAIR, strategy="ma-crossover").strategy == "ma_crossover"
    assert PortfolioRequest(symbols=PAIR, strategy="momentum").weights == "strategy"
    assert PortfolioRequest(symbols=PAIR, volatility_window=20).weights == "inverse_volatility"
    assert PortfolioRequest(symbols=PAIR, weights="inverse-volatility").window == 60


def test_two_spellings_of_one_request_are_one() -> None:
    one = PortfolioRequest(symbols=("msft", "aapl"), weights="equal", report=False, on_gaps="warn")
    assert one.canonical() == PortfolioRequest(symbols=PAIR).canonical()


def test_each_symbols_backtest_has_the_same_terms() -> None:
    request = PortfolioRequest(
        symbols=PAIR,
        strategy="momentum",
        params={"hold": 3},
        capital=500,
        commission={"per_order": 1},
        start="2020-01-02",
    )
    alone = request.backtest("MSFT")
    assert (alone.symbol, alone.strategy, alone.params, alone.direction) == (
        "MSFT",
        "momentum",
        {"hold": 3},
        "long",
    )
    assert (alone.capital, alone.commission, alone.start) == (500, request.commission, request.start)


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no symbols": ({}, "symbols", "2 to 1,000 symbols, 0 given"),
    "one symbol": ({"symbols": ["AAPL"]}, "symbols", "1 given"),
    "a symbol twice": ({"symbols": ["AAPL", "MSFT", "aapl"]}, "symbols", "AAPL is given twice"),
    "too many symbols": ({"symbols": [f"S{n}" for n in range(1001)]}, "symbols", "1000"),
    "a path for a symbol": ({"symbols": ["AAPL", "../x"]}, "symbols.1", "a symbol is"),
    "an unknown method": ({"symbols": PAIR, "weights": "markowitz"}, "weights", "equal"),
    "no weights for given": ({"symbols": PAIR, "weights": "given"}, "request", "give weight"),
    "no strategy for strategy": ({"symbols": PAIR, "weights": "strategy"}, "request", "give strategy"),
    "weights that are not for equal": (
        {"weights": "equal", "weight": {"AAPL": 0.5, "MSFT": 0.5}},
        "request",
        "weight is for weights given",
    ),
    "params without a strategy": (
        {"symbols": PAIR, "params": {"fast": 5}},
        "request",
        "params is for weights strategy",
    ),
    "a weight below nothing": (
        {"weight": {"AAPL": -0.1, "MSFT": 0.5}},
        "weight.AAPL",
        "greater than or equal to 0",
    ),
    "a weight above one": ({"weight": {"AAPL": 1.1, "MSFT": 0}}, "weight.AAPL", "less than or equal to 1"),
    "a weight that is no number": ({"weight": {"AAPL": "nan", "MSFT": 0.5}}, "weight.AAPL", "finite"),
    "a weight twice": ({"weight": {"aapl": 0.1, "AAPL": 0.2, "MSFT": 0.5}}, "weight", "AAPL is given twice"),
    "a symbol without a weight": (
        {"symbols": [*PAIR, "IBM"], "weight": {"AAPL": 0.5, "MSFT": 0.5}},
        "weight",
        "IBM has no weight",
    ),
    "weights of nothing": ({"weight": {"AAPL": 0, "MSFT": 0}}, "request", "every weight is 0"),
    "more than all": (
        {"weight": {"AAPL": 0.7, "MSFT": 0.5}},
        "request",
        "add up to 1.2, more than exposure 1",
    ),
    "more than the exposure": (
        {"weight": {"AAPL": 0.5, "MSFT": 0.5}, "exposure": 0.8},
        "request",
        "more than exposure 0.8",
    ),
    "more than one may have": (
        {"weight": {"AAPL": 0.7, "MSFT": 0.3}, "max_weight": 0.5},
        "request",
        "AAPL has 0.7, more than max_weight 0.5",
    ),
    "leverage": ({"symbols": PAIR, "exposure": 1.5}, "exposure", "less than or equal to 1"),
    "no exposure": ({"symbols": PAIR, "exposure": 0}, "exposure", "greater than 0"),
    "an unknown period": ({"symbols": PAIR, "rebalance": "fortnight"}, "rebalance", "month"),
    "no drift": ({"symbols": PAIR, "drift": 0}, "drift", "greater than 0"),
    "a window of one": (
        {"symbols": PAIR, "volatility_window": 1},
        "volatility_window",
        "greater than or equal to 2",
    ),
    "dates in disorder": (
        {"symbols": PAIR, "start": "2020-02-01", "end": "2020-01-01"},
        "request",
        "after end",
    ),
    "an unknown field": ({"symbols": PAIR, "rebalnce": "month"}, "rebalnce", "not a known field"),
    "a single symbol's field": ({"symbols": PAIR, "stop_loss": 0.1}, "stop_loss", "not a known field"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_by_name(name: str) -> None:
    values, field, said = WRONG[name]
    with pytest.raises(Refused) as raised:
        validated(PortfolioRequest, values)
    problems = {problem.field: problem for problem in raised.value.problems}
    assert field in problems
    assert said in str(problems[field])


def test_a_weight_of_a_symbol_that_is_none_names_the_nearest() -> None:
    with pytest.raises(UnknownName) as raised:
        validated(PortfolioRequest, {"symbols": PAIR, "weight": {"AAPLE": 0.5, "MSFT": 0.5}})
    (problem,) = raised.value.problems
    assert (problem.field, problem.nearest, problem.allowed) == ("weight", "AAPL", "AAPL, MSFT")
