"""Compiled functions that write targets (`gpt_trader.strategies.base.CompiledTargets`): one loop, no array besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from numba import njit

from gpt_trader.indicators import ROUNDING, shared, sma
from gpt_trader.strategies.base import CompiledTargets, Direction

if TYPE_CHECKING:
    from gpt_trader.bars import Floats


#: The targets of the rule and of its mirror, by direction; 0: that side is not taken.
_SIDES: Final[dict[Direction, tuple[float, float]]] = {
    "long": (1.0, 0.0),
    "short": (0.0, -1.0),
    "both": (1.0, -1.0),
}


def averages_crossed(values: Floats, fast: int, slow: int, direction: Direction) -> CompiledTargets:
    """Return the crossover of two simple moving averages, over `fast` and `slow` values."""
    inputs = (shared(sma, values, fast), shared(sma, values, slow), _SIDES[direction])
    return CompiledTargets(crossover, inputs)


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
