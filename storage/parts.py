"""Which bars of a series lie in which file: given by the bars alone, so that equal series have equal files.

Daily bars and longer ones lie in one file, "all"; intraday bars in one a UTC year, "2026". Of minutes the newest month
has a file of its own, "2026-11": with each minute that comes live the file it belongs to is written anew. Once a bar of
another month comes, the month goes into the file of its year.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Final

import numpy as np

from gpt_trader.instruments import TIMEFRAMES
from gpt_trader.raw_bars import RawBars
from storage.manifest import FileRef

_DAY: Final = timedelta(days=1)
#: Bars shorter than this are so many that a year of them is too much to write anew for each.
_MANY: Final = timedelta(minutes=5)


def parts(rows: RawBars, timeframe: str, month: str) -> Iterator[tuple[str, RawBars]]:
    """Yield sorted rows of a series by the part that they belong to; `month` is that of the series' last bar, UTC."""
    if not len(rows):
        return
    if TIMEFRAMES[timeframe] >= _DAY:
        yield "all", rows
        return
    recent = len(rows)
    if TIMEFRAMES[timeframe] < _MANY:
        recent = int(np.searchsorted(rows.time, np.datetime64(month, "us")))
    yield from _years(rows[:recent])
    if recent < len(rows):
        yield month, rows[recent:]


def meetings(
    files: Sequence[FileRef], new: RawBars, timeframe: str, month: str
) -> Iterator[tuple[list[FileRef], RawBars]]:
    """Yield which stored files new rows have to be merged with: as few as can be.

    Args:
        files: Those of the series.
        new: What has come, sorted.
        timeframe: Of the series.
        month: Of its last bar, the new ones included.

    What is yielded without rows is to be arranged anew: a month that is not the newest any more.
    """
    if TIMEFRAMES[timeframe] >= _MANY:
        for part, rows in parts(new, timeframe, month):
            yield [file for file in files if file.part == part], rows
        return
    years = dict(_years(new))
    for file in files:
        if _is_month(file) and file.part != month:
            years.setdefault(file.part[:4], RawBars.empty())
    for year, rows in sorted(years.items()):
        of_year = [file for file in files if file.part[:4] == year]
        if (
            len(rows)
            and rows.time[0] >= np.datetime64(month, "us")
            and all(_apart(file, month) for file in of_year)
        ):
            of_year = [file for file in of_year if file.part == month]
        yield of_year, rows


def _years(rows: RawBars) -> Iterator[tuple[str, RawBars]]:
    if not len(rows):
        return
    years = rows.time.astype("datetime64[Y]")
    cuts = np.flatnonzero(years[1:] != years[:-1]) + 1
    for start, stop in pairwise([0, *cuts.tolist(), len(rows)]):
        yield str(years[start]), rows[start:stop]


def _is_month(file: FileRef) -> bool:
    return "-" in file.part


def _apart(file: FileRef, month: str) -> bool:
    """Return whether a file is that of the month, or of a year and without a bar of the month."""
    return file.part == month or (not _is_month(file) and file.last < month)
