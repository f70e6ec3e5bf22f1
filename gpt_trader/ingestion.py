"""Which part of a series an ingest has to fetch, so that nothing is fetched twice and no hole is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Final

from gpt_trader.instruments import TIMEFRAMES

#: So many stored bars are fetched again where a series goes on: they show whether the source has changed its mind.
OVERLAP_BARS: Final = 5

#: A part before the first stored bar is fetched in windows, the latest first: of so many bars at first, and then of
#: twice as many each time (before a market's first day there is nothing but windows), up to the most.
WINDOW_BARS: Final = 50_000
MOST_WINDOW_BARS: Final = 1_000_000


@dataclass(frozen=True)
class Range:
    """A range to fetch, both ends inclusive (None: from the first, to the last there is).

    Pages of a range that goes on behind what is stored may be committed as they come. One that is not `ascending`
    lies before it and has to be committed as a whole: half of it would leave a hole.
    """

    start: datetime | None
    end: datetime | None
    ascending: bool = True


def ranges(
    stored: tuple[datetime, datetime] | None, timeframe: str, start: date | None, end: date | None
) -> Iterator[Range]:
    """Yield what to fetch of a series whose first and last stored bars are `stored`, in the order to fetch it.

    `start` and `end` are days, inclusive. A series is always stored without a hole between what was fetched: where the
    range does not touch what is stored, the part in between is fetched as well.
    """
    since = None if start is None else datetime.combine(start, time.min, tzinfo=UTC)
    until = None if end is None else datetime.combine(end, time.max, tzinfo=UTC)
    if stored is None:
        yield Range(since, until)
        return
    first, last = stored
    step = TIMEFRAMES[timeframe]
    if until is None or until > last:
        yield Range(max(first, last - OVERLAP_BARS * step), until)
    if since is not None:
        stop, bars = first, WINDOW_BARS
        while stop > since:
            begin = stop - bars * step if (stop - since) / step > bars else since
            yield Range(begin, stop, ascending=False)
            stop, bars = begin, min(2 * bars, MOST_WINDOW_BARS)
