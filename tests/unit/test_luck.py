"""The statistics behind the verdict, against published examples and against the slow and obvious way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpt_trader.optimization import luck

YEAR = 250


def moments(sharpe: float, bars: int, skewness: float = 0.0, kurtosis: float = 3.0) -> luck.Moments:
    return luck.Moments(bars, sharpe / math.sqrt(YEAR), skewness, kurtosis)


@pytest.mark.parametrize(("trials", "deflated"), [(100, 0.9004), (46, 0.9505)])
def test_the_deflated_sharpe_ratio_of_the_paper(trials: int, deflated: float):
    """Bailey & López de Prado 2014: SR 2.5 a year, 1,250 days, skewness −3, kurtosis 10, variance of ratios ½."""
    found = luck.deflated_sharpe(moments(2.5, 1250, -3.0, 10.0), trials, 0.5 / YEAR)
    assert found == pytest.approx(deflated, abs=5e-5)


def test_the_expected_maximum_of_the_paper():
    assert luck.expected_maximum(100, 0.5 / YEAR) * math.sqrt(YEAR) == pytest.approx(1.7894, abs=5e-5)
    assert luck.expected_maximum(1, 0.5) == luck.expected_maximum(50, 0.0) == 0.0


def test_the_expected_maximum_is_that_of_normal_draws():
    random = np.random.default_rng(1)
    drawn = random.normal(0, 2, (20_000, 50)).max(axis=1).mean()
    assert luck.expected_maximum(50, 4.0) == pytest.approx(drawn, rel=0.02)


def test_the_minimum_track_record_is_where_the_probability_reaches_the_confidence():
    found = moments(1.5, 1000, -0.7, 5.0)
    needed = luck.minimum_track_record(found, 0.01)
    assert needed is not None
    there = luck.Moments(round(needed), found.sharpe, found.skewness, found.kurtosis)
    assert luck.probabilistic_sharpe(there, 0.01) == pytest.approx(0.95, abs=1e-3)
    assert luck.minimum_track_record(found, 1.0) is None


def test_the_probabilistic_sharpe_ratio_is_a_coin_at_its_own_benchmark():
    found = moments(1.0, 500)
    assert luck.probabilistic_sharpe(found, found.sharpe or 0.0) == pytest.approx(0.5)


def test_moments_are_those_of_the_returns():
    change = np.random.default_rng(2).normal(0.001, 0.01, 5000)
    found = luck.Moments.of(change)
    assert found.sharpe == pytest.approx(change.mean() / change.std(ddof=1))
    assert found.skewness == pytest.approx(0.0, abs=0.1)
    assert found.kurtosis == pytest.approx(3.0, abs=0.2)


def test_what_never_moves_has_no_ratio():
    found = luck.Moments.of(np.zeros(100))
    assert found.sharpe is None
    assert luck.probabilistic_sharpe(found) is luck.deflated_sharpe(found, 10, 0.1) is None
    assert luck.minimum_track_record(found) is None


@pytest.mark.parametrize("change", [0.0, 0.001, 0.1])
def test_constant_returns_have_no_ratio(change: float):
    assert luck.probabilistic_sharpe(luck.Moments.of(np.full(5_040, change))) is None


def test_equal_trials_are_worth_one_and_independent_ones_themselves():
    one = np.random.default_rng(8).normal(0, 1, (16, 1))
    assert luck.effective_trials(np.repeat(one, 50, axis=1), 50) == pytest.approx(1.0)
    many = np.random.default_rng(9).normal(0, 1, (16, 200))
    assert luck.effective_trials(many, 200) == pytest.approx(200, rel=0.05)
