"""Warm-up analysis: do targets depend on how much history came before the range, and how much is enough?

As Freqtrade's `recursive-analysis`, but on targets: what a recursive indicator still carries of its first value matters
where it decides otherwise. Paper and live trading warm up on `warmup` bars; a backtest sees all there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gpt_trader.backtesting.findings import Finding, Length, WarmUp
from gpt_trader.backtesting.result import iso
from gpt_trader.backtesting.trying import targets_of

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats
    from gpt_trader.strategies.base import Strategy

#: Multiples of the declared warm-up that are tried, beside all history.
LADDER: Final = (1, 2, 5, 10, 20)
#: Bars of a range that are compared: what is missing at its first bar shows in the next ones.
HORIZON: Final = 20
#: Targets closer than this are the same: a running sum carries rounding along.
TOLERANCE: Final = 1e-9


def warm_up(strategy: Strategy, bars: Bars, first: int, declared: int, count: int) -> WarmUp:
    """Return how targets after short histories compare with those after all of it.

    A range is begun in up to `count` places; its next bars are decided from the last `declared` × 1, 2, 5, 10, 20 bars,
    and from all, the first bar of the range included.

    Args:
        strategy: Whose targets they are; it must give the same answer to the same bars.
        bars: Warm-up bars and the bars of the range, (n,).
        first: Index of the first bar where a range may begin.
        declared: The strategy's warm-up in bars, the deciding one included.
        count: In how many places a range is begun.

    Raises Broken where the strategy does not run on so few bars.
    """
    lengths = [_Compared(times, times * declared) for times in LADDER]
    for start in _starts(first, len(bars), declared, count):
        stop = min(start + HORIZON, len(bars))
        known = targets_of(strategy, bars[:stop], start)[start:]
        for length in lengths:
            before = length.bars - 1
            if before < start:  # else it is all history there is
                seen = targets_of(strategy, bars[start - before : stop], before)[before:]
                length.compare(known, seen, start)
    tried = [length for length in lengths if length.starts]
    return WarmUp(
        declared=declared,
        suffices=not tried[0].differing if tried and tried[0].times == 1 else None,
        stable_from=_stable_from(tried),
        lengths=tuple(length.shown(bars) for length in tried),
    )


def warm_up_finding(found: WarmUp, bars: Bars) -> Finding | None:
    """Return what is wrong with the declared warm-up, if something is."""
    if found.suffices is None:
        message = (
            f"{len(bars)} bars are too few to judge a warm-up of {found.declared}: give a longer range, or a symbol "
            "with more history"
        )
        return Finding(check="warm-up", severity="note", message=message)
    if found.suffices:
        return None
    shortest = found.lengths[0]
    if found.stable_from is not None:
        enough = f"stable from {found.stable_from} bars on: declare that, or what technical.warmup_of says"
    else:
        enough = (
            f"not stable with {found.lengths[-1].bars} bars either: it depends on all history (a running total, a "
            "state from before the range, or a far longer average)"
        )
    message = (
        f"the declared warm-up of {found.declared} bars is too short: of {shortest.starts} starts, "
        f"{shortest.differing} decide otherwise after it than after all history, by up to {shortest.largest:.3g}; "
        f"{enough}"
    )
    return Finding(check="warm-up", severity="error", bar=shortest.first, message=message)


class _Compared:
    """What has been seen of one length."""

    def __init__(self, times: int, bars: int) -> None:
        self.times = times
        self.bars = bars
        self.starts = 0
        self.differing = 0
        self.largest = 0.0
        self.first: int | None = None

    def compare(self, known: Floats, seen: Floats, start: int) -> None:
        """Take in the targets of a range that begins at `start`, after all history and after this length."""
        self.starts += 1
        distance = np.nan_to_num(np.abs(known - seen), nan=np.inf)
        distance[np.isnan(known) & np.isnan(seen)] = 0.0
        where = np.flatnonzero(distance > TOLERANCE)
        if len(where):
            self.differing += 1
            finite = np.nan_to_num(
                distance, posinf=2.0
            )  # undefined on one side: as far as two targets can be apart
            self.largest = max(self.largest, float(finite.max()))
            self.first = start + int(where[0]) if self.first is None else self.first

    def shown(self, bars: Bars) -> Length:
        """Return it as it is told."""
        return Length(
            bars=self.bars,
            times=self.times,
            starts=self.starts,
            differing=self.differing,
            largest=self.largest,
            first=None if self.first is None else iso(bars.time[self.first]),
        )


def _starts(first: int, bars: int, declared: int, count: int) -> list[int]:
    """Return where ranges begin: with the longest history of the ladder before each, or else half of all bars."""
    earliest = max(first, declared, min(LADDER[-1] * declared, bars // 2))
    if earliest >= bars:
        return []
    places: list[int] = np.unique(np.linspace(earliest, bars - 1, count).astype(int)).tolist()
    return places


def _stable_from(tried: list[_Compared]) -> int | None:
    """Return the least length from which no longer one differs either."""
    stable = None
    for length in reversed(tried):
        if length.differing:
            break
        stable = length.bars
    return stable
