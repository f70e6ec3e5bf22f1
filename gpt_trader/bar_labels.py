"""How a series labels its bars, held against the calendar: by their open or their close, in UTC or another clock.

What is found is undone before anything else is judged, so that one cause gives one finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.bars import Flags, Times
from gpt_trader.calendars import Anchor, Calendar, clock_floor, expected_labels, monday_of
from gpt_trader.instruments import TIMEFRAMES

_TINY: Final = np.timedelta64(1, "us")
_HALF_HOUR: Final = np.timedelta64(30, "m")
_HOUR: Final = np.timedelta64(1, "h")
_NONE: Final = np.timedelta64(0, "us")
_DAY: Final = np.timedelta64(1, "D")

#: What may bring times to UTC, the likeliest first: up to 14 hours, whole ones before half ones.
_SHIFTS: Final = tuple(k * _HALF_HOUR for k in sorted(range(-28, 29), key=lambda k: (k % 2, abs(k), -k)))
#: A supposition must take away so much of what does not fit, or it is not believed.
_CONVINCING: Final = 0.1
#: Bars that do not fit, as a share, below which nobody's clock is in doubt; and what must remain after a shift.
_DOUBTFUL, _REMAINDER = 0.01, 0.02
_SAMPLE: Final = 5_000


@dataclass(frozen=True, eq=False)
class Grid:
    """Where a calendar expects bars of one timeframe: `labels` (m,), and the spans (k,) that may hold some.

    Bars may lie from a span's `start` up to, not including, `latest`, which is later than what is expected where the
    calendar leaves it open.
    """

    labels: Times
    start: Times
    latest: Times
    step: np.timedelta64

    def floor(self, time: Times, *, closed: bool = False) -> tuple[Times, Flags, Flags]:
        """Return for each time the open label of the bar it lies in, which lie in none, and which are off the grid.

        `closed`: the times are the bars' ends; that of a short last bar is the session's end, or a whole step later.
        """
        if not len(self.start):
            nowhere = np.zeros(len(time), np.bool_)
            return time, nowhere, nowhere
        within = time - _TINY if closed else time
        place = self._place(within)
        start, latest = self.start[place], self.latest[place]
        label = start + (within - start) // self.step * self.step
        whole = label + self.step
        right = np.where(time == whole, whole, np.minimum(whole, latest)) if closed else label
        inside = (within >= start) & ((within < latest) | ((label < latest) & (time == right)))
        return np.where(inside, label, time), ~inside & self._known(within), inside & (time != right)

    def outside(self, time: Times) -> int:
        """Return how many times lie in no session, be they labels of opens or of closes."""
        if not len(self.start):
            return 0
        opens_or_closes = (time, time - _TINY)
        return min(
            int(np.count_nonzero(self._known(t) & (t >= self.latest[self._place(t)])))
            for t in opens_or_closes
        )

    def _place(self, time: Times) -> NDArray[np.intp]:
        """Return for each time the last span that began until then; the first one before all."""
        return np.maximum(np.searchsorted(self.start, time, "right") - 1, 0)

    def _known(self, time: Times) -> Flags:
        known: Flags = (time >= self.start[0]) & (time < self.latest[-1])
        return known

    def span_ending_after(self, time: Times) -> NDArray[np.intp]:
        """Return for each time the index of the first span that is not over then."""
        return np.minimum(np.searchsorted(self.latest, time, "right"), len(self.latest) - 1)


def grid(found: Calendar, timeframe: str, first: date, last: date, anchor: Anchor) -> Grid:
    """Return where the sessions `first` to `last` expect bars."""
    step = np.timedelta64(TIMEFRAMES[timeframe]).astype("timedelta64[us]")
    labels = expected_labels(found, timeframe, first, last, anchor)
    if TIMEFRAMES[timeframe] >= timedelta(days=1):
        return Grid(labels, labels, labels + step, step)
    sessions = found.sessions(first, last)
    starts, latest = replace(sessions, close=sessions.latest_close).spans()
    return Grid(labels, clock_floor(starts, step) if anchor == "clock" else starts, latest, step)


@dataclass(frozen=True, eq=False)
class Placement:
    """How a series' bars lie on the grid of their calendar; arrays are (n,).

    `label` is the open time in UTC of the bar that is meant; `outside` bars lie in no session; `off` ones between
    two labels. `closed`: the series labels bars by their close. `shifts` (one for each span of the grid) is what its
    clock lacks to UTC.
    """

    grid: Grid
    label: Times
    outside: Flags
    off: Flags
    closed: bool = False
    shifts: NDArray[np.timedelta64] = field(default_factory=lambda: np.array([_NONE]))

    @property
    def misfits(self) -> int:
        """How many bars do not lie where the calendar expects some."""
        return int(np.count_nonzero(self.outside) + np.count_nonzero(self.off))

    @property
    def shifted(self) -> bool:
        """Whether the times are in another clock than UTC."""
        return bool(self.shifts.any())

    def as_stored(self, label: Times) -> Times:
        """Return how the series would label the bars that open at these times."""
        if not len(self.grid.start):
            return label
        span = np.maximum(np.searchsorted(self.grid.start, label, "right") - 1, 0)
        end = np.minimum(label + self.grid.step, self.grid.latest[span])
        own: Times = end if self.closed else label
        stored: Times = own - np.broadcast_to(self.shifts, self.grid.start.shape)[span]
        return stored


def placed(time: Times, timeframe: str, grid_of: Callable[[Anchor], Grid]) -> Placement:
    """Return how bars with these times (n,), oldest first, lie on the calendar's grid."""
    best = _labelled(time, timeframe, grid_of, np.array([_NONE]))
    wrong = int(np.count_nonzero(best.outside))
    if wrong <= max(_DOUBTFUL * len(time), 2) or TIMEFRAMES[timeframe] > timedelta(days=1):
        return best
    shifts = _shifts(time, timeframe, best.grid)
    shifted = _labelled(time, timeframe, grid_of, shifts)
    remaining = int(np.count_nonzero(shifted.outside))
    convincing = remaining <= min(_CONVINCING * wrong, _REMAINDER * len(time))
    return shifted if shifts.any() and convincing else best


def _labelled(
    time: Times, timeframe: str, grid_of: Callable[[Anchor], Grid], shifts: NDArray[np.timedelta64]
) -> Placement:
    """Return the placement that fits best: bars from the open or by the clock, labelled by open or by close."""
    by_open = _tried(time, grid_of("open"), shifts)
    if not by_open.misfits:
        return by_open
    best = by_open
    if TIMEFRAMES[timeframe] < timedelta(days=1):
        best = min(best, _tried(time, grid_of("clock"), shifts), key=lambda tried: tried.misfits)
    closed = min(
        (_tried(time, grid_of(anchor), shifts, closed=True) for anchor in _anchors(timeframe)),
        key=lambda tried: tried.misfits,
    )
    # The last label of each session (of daily bars: week) that ended must lie outside, or it is a stray bar that does.
    if TIMEFRAMES[timeframe] < timedelta(days=1):
        ended = np.count_nonzero(np.diff(closed.grid.span_ending_after(closed.label)))
    else:
        ended = np.count_nonzero(np.diff(monday_of(closed.label)))
    evident = best.misfits * 2 >= ended and closed.misfits <= _CONVINCING * best.misfits
    return closed if evident else best


def _anchors(timeframe: str) -> Iterator[Anchor]:
    yield "open"
    if TIMEFRAMES[timeframe] < timedelta(days=1):
        yield "clock"


def _tried(time: Times, on: Grid, shifts: NDArray[np.timedelta64], *, closed: bool = False) -> Placement:
    moved = time
    if shifts.any():
        moved = time + shifts[_spans_of(time, on, shifts.min())]
    label, outside, off = on.floor(moved, closed=closed)
    return Placement(on, label, outside, off, closed, shifts)


def _shifts(time: Times, timeframe: str, on: Grid) -> NDArray[np.timedelta64]:
    """Return for each span the shift that brings most bars into sessions.

    One for all first, then up to an hour more or less for spans that open at another time of day: the clocks of the
    exchange change there, and those of the series may not, or by more.
    """
    if TIMEFRAMES[timeframe] >= timedelta(days=1):
        ahead = on.outside(time + _DAY) < on.outside(time)
        return np.full(len(on.start), _DAY if ahead else _NONE).astype("timedelta64[us]")
    sample = time[:: max(len(time) // _SAMPLE, 1)]
    best = min(_SHIFTS, key=lambda shift: on.outside(sample + shift))
    shifts = np.full(len(on.start), best).astype("timedelta64[us]")
    clock = (on.start - on.start.astype("datetime64[D]")).astype(np.int64)
    bars = clock[_spans_of(time, on, best)]
    for opening in np.unique(bars):
        of_these = time[bars == opening]
        nearby = (best, best + _HOUR, best - _HOUR)
        shifts[clock == opening] = min(nearby, key=lambda shift: on.outside(of_these + shift))
    return shifts


def _spans_of(time: Times, on: Grid, shift: np.timedelta64) -> NDArray[np.intp]:
    """Return the span that each bar belongs to, if `shift` is at most an hour wrong.

    Taken an hour early no bar leaves its session at the end; before its start, that session is still the next to end.
    """
    return on.span_ending_after(time + shift - _HOUR)
