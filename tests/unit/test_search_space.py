"""Search spaces: which combinations there are, how they are numbered, what is refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from gpt_trader.errors import Refused, UnknownName
from gpt_trader.optimization.space import LARGEST_GRID, SearchSpace, search_space, trial_numbers
from gpt_trader.requests import OptimizeRequest
from gpt_trader.strategies.registry import strategy_type

CROSSOVER = strategy_type("ma_crossover")


def request(**values: Any) -> OptimizeRequest:
    return OptimizeRequest(symbol="TEST", strategy="ma_crossover", **values)


def space(**values: Any) -> SearchSpace:
    return search_space(CROSSOVER, request(**values))


def test_a_strategys_own_space_is_searched_unless_values_are_given():
    assert dict(space().values) == {"fast": (5, 10, 15, 20), "slow": (20, 30, 40, 50)}
    assert dict(space(space={"fast": [3, 4]}).values) == {"fast": (3, 4), "slow": (20, 30, 40, 50)}
    fixed = space(params={"slow": 60}, space={"fast": {"low": 5, "high": 20, "step": 5}})
    assert (dict(fixed.values), dict(fixed.fixed)) == ({"fast": (5, 10, 15, 20)}, {"slow": 60})


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"low": 1, "high": 4}, (1, 2, 3, 4)),
        ({"low": 5, "high": 19, "step": 5}, (5, 10, 15)),
        ({"low": 7, "high": 7}, (7,)),
        ([3, 3, 1], (1, 3)),
    ],
)
def test_values_of_a_parameter(given: Any, values: tuple[int, ...]):
    assert space(space={"fast": given}).values["fast"] == values


def test_a_range_of_fractions_reaches_its_end():
    values = search_space(
        strategy_type("momentum"),
        OptimizeRequest(symbol="T", space={"threshold": {"low": 0.1, "high": 0.3, "step": 0.1}}),
    ).values["threshold"]
    assert values == pytest.approx((0.1, 0.2, 0.3))


def test_combinations_are_numbered_as_an_odometer_counts():
    found = SearchSpace({"a": (1, 2, 3), "b": ("x", "y")}, {"c": 9})
    assert found.size == 6
    expected = [{"a": a, "b": b, "c": 9} for a, b in product((1, 2, 3), ("x", "y"))]
    assert [found.at(number) for number in range(6)] == expected
    assert [found.number(found.places(number)) for number in range(6)] == list(range(6))


def test_a_grid_is_all_and_draws_are_some_without_repetition_by_the_seed():
    whole = space()
    assert list(trial_numbers(whole, request())) == list(range(16))
    drawn = trial_numbers(whole, request(method="random", trials=10, seed=3))
    assert len(set(drawn)) == 10
    assert drawn == trial_numbers(whole, request(method="random", trials=10, seed=3))
    assert drawn != trial_numbers(whole, request(method="random", trials=10, seed=4))
    assert sorted(trial_numbers(whole, request(method="random", trials=100))) == list(range(16))


def test_few_are_drawn_from_more_than_a_grid_may_have():
    wide = {"fast": {"low": 1, "high": 3000}, "slow": {"low": 3001, "high": 6000}}
    drawn = trial_numbers(space(space=wide, method="random"), request(space=wide, method="random", trials=50))
    assert len(set(drawn)) == 50
    assert max(drawn) > LARGEST_GRID
    with pytest.raises(Refused, match="9,000,000 combinations"):
        space(space=wide)


def test_what_cannot_be_searched_is_refused_by_name():
    with pytest.raises(UnknownName, match="did you mean 'fast'"):
        space(space={"fats": [1]})
    with pytest.raises(UnknownName, match=r"params\.slo"):
        space(params={"slo": 1})
    with pytest.raises(Refused, match=r"space.fast: has no values"):
        space(space={"fast": []})
    with pytest.raises(Refused, match="nothing to search"):
        space(params={"fast": 5, "slow": 20})
