"""The verdict on an optimization: what is accepted, rejected and left undecided, and that it never says NaN."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from gpt_trader.backtesting import engine
from gpt_trader.bars import Bars, Floats
from gpt_trader.optimization import verdict
from gpt_trader.optimization.ranking import objectives, ranked
from gpt_trader.optimization.space import search_space, trial_numbers
from gpt_trader.optimization.study import Screened, Study
from gpt_trader.requests import OptimizeRequest
from gpt_trader.strategies.base import Strategy
from tests.bars_factory import STOCK

BLOCK = 20
NUMBERS = {
    "trials",
    "effective_trials",
    "sharpe",
    "expected_by_luck",
    "held_sharpe",
    "probabilistic_sharpe",
    "deflated_sharpe",
    "min_track_record",
    "bars",
    "pbo",
    "loss_probability",
    "neighborhood",
}


def tides(n: int = 1600, drift: float = 0.004, seed: int = 1) -> Bars:
    """Bars that rise for BLOCK bars and fall for as many: an edge for whoever is in at the right time."""
    random = np.random.default_rng(seed)
    rising = np.arange(n) // BLOCK % 2 == 0
    close = 100 * np.exp(np.cumsum(np.where(rising, drift, -drift) + random.normal(0, 0.01, n)))
    time = np.datetime64("2010-01-04", "us") + np.arange(n) * np.timedelta64(1, "D")
    open_ = np.concatenate([close[:1], close[:-1]])
    high, low = np.maximum(open_, close) * 1.001, np.minimum(open_, close) * 0.999
    return Bars(STOCK, "1d", time, open_, high, low, close, np.full(n, 1e6), logical_hash=f"tides-{seed}")


class Tidal(Strategy):
    """In for BLOCK bars, out for as many, `shift` bars late; raises where it is told to."""

    name = "tidal"
    shift: int = 0
    raises: bool = False
    never: bool = False

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        if self.raises:
            raise ZeroDivisionError("no luck")
        wanted = ((np.arange(len(bars)) + 1 - self.shift) // BLOCK % 2 == 0).astype(float)
        wanted[:first] = 0
        return wanted * (not self.never)


class Dice(Strategy):
    """Long or short by chance."""

    name = "dice"
    draw: int = 0

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        wanted = np.random.default_rng(self.draw).choice([-1.0, 1.0], len(bars)).repeat(5)[: len(bars)]
        wanted[:first] = 0
        return wanted


class Spike(Strategy):
    """Knows the tides at one value only; elsewhere it throws dice."""

    name = "spike"
    value: int = 0

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        return (Tidal() if self.value == 5 else Dice(draw=self.value)).targets(bars, first)


def study(strategy: type[Strategy] = Tidal, bars: Bars | None = None, **values: Any) -> Study:
    terms = {"commission": 0, "slippage": 0, **values}
    request = OptimizeRequest(symbol="TEST", strategy="momentum", **terms)
    return Study(bars or tides(), 0, strategy, search_space(strategy, request), request)


def screened(found: Study) -> Screened:
    return found.screen(trial_numbers(found.space, found.request))


def judge(found: Study) -> dict[str, Any]:
    trials = screened(found)
    objective = objectives(trials, found.bars[found.first :], found.request)
    best = int(trials.number[ranked(trials, objective, found.request)[0]])
    terms = found.request.backtest(dict(found.space.at(best)))
    equity = engine.simulate(found.bars, found.first, found.candidate(best), terms).equity
    said = verdict.judged(found, trials, objective, best, equity)
    assert said == json.loads(json.dumps(said, allow_nan=False)), "JSON-ready, without NaN"
    assert said.keys() == NUMBERS | {"cross_validated_by", "verdict", "reasons"}
    assert said["reasons"]
    for reason in said["reasons"]:
        assert re.search(r"\bnan\b|\bNone\b|\binf\b", reason) is None
    return said


def test_a_planted_edge_is_accepted_with_its_numbers():
    said = judge(study(space={"shift": {"low": -4, "high": 4}}))
    assert said["verdict"] == "accept"
    assert said["trials"] == 9
    assert 1 <= said["effective_trials"] <= 9
    assert said["deflated_sharpe"] > 0.95
    assert said["probabilistic_sharpe"] >= said["deflated_sharpe"]
    assert said["loss_probability"] == 0
    assert said["neighborhood"] > 0.5
    assert said["min_track_record"] < said["bars"] == 1600
    assert "9 trials counted" in said["reasons"][0]


def test_the_luckiest_of_many_dice_is_rejected_and_told_why():
    said = judge(study(Dice, tides(drift=0.0), direction="both", space={"draw": {"low": 0, "high": 199}}))
    assert said["verdict"] == "reject"
    assert said["deflated_sharpe"] < 0.95 < said["probabilistic_sharpe"], "alone it would have looked good"
    assert said["min_track_record"] is None or said["min_track_record"] > said["bars"]
    assert "best of 200 trials" in said["reasons"][0]
    assert f"{said['expected_by_luck']:.2f}" in said["reasons"][0]


def test_a_lone_peak_is_rejected_for_its_neighbors():
    said = judge(study(Spike, space={"value": {"low": 0, "high": 10}}))
    assert said["deflated_sharpe"] > 0.95
    assert said["neighborhood"] < 0.5
    assert said["verdict"] == "reject"
    (reason,) = said["reasons"]
    assert "a peak without a hill around it" in reason


def test_what_only_rises_with_the_market_is_rejected():
    n = 1600
    close = 100 * np.exp(np.cumsum(np.random.default_rng(4).normal(0.002, 0.01, n)))
    rising = Bars(STOCK, "1d", tides(n).time, close, close, close, close, close, logical_hash="rising")
    said = judge(study(bars=rising, space={"shift": [0, 1, 2]}))
    assert said["held_sharpe"] > said["sharpe"]
    assert said["verdict"] == "reject"
    assert any("what it made is the market's" in reason for reason in said["reasons"])


def test_failed_trials_count_and_skipped_ones_do_not():
    values = {"shift": [0, 1, 2, 3]}
    few = judge(study(space=values))
    many = judge(study(space={**values, "raises": [False, True]}))
    assert (few["trials"], many["trials"]) == (4, 8)
    assert many["expected_by_luck"] > few["expected_by_luck"]
    assert many["deflated_sharpe"] < few["deflated_sharpe"]

    class Choosy(Tidal):
        """Takes no shift above 3."""

        def model_post_init(self, context: Any, /) -> None:
            if self.shift > 3:
                raise ValueError("too late")

    skipped = judge(study(Choosy, space={"shift": list(range(8))}))
    assert {**skipped, "reasons": 0} == {**few, "reasons": 0}


@pytest.mark.parametrize("drift", [0.004, 0.0])
def test_one_trial_is_never_accepted(drift: float):
    said = judge(study(bars=tides(drift=drift), space={"shift": [0]}))
    assert said["verdict"] == ("undecided" if drift else "reject")
    assert (said["trials"], said["expected_by_luck"]) == (1, 0.0)
    assert said["pbo"] is said["loss_probability"] is said["neighborhood"] is None
    assert said["deflated_sharpe"] == said["probabilistic_sharpe"]


def test_a_flat_best_is_undecided():
    found = study(space={"never": [True], "shift": [0, 1, 2]}, objective="total_return", min_trades=0)
    said = judge(found)
    assert said["verdict"] == "undecided"
    assert "there is nothing to judge" in said["reasons"][0]
    assert said["sharpe"] is said["deflated_sharpe"] is said["probabilistic_sharpe"] is None
    assert said["min_track_record"] is said["neighborhood"] is None


@pytest.mark.parametrize("bars", [2, 3, 5, 20, 31])
def test_too_few_bars_are_not_cross_validated(bars: int):
    rising = tides(drift=0.05)[:bars]
    said = judge(study(bars=rising, space={"shift": [0, 1]}, objective="total_return", min_trades=0))
    assert said["loss_probability"] is said["pbo"] is None
    assert said["verdict"] != "accept"
    assert said["bars"] == bars


def test_the_ruined_are_judged_too():
    n = 400
    close = np.full(n, 100.0)
    close[60:] = 900.0
    jump = Bars(STOCK, "1d", tides(n).time, close, close, close, close, close, logical_hash="jump")
    found = study(bars=jump, space={"shift": [0, 1, 2]}, direction="both", objective="total_return")
    short = Study(jump, 0, Mirrored, found.space, found.request)
    said = judge(short)
    assert said["verdict"] == "reject"
    assert said["sharpe"] < 0
    assert said["min_track_record"] is None


class Mirrored(Tidal):
    """Short, all the time."""

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        wanted = np.full(len(bars), -1.0)
        wanted[: max(first, self.shift)] = 0
        return wanted


def test_of_too_many_trials_some_are_cross_validated_drawn_by_the_seed(monkeypatch: pytest.MonkeyPatch):
    values: dict[str, Any] = {"space": {"draw": {"low": 0, "high": 59}}}
    bars = tides(n=640, drift=0.0)
    every = judge(study(Dice, bars, **values))
    monkeypatch.setattr(verdict, "_CROSS_VALIDATED", 12)  # the real one takes seconds
    first, again, other = (judge(study(Dice, bars, seed=seed, **values)) for seed in (1, 1, 2))
    assert first == again
    drawn = ("pbo", "loss_probability")
    assert [first[name] for name in drawn] != [other[name] for name in drawn]
    assert [first[name] for name in drawn] != [every[name] for name in drawn]
    for name in ("trials", "expected_by_luck", "deflated_sharpe", "neighborhood"):
        assert first[name] == other[name] == every[name], "all of them count"


def test_the_objective_need_not_be_a_gain():
    said = judge(study(space={"shift": [0, 1, 2]}, objective="max_drawdown"))
    assert said["neighborhood"] is None, "a share of a loss says nothing"
    assert said["verdict"] in ("accept", "reject")
