"""A strategy is described in one shape, whoever asks, and whatever it lacks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

import pytest
from pydantic import Field, model_validator

from gpt_trader.strategies.base import Strategy
from gpt_trader.strategies.description import describe, summarize
from gpt_trader.strategies.registry import BUILT_IN, strategy_type

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats


class Nameless(Strategy):
    """Has no name of its own, and a parameter without a default.

    The second paragraph.
    """

    threshold: float = Field(gt=0)
    window: int = 5

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        raise NotImplementedError


class AtOdds(Strategy):
    name: ClassVar[str] = "at_odds"
    fast: int = 30
    slow: int = 10

    @model_validator(mode="after")
    def _ordered(self) -> AtOdds:
        if self.fast >= self.slow:
            raise ValueError("fast must be below slow")
        return self

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        raise NotImplementedError


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_is_described_with_what_it_takes(name: str) -> None:
    strategy = strategy_type(name)
    found = describe(name, strategy)

    assert found | summarize(name, strategy) == found
    assert (found["name"], found["origin"]) == (name, "built-in")
    assert set(found["parameters"]["properties"]) == set(found["defaults"]) == set(strategy().params())
    assert found["warmup"] == strategy().warmup
    assert json.loads(json.dumps(found)) == found


def test_a_parameter_without_a_default_leaves_the_warm_up_open() -> None:
    found = describe("plugged", Nameless)

    assert (found["name"], found["origin"]) == ("plugged", "plugin")
    assert found["defaults"] == {"window": 5}
    assert found["warmup"] is None
    assert found["parameters"]["required"] == ["threshold"]
    assert found["description"].endswith("\n\nThe second paragraph.")


def test_defaults_that_a_rule_refuses_leave_the_warm_up_open() -> None:
    found = describe("at-odds", AtOdds, "user")

    assert (found["name"], found["origin"], found["warmup"]) == ("at_odds", "user", None)
    assert found["defaults"] == {"fast": 30, "slow": 10}
