"""Searches: TPE finds what was planted, the same each time, also after a kill; patience stops, and says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from gpt_trader.bars import Floats
from gpt_trader.optimization.outcomes import frozen, outcomes
from gpt_trader.optimization.ranking import objectives, ranked
from gpt_trader.optimization.screening import COLUMNS, WIDTH
from gpt_trader.optimization.search import Search, budget, searched
from gpt_trader.optimization.space import search_space
from gpt_trader.optimization.study import FAILED, RUN, SKIPPED, Screened, Study
from gpt_trader.optimization.tpe import ROUND
from gpt_trader.optimization.walk_forward import trained, walk
from gpt_trader.requests import MOST_TPE_TRIALS, OptimizeRequest
from gpt_trader.strategies.base import Strategy
from tests.unit.test_study import walking_bars

SPACE = {"a": {"low": 0, "high": 59}, "b": {"low": 0, "high": 79}}
Surface = Callable[[dict[str, Any]], float]


class Anything(Strategy):
    """Takes numbers and words; only its parameters matter here."""

    name = "anything"
    a: float = 0
    b: float = 0
    mode: str = "x"

    def targets(self, bars: Any, first: int = 0) -> Floats:
        return (np.arange(len(bars)) % (int(self.a) + 2) < 2).astype(float)


def study(**values: Any) -> Study:
    values = {"space": SPACE, "objective": "total_return", "capital": 1.0, **values}
    request = OptimizeRequest(symbol="T", strategy="anything", **values)
    return Study(walking_bars(300), 0, Anything, search_space(Anything, request), request)


def hill(chosen: dict[str, Any]) -> float:
    """A hill at (41, 17), with ripples that mislead."""
    a, b = chosen["a"] - 41, chosen["b"] - 17
    return 3 - (a / 30) ** 2 - (b / 40) ** 2 + 0.05 * float(np.cos(a) * np.cos(b))


def made(found: Study, surface: Surface, numbers: list[int]) -> Screened:
    """Return trials with the objectives of a surface: −inf is skipped, NaN undefined, below −100 has failed."""
    rows = np.zeros((len(numbers), WIDTH))
    value = np.array([surface(found.space.at(number)) for number in numbers])
    state = np.where(value == -np.inf, SKIPPED, np.where(value < -100, FAILED, RUN)).astype(np.int8)
    rows[:, COLUMNS.index("final")] = np.where(state == RUN, value + 1, np.nan)
    rows[:, COLUMNS.index("entries")] = [found.space.at(number).get("b", 5) for number in numbers]
    rows[:, COLUMNS.index("depth")] = -np.array([found.space.at(number)["a"] for number in numbers]) / 100
    return Screened.of_rows(np.array(numbers), state, rows, {})


def search(found: Study, surface: Surface = hill, log: list[list[int]] | None = None) -> Search:
    def screen(numbers: list[int]) -> Screened:
        if log is not None:
            log.append(numbers)
        return made(found, surface, numbers)

    return searched(found, screen)


def best(result: Search) -> float:
    return float(np.nanmax(result.screened.rows[:, 0])) - 1


def test_tpe_finds_a_planted_optimum_in_a_fraction_of_the_grid() -> None:
    grid = study(min_trades=0)
    top = best(search(grid))
    assert top == hill({"a": 41, "b": 17})
    for seed in range(3):
        found = search(study(method="tpe", trials=240, seed=seed, min_trades=0))
        assert len(found.screened.number) == 240 == grid.space.size / 20
        drawn = best(search(study(method="random", trials=240, seed=seed, min_trades=0)))
        assert top - best(found) < 0.01
        assert top - best(found) <= top - drawn


def test_the_same_request_searches_the_same_and_another_seed_does_not() -> None:
    one, two, other = (search(study(method="tpe", seed=seed)).screened for seed in (1, 1, 2))
    assert one.number.tolist() == two.number.tolist()
    assert one.rows.tobytes() == two.rows.tobytes()
    assert one.number.tolist() != other.number.tolist()


def test_no_combination_is_tried_twice() -> None:
    log: list[list[int]] = []
    found = search(study(method="tpe", trials=130), log=log).screened
    assert len(set(found.number.tolist())) == 130
    assert [len(numbers) for numbers in log] == [ROUND] * 6 + [10]


@pytest.mark.parametrize("trials", [None, 15, 200])
def test_a_small_space_is_tried_whole(trials: int | None) -> None:
    found = study(method="tpe", space={"a": [1, 2, 3], "b": [1, 2, 3, 4, 5]}, trials=trials)
    assert sorted(search(found).screened.number.tolist()) == list(range(15))


def test_killed_after_any_round_it_goes_on_to_the_same_end_and_redoes_nothing() -> None:
    found, log = study(method="tpe", trials=100, min_trades=30), list[list[int]]()
    whole = search(found, log=log).screened
    kept: dict[tuple[int, ...], Screened] = {}
    redone: list[list[int]] = []

    class Killed(Exception):
        pass

    def until(stop: int) -> Callable[[list[int]], Screened]:
        def screen(numbers: list[int]) -> Screened:
            if tuple(numbers) not in kept:
                if len(kept) == stop:
                    raise Killed
                redone.append(numbers)
                kept[tuple(numbers)] = made(found, hill, numbers)
            return kept[tuple(numbers)]

        return screen

    for stop in (0, 1, 1, 3, 4):
        with pytest.raises(Killed):
            searched(found, until(stop))
    resumed = searched(found, until(100)).screened
    assert redone == log
    assert resumed.number.tobytes() == whole.number.tobytes()
    assert resumed.rows.tobytes() == whole.rows.tobytes()


def half(chosen: dict[str, Any]) -> float:
    """The hill, on half of the space; the other half the strategy refuses."""
    return hill(chosen) if chosen["a"] > chosen["b"] else -np.inf


def test_it_learns_what_the_strategy_refuses() -> None:
    def refused(method: str) -> float:
        screened = search(study(method=method, trials=200, min_trades=0), half).screened
        return float(np.mean(screened.state[100:] == SKIPPED))

    assert refused("tpe") < refused("random") / 2


@pytest.mark.parametrize("limits", [{"min_trades": 45}, {"max_drawdown": 0.2}], ids=str)
def test_of_what_keeps_the_constraints_it_finds_the_best(limits: dict[str, Any]) -> None:
    """The top of the hill breaks them: the best is at the edge of what is allowed."""

    def chosen(method: str) -> float:
        found = study(method=method, **({} if method == "grid" else {"trials": 200}), **limits)
        screened = search(found, hill).screened
        objective = objectives(screened, found.traded, found.request)
        return float(objective[ranked(screened, objective, found.request)[0]])

    assert chosen("grid") - chosen("tpe") < 0.03
    assert chosen("tpe") > chosen("random")


def test_words_switches_and_unsorted_values_are_searched_as_what_they_are() -> None:
    def surface(chosen: dict[str, Any]) -> float:
        return -abs(chosen["a"] - 7.5) / 10 + {"x": 0.0, "y": 1.0, "z": 0.5}[chosen["mode"]]

    values = [9, 0.5, 7.5, 3, *range(20, 60)]
    found = study(method="tpe", trials=60, min_trades=0, space={"a": values, "mode": ["x", "y", "z"]})
    tried = search(found, surface).screened
    assert found.space.at(int(tried.number[np.argmax(tried.rows[:, 0])])) == {"a": 7.5, "mode": "y"}


def test_what_became_of_trials_in_optunas_terms() -> None:
    def surface(chosen: dict[str, Any]) -> float:
        return {0: -np.inf, 1: -200.0, 2: np.nan}.get(chosen["a"], 0.5)

    found = study(space={"a": [0, 1, 2, 3, 60], "b": [5, 20]}, min_trades=10, max_drawdown=0.5)
    screened = made(found, surface, list(range(10)))
    screened = replace(screened, reasons={0: "refused", 2: "ValueError: no"})
    told = list(outcomes(found, screened))
    assert [each.state for each in told] == ["PRUNED"] * 6 + ["COMPLETE"] * 4
    assert all(each.violations == {"objective": 3.0} and each.value is None for each in told[:6])
    assert told[6].violations == pytest.approx({"min_trades": 0.5, "max_drawdown": -0.47})
    assert told[9].violations == pytest.approx({"min_trades": -1.0, "max_drawdown": 0.1})
    trials = frozen(found, screened)
    assert trials[9].params == {"a": 60, "b": 20}
    assert (trials[9].value, trials[9].user_attrs) == (pytest.approx(0.5), {"number": 9, "state": "run"})
    assert trials[0].user_attrs == {"number": 0, "state": "skipped", "reason": "refused"}
    assert trials[2].user_attrs["state"] == "failed"


def test_a_search_without_patience_spends_its_budget() -> None:
    for method in ("grid", "random", "tpe"):
        found = study(method=method, space={"a": [1, 2, 3], "b": [1, 2]})
        assert search(found).stopped is None
        assert budget(found) == 6


@pytest.mark.parametrize("method", ["random", "tpe"])
@pytest.mark.parametrize("patience", [1, 25, 60])
def test_patience_stops_a_search_that_no_longer_gets_better(method: str, patience: int) -> None:
    log: list[list[int]] = []
    found = study(method=method, trials=3000, patience=patience, min_trades=0)
    result = search(found, log=log)
    value = result.screened.rows[:, 0]
    done, since = len(value), len(value) - 1 - int(np.argmax(value))
    assert result.stopped == {"patience": patience, "trials": done, "of": 3000, "best_trial": done - since}
    assert since >= patience
    assert done < 600
    assert sum(map(len, log)) == done, "every trial that was made is counted"
    before = value[: done - len(log[-1])]
    waited = len(before) - 1 - int(np.argmax(before)) if len(before) else 0
    assert waited < patience, "it did not go on for longer than it had to"
    budgeted = {"trials": done} if method == "tpe" else {"trials": 3000}
    whole = search(study(method=method, min_trades=0, **budgeted)).screened
    assert whole.number[:done].tolist() == result.screened.number.tolist(), (
        "it stopped, and changed nothing else"
    )


def test_patience_waits_for_a_first_that_may_be_chosen() -> None:
    found = study(method="random", trials=1000, patience=50, min_trades=100)
    assert search(found).stopped == {"patience": 50, "trials": 50, "of": 1000, "best_trial": None}


def test_a_search_that_ends_with_its_budget_was_not_stopped() -> None:
    found = study(method="random", trials=60, patience=59)
    flat = search(found, lambda chosen: 1.0)
    assert (flat.stopped, len(flat.screened.number)) == (None, 60)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trials": 5}, "trials is for method random or tpe"),
        ({"patience": 5}, "patience is for method random or tpe"),
        ({"method": "tpe", "trials": MOST_TPE_TRIALS + 1}, "trials 5,001 are more than tpe takes"),
        ({"method": "tpe", "patience": 0}, "greater than or equal to 1"),
        ({"method": "bayes"}, "'grid', 'random' or 'tpe'"),
    ],
)
def test_what_does_not_fit_the_method_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        OptimizeRequest(symbol="T", **values)


def test_each_training_of_a_walk_searches_its_own_past() -> None:
    """Bars to come change nothing of what was chosen before them: no training knows what the whole range taught."""
    found = study(method="tpe", trials=40, space={"a": {"low": 0, "high": 60}}, walk_forward={"windows": 3})
    how = found.request.walk_forward
    assert how is not None
    windows = list(walk(found, how))
    assert [window.trials for window in windows] == [40, 40, 40]
    end = windows[1].stretch.train_end
    close = found.bars.close.copy()
    close[end:] = close[end:][::-1]
    other = replace(found, bars=replace(found.bars, close=close))
    changed = list(walk(other, how))
    for before, after in zip(windows[:2], changed[:2], strict=True):
        assert (before.number, before.train_objective) == (after.number, after.train_objective)
    stretch = windows[1].stretch
    past = replace(found, bars=found.bars[: stretch.train_end], first=stretch.train)
    assert trained(past).number == windows[1].number
