"""Compiled functions that write targets (`gpt_trader.strategies.base.CompiledTargets`): one loop, no array besides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import njit

from gpt_trader.indicators import ROUNDING

if TYPE_CHECKING:
    from gpt_trader.bars import Floats


@njit(cache=True, error_model="numpy", nogil=True)
def crossover(fast: Floats, slow: Floats, sides: tuple[float, float], first: int, found: Floats) -> None:
    """Write the first of `sides` where `fast` is above `slow` by more than rounding, the other where below, else 0.

    As `gpt_trader.indicators.exceeds` compares: nothing where either is undefined.
    """
    (up, down), left, right = sides, fast[first:], slow[first:]
    if down == 0.0:  # long alone: half of the work
        for i in range(len(left)):  # without a branch, and from 0 on: several bars are done at once
            found[i] = up * (left[i] - right[i] > ROUNDING * abs(right[i]))
        return
    for i in range(len(left)):
        above = left[i] - right[i] > ROUNDING * abs(right[i])
        below = right[i] - left[i] > ROUNDING * abs(left[i])
        found[i] = up * above + down * below
