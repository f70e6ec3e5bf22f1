"""Refuses a strategy that looks into the future, before anyone believes its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gpt_trader.backtesting.result import iso
from gpt_trader.errors import Problem, Refused

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats
    from gpt_trader.strategies.base import Strategy

#: In how many places history is cut off; each costs one more call of `targets` on what is left.
CUTS: Final = 8

#: Proven once, by a property test (`tests/property/test_strategies_see_no_future.py`).
_PROVEN: Final = "gpt_trader.strategies."


def require_causal(strategy: Strategy, bars: Bars, first: int) -> None:
    """Raise Refused if a target changes when the bars after it are taken away.

    The law of `Strategy.targets`, tried where history is cut off in `CUTS` places of the range; what it finds is a
    proof, what it does not find is none. A strategy that gives another answer to each call is refused alike. Our own
    strategies are not tried again.

    Args:
        strategy: Whose targets they are.
        bars: Warm-up bars and the bars of the range, (n,).
        first: Index of the range's first bar.
    """
    if is_proven(strategy):
        return
    if len(bars) - first < 2:
        return
    targets = np.asarray(strategy.targets(bars, first), dtype=np.float64)
    if targets.shape != (len(bars),):
        return  # no targets at all, as the engine will say
    for cut in cut_points(first, len(bars), CUTS, strategy.warmup):
        seen = np.asarray(strategy.targets(bars[:cut], first), dtype=np.float64)
        if seen.shape != (cut,):
            raise _refusal(strategy, f"targets() returned shape {seen.shape} for {cut} bars")
        bar = first_difference(targets, seen)
        if bar is not None:
            raise _refusal(
                strategy,
                f"it looks into the future: the target at {iso(bars.time[bar])} is {targets[bar]:g} with all bars "
                f"known and {seen[bar]:g} when history ends at {iso(bars.time[cut - 1])}",
            )


def is_proven(strategy: Strategy) -> bool:
    """Return whether it is one of our own, which a property test has proven causal."""
    return type(strategy).__module__.startswith(_PROVEN)


def cut_points(first: int, bars: int, count: int, warmup: int = 1) -> list[int]:
    """Return at most `count` places to cut history off, spread over the range: index of the first bar that is gone.

    No history is shorter than `warmup`, with which a strategy is never asked.
    """
    begin = max(first + 1, warmup)
    return np.unique(np.linspace(begin, bars - 1, count).astype(int)).tolist() if bars > begin else []


def first_difference(targets: Floats, seen: Floats) -> int | None:
    """Return the first bar at which `seen`, shape (k,), is not `targets`[:k]; None where there is none.

    To the bit, as the law has it. Undefined (NaN) on both sides is the same: the engine refuses that in its own words.
    """
    known = targets[: len(seen)]
    differs = np.flatnonzero((seen != known) & ~(np.isnan(seen) & np.isnan(known)))
    return int(differs[0]) if len(differs) else None


def _refusal(strategy: Strategy, message: str) -> Refused:
    return Refused.of(
        Problem("strategy", strategy.name, message, "targets that depend on bars up to their own only")
    )
