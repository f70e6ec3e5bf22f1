"""Compiled sums and targets are to the bit what the plain definitions give."""

from __future__ import annotations

import numpy as np
import pytest

from gpt_trader.indicators import exceeds, sma
from gpt_trader.rolling import window_sums
from gpt_trader.strategies.compiled import crossover

SIDES = {"long": (1.0, 0.0), "short": (0.0, -1.0), "both": (1.0, -1.0)}


@pytest.mark.parametrize("n", [1, 5, 255, 256, 257, 1_000])
@pytest.mark.parametrize("period", [1, 2, 5, 250])
def test_windows_are_summed_oldest_to_newest(n: int, period: int) -> None:
    values = np.random.default_rng(n).normal(100, 30, n)
    if period > n:
        assert np.isnan(sma(values, period)).all()
        return
    found = np.empty(n - period + 1)
    window_sums(values, period, found)
    expected = values[: n - period + 1].copy()
    for offset in range(1, period):
        expected += values[offset : offset + len(expected)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("direction", SIDES)
@pytest.mark.parametrize("first", [0, 3, 200])
def test_a_crossover_is_what_exceeds_says(direction: str, first: int) -> None:
    random = np.random.default_rng(2)
    fast, slow = random.normal(0, 1, 200), random.normal(0, 1, 200)
    fast[:9], slow[:17] = np.nan, np.nan
    slow[40:60] = fast[40:60]
    slow[60:80] = fast[60:80] * (1 + 1e-13)  # rounding, no crossover
    found = np.full(200 - first, 9.0)
    crossover(fast, slow, SIDES[direction], first, found)
    up, down = SIDES[direction]
    expected = np.where(exceeds(fast, slow), up, np.where(exceeds(slow, fast), down, 0.0))[first:]
    np.testing.assert_array_equal(found, expected)
    assert not np.signbit(found[found == 0.0]).any(), "no negative zero"
