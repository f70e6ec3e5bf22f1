"""Overfitting statistics: the papers' worked examples, cross-validation against the slow way, properties, bad input."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_trader.errors import Refused
from gpt_trader.optimization import luck, neighborhood
from gpt_trader.optimization.cross_validation import CrossValidation, Score, block_sums, cross_validated
from tests.examples import examples

Array = np.ndarray


def crossed(change: Array, blocks: int = 8) -> CrossValidation:
    found = cross_validated(*block_sums(change, blocks))
    assert found is not None
    return found


def noise(seed: int, bars: int, trials: int) -> Array:
    return np.random.default_rng(seed).normal(0.0002, 0.01, (bars, trials))


# Bailey & López de Prado, The Sharpe Ratio Efficient Frontier, 2012.


@pytest.mark.parametrize(
    ("months", "skewness", "kurtosis", "probability"),
    [(24, 0.0, 3.0, 0.982), (24, -2.448, 10.164, 0.913), (36, -2.448, 10.164, 0.953)],
)
def test_the_hedge_fund_of_the_paper(months: int, skewness: float, kurtosis: float, probability: float):
    """0.458 a month: convincing if returns were normal, not with its skewness, and again with a third year."""
    fund = luck.Moments(months, 0.458, skewness, kurtosis)
    assert luck.probabilistic_sharpe(fund) == pytest.approx(probability, abs=1e-3)


@pytest.mark.parametrize(
    ("a_year", "skewness", "kurtosis", "years"),
    [(250, 0.0, 3.0, 2.73), (52, 0.0, 3.0, 2.83), (12, 0.0, 3.0, 3.24), (12, -0.72, 5.78, 4.99)],
)
def test_track_records_of_the_paper(a_year: int, skewness: float, kurtosis: float, years: float):
    """How long a Sharpe ratio of 2 a year must last to be above 1 with 95 % confidence."""
    found = luck.Moments(2, 2 / math.sqrt(a_year), skewness, kurtosis)
    needed = luck.minimum_track_record(found, 1 / math.sqrt(a_year))
    assert needed is not None
    assert needed / a_year == pytest.approx(years, abs=5e-3)


def test_normal_returns_bear_more_trials():
    """Bailey & López de Prado 2014: 88 trials with normal returns weigh as much as 46 with skewness −3, kurtosis 10."""
    year = 250
    normal = luck.Moments(1250, 2.5 / math.sqrt(year), 0.0, 3.0)
    assert luck.deflated_sharpe(normal, 88, 0.5 / year) == pytest.approx(0.9505, abs=5e-5)


# Cross-validation.


def slowly(change: Array, blocks: int) -> tuple[float, float, float]:
    """PBO, probability of loss and degradation by the letter: halves of the matrix itself, ranks, logits, a line."""
    bars, trials = change.shape
    parts = np.split(change, [-(-k * bars // blocks) for k in range(1, blocks)])
    logits, before, after = [], [], []
    for chosen in combinations(range(blocks), blocks // 2):
        one = np.concatenate([parts[k] for k in chosen])
        other = np.concatenate([parts[k] for k in range(blocks) if k not in chosen])
        here, there = (half.mean(axis=0) / half.std(axis=0, ddof=1) for half in (one, other))
        best = int(np.argmax(here))
        share = float((there <= there[best]).sum()) / (trials + 1)
        logits.append(math.log(share / (1 - share)))
        before.append(here[best])
        after.append(there[best])
    at_median = np.abs(logits) < 1e-12
    overfitting = float(np.mean(np.where(at_median, 0.5, np.array(logits) < 0)))
    return overfitting, float(np.mean(np.array(after) < 0)), float(np.polyfit(before, after, 1)[0])


@pytest.mark.parametrize(("bars", "trials"), [(400, 2), (403, 7), (415, 20)])
def test_it_is_what_the_slow_way_finds(bars: int, trials: int):
    change = noise(trials, bars, trials)
    found = crossed(change)
    assert found.splits == 70
    assert (found.overfitting, found.loss) == pytest.approx(slowly(change, 8)[:2])
    assert found.degradation == pytest.approx(slowly(change, 8)[2])


def test_on_noise_the_best_of_one_half_is_above_the_median_of_the_other_every_other_time():
    shares = [crossed(noise(seed, 400, 50)).overfitting for seed in range(200)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)


def test_one_trial_that_dominates_is_not_overfit():
    change = noise(1, 800, 40)
    change[:, 3] += 0.01
    found = crossed(change, 16)
    assert (found.overfitting, found.loss, found.splits) == (0.0, 0.0, 12_870)


def test_more_before_means_less_after_where_all_gain_the_same_in_the_end():
    """What a trial gains in one half it lacks in the other: the paper's case of compensation."""
    change = noise(2, 800, 40)
    found = crossed(change - change.mean(axis=0))
    assert found.degradation is not None
    assert found.degradation < -0.5
    assert found.loss == 1.0


@given(
    seed=st.integers(0, 2**32 - 1),
    bars=st.integers(16, 80),
    trials=st.integers(2, 9),
    scale=st.sampled_from([2.0**-9, 0.5, 4.0, 2.0**20]),
    idle=st.integers(0, 3),
)
@settings(deadline=None, max_examples=examples(60))
def test_scale_and_order_change_nothing(seed: int, bars: int, trials: int, scale: float, idle: int):
    """Exactly so, though some trials are equal and some do not move in most blocks, as rare traders do."""
    random = np.random.default_rng(seed)
    change = random.normal(0, 0.01, (bars, trials))
    change[: bars // 2, :idle] = 0.0
    change[:, -1] = change[:, 0]
    once, scaled = crossed(change), crossed(change * scale)
    assert scaled == once
    other = crossed(change[:, random.permutation(trials)])
    assert other.degradation == pytest.approx(once.degradation, abs=1e-9)
    assert (other.overfitting, other.loss) == (once.overfitting, once.loss)


@pytest.mark.parametrize("trials", [2, 200, 201])
def test_equal_trials_are_their_own_median_wherever_they_stand(trials: int):
    found = crossed(np.repeat(noise(3, 640, 1), trials, axis=1))
    assert found.overfitting == 0.5


def test_what_does_not_move_is_worth_nothing():
    """A ratio of 0: better than what loses, worse than what gains, and no prize for constant returns."""
    idle, gains, loses = np.zeros(160), noise(4, 160, 1)[:, 0] + 0.02, noise(5, 160, 1)[:, 0] - 0.02
    constant = np.full(160, 0.001)
    assert crossed(np.column_stack([idle, loses])) == CrossValidation(0.0, 0.0, None, 70)
    assert crossed(np.column_stack([constant, loses])) == CrossValidation(0.0, 0.0, None, 70)
    assert crossed(np.column_stack([constant, gains])).loss == 0.0
    assert crossed(np.column_stack([constant, gains])).degradation is not None


def test_too_little_gives_nothing():
    assert cross_validated(*block_sums(noise(6, 80, 1), 8)) is None
    assert cross_validated(*block_sums(noise(6, 15, 3), 8)) is None


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(Refused, match="bars: do not fill 8 blocks"):
        block_sums(noise(7, 7, 3), 8)
    with pytest.raises(Refused, match="blocks: cannot be halved"):
        cross_validated(*block_sums(noise(7, 70, 3), 7))
    change = noise(7, 80, 5)
    change[3, 1], change[9, 4] = np.nan, np.inf
    with pytest.raises(Refused, match="not finite numbers in 2 of 5 trials"):
        cross_validated(*block_sums(change, 8))


# Neighborhood.


def test_neighbors_in_a_grid_are_one_step_away_in_one_parameter():
    places = np.array([(a, b) for a in range(3) for b in range(4)])
    assert places[neighborhood.steps_away(places, 5)].tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]
    assert places[neighborhood.steps_away(places, 0)].tolist() == [[0, 1], [1, 0]]


def test_neighbors_of_a_draw_are_the_nearest_with_each_parameter_on_the_same_scale():
    places = np.array([[0, 0, 7], [1, 0, 7], [0, 50, 7], [0, 90, 7], [9, 0, 7], [10, 100, 7]])
    assert neighborhood.nearest(places, 0).tolist() == [1, 2, 3, 4]
    assert neighborhood.nearest(places[:2], 1).tolist() == [0]
    assert neighborhood.nearest(places[:1], 0).tolist() == []


def test_how_much_the_neighbors_keep():
    objective = np.array([2.0, 1.0, 1.5, -4.0, np.nan])
    assert neighborhood.kept(objective, 0, np.array([1, 2])) == pytest.approx(0.625)
    assert neighborhood.kept(objective, 0, np.array([3])) == pytest.approx(-2.0)
    assert neighborhood.kept(objective, 0, np.array([1, 4])) == pytest.approx(0.5)
    assert neighborhood.kept(objective, 0, np.array([4])) is None
    assert neighborhood.kept(objective, 0, np.array([], np.intp)) is None
    assert neighborhood.kept(objective, 3, np.array([0, 1])) is None


@pytest.mark.parametrize("score", [Score.SORTINO, Score.GROWTH])
def test_other_scores_against_the_slow_way(score: Score):
    change, blocks = noise(11, 160, 9), 8
    sums, _, lengths = block_sums(np.log1p(change) if score == Score.GROWTH else change, blocks)
    downside = block_sums(np.minimum(change, 0.0), blocks)[1]
    found = cross_validated(sums, downside, lengths, score)
    assert found is not None
    below, lost = [], []
    parts = np.split(change, blocks)
    for half in combinations(range(blocks), blocks // 2):
        here = slow_score(np.concatenate([parts[k] for k in half]), score)
        there = slow_score(np.concatenate([parts[k] for k in range(blocks) if k not in half]), score)
        mine = there[int(np.argmax(here))]
        below.append(float(mine < np.median(there)) + 0.5 * float(mine == np.median(there)))
        lost.append(mine < 0)
    assert found.overfitting == pytest.approx(np.mean(below))
    assert found.loss == pytest.approx(np.mean(lost))


def slow_score(change: Array, score: Score) -> Array:
    if score == Score.GROWTH:
        return np.prod(1 + change, axis=0) - 1
    return change.mean(axis=0) / np.sqrt((np.minimum(change, 0.0) ** 2).mean(axis=0))


def test_a_trial_that_never_loses_has_no_sortino_ratio():
    change = np.abs(noise(3, 160, 2))
    sums, _, lengths = block_sums(change, 8)
    found = cross_validated(sums, np.zeros_like(sums), lengths, Score.SORTINO)
    assert found is not None
    assert (found.overfitting, found.loss) == (0.5, 0.0)
