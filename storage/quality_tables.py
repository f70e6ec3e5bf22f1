"""The tables that a check queries: series, bars and expected labels, in a DuckDB of its own that touches no file.

Times are BIGINT, microseconds since 1970 in UTC. Rows are numbered through (`n`) in order of series and time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gpt_trader.bar_labels import Grid, Placement, grid, placed
from gpt_trader.bars import Floats, Times, instant
from gpt_trader.calendars import Anchor, Calendar, calendar, complete
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import UnknownName
from gpt_trader.instruments import TIMEFRAMES, Instrument
from gpt_trader.quality import Policy
from gpt_trader.raw_bars import VALUES, RawBars

_SETTINGS: Final = (
    "SET threads = 1",  # and the rows of a scan keep their order
    "SET memory_limit = '2GB'",
    "SET temp_directory = ''",
    "SET python_enable_replacements = false",
    "SET autoload_known_extensions = false",
    "SET autoinstall_known_extensions = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
#: So far beyond a series its grid reaches: farther than the longest holidays.
_MARGIN: Final = timedelta(days=15)


@dataclass(frozen=True, eq=False)
class CheckedSeries:
    """One series to be checked: raw bars (n,), oldest first, every time known.

    `actions` are its splits and dividends, None where nobody knows of such; `revisions` are older values of bars that
    were fetched again, for whatever times there are some.
    """

    instrument: Instrument
    timeframe: str
    bars: RawBars
    actions: CorporateActions | None = None
    revisions: RawBars | None = None

    @property
    def symbol(self) -> str:
        """The instrument's id."""
        return self.instrument.symbol


@dataclass(frozen=True, eq=False)
class Prepared:
    """A series with what the calendar says of its times; `not_over` are the bars that are not over yet (n,)."""

    series: CheckedSeries
    placement: Placement | None
    not_over: NDArray[np.bool_]
    remarks: tuple[str, ...] = ()


class Grids:
    """The grids that series share: made once for each calendar, timeframe and way to count, for the days needed."""

    def __init__(self, every: Iterable[CheckedSeries]) -> None:
        self._edges: dict[tuple[str | None, str], list[date]] = {}
        self._made: dict[tuple[str | None, str, Anchor], Grid] = {}
        for series in every:
            if len(series.bars):
                days = series.bars.time[[0, -1]].astype("datetime64[D]").tolist()
                self._edges.setdefault((series.instrument.calendar, series.timeframe), []).extend(days)

    def of(self, series: CheckedSeries, found: Calendar, anchor: Anchor) -> Grid:
        """Return the grid of a series of the given ones, and of its calendar."""
        key = (series.instrument.calendar, series.timeframe)
        if (*key, anchor) not in self._made:
            days = self._edges[key]
            self._made[*key, anchor] = grid(
                found, series.timeframe, min(days) - _MARGIN, max(days) + _MARGIN, anchor
            )
        return self._made[*key, anchor]


def prepared(series: CheckedSeries, grids: Grids, now: datetime) -> Prepared:
    """Hold the times of a series against its calendar."""
    name = series.instrument.calendar
    found, remarks = None, []
    try:
        found = calendar(name) if name else None
    except UnknownName:
        remarks.append(f"There is no calendar {name!r}: gaps, sessions and time zone were not judged.")
    if not name:
        remarks.append("The instrument has no calendar: gaps, sessions and time zone were not judged.")
    placement = None
    if found is not None and len(series.bars):
        placement = placed(series.bars.time, series.timeframe, lambda anchor: grids.of(series, found, anchor))
        unknown = np.count_nonzero(
            (placement.label < np.datetime64(found.first_day))
            | (placement.label >= np.datetime64(found.last_day + timedelta(days=1)))
        )
        if unknown:
            remarks.append(
                f"{unknown} bars lie outside what calendar {found.name} knows "
                f"({found.first_day} to {found.last_day}): they were not held against it."
            )
    label = series.bars.time if placement is None else placement.label
    # Only what is near the end can be open still: a week and a holiday is the longest that a bar lasts.
    near = label > instant(now) - np.timedelta64(10, "D")
    not_over = np.zeros(len(label), np.bool_)
    not_over[near] = ~complete(label[near], series.timeframe, found, now)
    return Prepared(series, placement, not_over, tuple(remarks))


@contextmanager
def connected(every: Sequence[Prepared], policy: Policy) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection with the tables `series`, `bars`, `revisions`, `labels` and `policy`; closed at the end."""
    with duckdb.connect(":memory:") as connection:
        for setting in _SETTINGS:
            connection.execute(setting)
        grids = list(
            {id(p.placement.grid): p.placement.grid for p in every if p.placement is not None}.values()
        )
        tables = {
            "series": _series(every, grids),
            "bars": _bars(every),
            "revisions": _revisions(every),
            "labels": _labels(grids),
            "policy": {name: np.array([value]) for name, value in policy if name != "rules"},
        }
        for name, columns in tables.items():
            connection.register(name, pa.table({c: pa.array(values) for c, values in columns.items()}))
        yield connection


def _series(every: Sequence[Prepared], grids: Sequence[Grid]) -> dict[str, Any]:
    place = {id(grid): number for number, grid in enumerate(grids)}
    placements = [p.placement for p in every]
    steps = [TIMEFRAMES[p.series.timeframe] for p in every]
    return {
        "s": np.arange(len(every), dtype=np.int32),
        "grid": pa.array([None if p is None else place[id(p.grid)] for p in placements], pa.int32()),
        "step": np.array([step // timedelta(microseconds=1) for step in steps], np.int64),
        "intraday": np.array([step < timedelta(days=1) for step in steps]),
        "first": np.array([_micros(p.label.min()) if p else 0 for p in placements], np.int64),
        "last": np.array([_micros(p.label.max()) if p else 0 for p in placements], np.int64),
    }


def _bars(every: Sequence[Prepared]) -> dict[str, NDArray[Any]]:
    bars = [p.series.bars for p in every]
    outside = [np.zeros(len(p.not_over), bool) if p.placement is None else p.placement.outside for p in every]
    off = [np.zeros(len(p.not_over), bool) if p.placement is None else p.placement.off for p in every]
    labels = [p.series.bars.time if p.placement is None else p.placement.label for p in every]
    number = _numbered(bars)
    return {
        "s": number,
        "n": np.arange(len(number)),
        "time": np.concatenate([b.time for b in bars]).astype(np.int64),
        "label": np.concatenate(labels).astype(np.int64),
        "outside": np.concatenate(outside),
        "off_grid": np.concatenate(off),
        "not_over": np.concatenate([p.not_over for p in every]),
        "explained": np.concatenate([_explained(p.series) for p in every]),
        **{name: np.concatenate([getattr(b, name) for b in bars]) for name in VALUES},
    }


def _explained(series: CheckedSeries) -> Floats:
    """Return what the step to each bar (n,) is adjusted by: the logarithm that makes the return a holder's."""
    bars, actions = series.bars, series.actions
    steps = np.zeros(len(bars))
    with np.errstate(all="ignore"):
        if (bars.factor != 1.0).any():
            steps[1:] = np.diff(np.log(bars.factor))
        elif actions is not None and len(actions):
            place = np.searchsorted(bars.time.astype("datetime64[D]"), actions.ex_date, "left")
            known = (place > 0) & (place < len(bars))
            place = place[known]
            paid = np.log1p(-actions.dividend[known] / bars.close[place - 1])
            np.add.at(steps, place, np.log(actions.split[known]) - np.where(np.isfinite(paid), paid, 0.0))
    return np.where(np.isfinite(steps), steps, 0.0)


def _revisions(every: Sequence[Prepared]) -> Mapping[str, NDArray[Any]]:
    revisions = [RawBars.empty() if p.series.revisions is None else p.series.revisions for p in every]
    return {
        "s": _numbered(revisions),
        "time": np.concatenate([r.time for r in revisions]).astype(np.int64),
        **{name: np.concatenate([getattr(r, name) for r in revisions]) for name in VALUES},
    }


def _labels(grids: Sequence[Grid]) -> Mapping[str, NDArray[Any]]:
    """Return the expected labels of every grid, numbered within it."""
    labels = [grid.labels for grid in grids] or [np.empty(0, "datetime64[us]")]
    return {
        "grid": np.repeat(np.arange(len(labels), dtype=np.int32), [len(part) for part in labels]),
        "i": np.concatenate([np.arange(len(part)) for part in labels]),
        "label": np.concatenate(labels).astype(np.int64),
    }


def _numbered(parts: Sequence[RawBars]) -> NDArray[np.int32]:
    return np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])


def _micros(time: np.datetime64) -> int:
    return int(time.astype("datetime64[us]").astype(np.int64))


def times(micros: Sequence[int]) -> Times:
    """Return BIGINT times of a table as datetime64[us]."""
    return np.array(micros, np.int64).astype("datetime64[us]")
