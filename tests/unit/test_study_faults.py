"""What a study must survive, and what it must not believe: faults that a hostile reader found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import model_validator

from gpt_trader.bars import Bars, Floats
from gpt_trader.errors import GptTraderError, Refused, UnknownName
from gpt_trader.optimization.result import choose
from gpt_trader.optimization.space import search_space, trial_numbers
from gpt_trader.optimization.study import FAILED, RUN, Screened, Study
from gpt_trader.optimization.walk_forward import walk
from gpt_trader.requests import OptimizeRequest, WalkForward
from gpt_trader.strategies.base import Strategy
from gpt_trader.strategies.registry import strategy_type
from tests.unit.test_study import screened, study, walking_bars


class Always(Strategy):
    """All in, from the first bar to the last; a parameter that changes nothing."""

    name = "always"
    search_space = {"level": (1, 2)}
    level: int = 1

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        return np.ones(len(bars))


class Fragile(Strategy):
    """Its validator divides by a parameter; it gives NaN once it sees more than some bars."""

    name = "fragile"
    search_space = {"level": (0, 1, 2)}
    level: int = 1
    limit: int = 10**9

    @model_validator(mode="after")
    def _divides(self) -> Fragile:
        assert 1 / self.level > 0
        return self

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        found = np.resize([1.0, 1.0, 0.0], len(bars))
        return found if len(bars) <= self.limit else np.full(len(bars), np.nan)


class InPlace(Strategy):
    """Averages an array of its own, changes it in place, and averages it again."""

    name = "in_place"
    search_space = {"fast": (5, 10)}
    fast: int = 5

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        from gpt_trader.indicators import sma

        prices = bars.close.copy()
        before = sma(prices, self.fast)
        prices *= np.linspace(1.0, 0.5, len(prices))
        return (sma(prices, self.fast) > 0.8 * before).astype(float)


def searching(strategy: type[Strategy], **values: Any) -> Study:
    request = OptimizeRequest.model_validate({"symbol": "TEST", "strategy": strategy.name, **values})
    return Study(walking_bars(), 60, strategy, search_space(strategy, request), request)


def test_rows_that_were_kept_wrong_are_found_among_the_chosen_and_the_drawn() -> None:
    found = study(top=1)
    kept = screened(found)
    best = choose(found, kept, snapshot_id="")[1][0]
    rows = np.where(kept.number[:, None] == best, kept.rows, kept.rows * 0.999)
    falsified = Screened.of_rows(kept.number, kept.state, rows, kept.reasons)
    with pytest.raises(GptTraderError, match="kept another outcome of"):
        choose(found, falsified, snapshot_id="")


def test_a_validator_that_raises_is_a_failed_trial() -> None:
    found = searching(Fragile)
    kept = screened(found)
    assert kept.state.tolist() == [FAILED, RUN, RUN]
    assert kept.reasons[0].startswith("ZeroDivisionError")


def test_a_winner_that_fails_on_its_test_holds_cash_and_says_why() -> None:
    found = searching(Fragile, params={"limit": 700}, walk_forward={"windows": 4}, commission=0)
    windows = list(walk(found, WalkForward(windows=4)))
    assert [window.failed is None for window in windows] == [True, True, False, True]
    assert "nan" in (windows[2].failed or "")
    assert windows[3].number is None  # by then every training has failed
    for window in windows[2:]:
        assert window.test_return == 0.0
        assert set(window.equity) == {windows[1].equity[-1]}


def test_every_seam_of_a_walk_pays_the_way_out_and_in() -> None:
    free = searching(Always, walk_forward={"windows": 8}, commission=0, slippage=0)
    dear = searching(Always, walk_forward={"windows": 8}, commission=0.01, slippage=0)
    without, paid = (list(walk(each, WalkForward(windows=8)))[-1].equity[-1] for each in (free, dear))
    assert paid / without == pytest.approx((1 / 1.01) ** 8 * 0.99**7, rel=1e-9)


def test_an_indicator_of_an_array_that_changes_is_not_remembered() -> None:
    found = searching(InPlace)
    kept = screened(found)
    alone = [found.screen([number]).rows[0] for number in kept.number.tolist()]
    np.testing.assert_array_equal(kept.rows, np.array(alone))
    assert choose(found, kept, snapshot_id="")[3] == 2


def test_a_space_beyond_64_bits_is_refused() -> None:
    wide = {name: {"low": 1, "high": 200_000} for name in ("a", "b", "c", "d")}

    class Wide(Strategy):
        name = "wide"
        a: int = 1
        b: int = 1
        c: int = 1
        d: int = 1

        def targets(self, bars: Bars, first: int = 0) -> Floats:
            return np.zeros(len(bars))

    with pytest.raises(Refused, match=r"space: has 1\.6e\+21 combinations"):
        searching(Wide, space=wide, method="random")


def test_numpy_s_values_are_plain_and_a_name_that_is_no_parameter_is_refused() -> None:
    class Declared(Always):
        name = "declared"
        search_space = {"level": np.arange(2, 5)}

    values = searching(Declared).space.values["level"]
    assert values == (2, 3, 4)
    assert {type(value) for value in values} == {int}

    class Misspelled(Always):
        name = "misspelled"
        search_space = {"levle": (1, 2)}

    with pytest.raises(UnknownName, match=r"search_space\.levle.*level"):
        searching(Misspelled)


def test_values_are_in_order_and_each_is_there_once() -> None:
    found = study(space={"fast": [15, "5", 10, 5.0, 15], "slow": [40, 30]})
    assert found.space.values == {"fast": (5, 10, 15), "slow": (30, 40)}


def test_nearly_all_of_a_space_can_be_drawn() -> None:
    request = OptimizeRequest(
        symbol="TEST",
        strategy="ma_crossover",
        method="random",
        trials=250_000,
        space={"fast": {"low": 1, "high": 501}, "slow": {"low": 2, "high": 501}},
    )
    space = search_space(strategy_type("ma_crossover"), request)
    drawn = trial_numbers(space, request)
    assert len(set(drawn)) == 250_000
