"""A sweep's memory: bounded whatever the number of bars and of trials, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt_trader.indicators import Memory, remembering, shared, sma

ROOT = Path(__file__).parents[2]


def added(*words: int | str) -> float:
    """Return by how many MB a sweep of so many bars, fast and slow averages raised a process's peak."""
    command = [sys.executable, "-m", "benchmarks.sweep_memory", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")


def test_many_bars_and_many_trials_take_no_more_than_100_mb() -> None:
    """Kept without a bound, the averages alone would be 200 MB of the first sweep."""
    assert added(125_000, 4, 196) < 100
    assert added(500, 200, 100) < 30


@pytest.mark.slow
def test_the_largest_grid_takes_no_more_than_100_mb_to_its_report() -> None:
    """In memory, its rows alone would be 150 MB, and its indicators another 40; it was 169 MB."""
    assert added(5_040, 500, 500) < 90
    assert added(5_040, 500, 500, "concluded") < 100


def test_what_is_remembered_is_bounded_and_right() -> None:
    values = np.random.default_rng(1).normal(100, 1, 1_000)
    values.flags.writeable = False
    memory = Memory(limit=10 * values.nbytes)
    periods = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43] * 20
    for period in periods:
        np.testing.assert_array_equal(memory.of(sma, values, period), sma(values, period))
        assert memory.bytes <= 10 * values.nbytes


def test_what_is_shared_is_read_only_and_one_s_own_is_not() -> None:
    values = np.arange(50.0)
    values.flags.writeable = False
    with remembering():
        one = shared(sma, values, 5)
        with remembering():  # within, or in a thread's copied context
            assert shared(sma, values, 5) is one
        assert not one.flags.writeable
        assert sma(values, 5) is not one
        assert sma(values, 5).flags.writeable
