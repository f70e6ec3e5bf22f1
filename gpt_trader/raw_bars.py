"""What a source gives, and the inspection that stands between a source and the lake.

Refuse or repair, decided once for every source:

- **repaired and reported**: rows out of order are sorted; rows that repeat another row exactly are dropped.
  Either has one right answer, so nothing is guessed;
- **quarantined, each with its reason**: a row that is no bar (missing time, price not finite or ≤ 0, high or low
  that does not contain open and close, negative volume, …), and every row of a time for which several *different*
  bars were given: which one is right cannot be known;
- **refused** (BadBars): input of which no row is usable.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.bars import OHLC_TOLERANCE, Floats, Times
from gpt_trader.errors import BadBars
from gpt_trader.instruments import TIMEFRAMES

#: The float columns, in the order in which they are stored and hashed.
VALUES: Final = ("open", "high", "low", "close", "volume", "factor")

_EARLIEST: Final = np.datetime64("1900-01-01", "us")
_LATEST: Final = np.datetime64("2200-01-01", "us")
#: Below it floats lose digits, and with them high ≥ low.
_TINY: Final = np.finfo(np.float64).tiny


@dataclass(frozen=True, eq=False)
class RawBars:
    """Bars as their source printed them, with the factor that adjusts them.

    Shapes: every array is (n,). `time` is datetime64[us] in UTC, the open time of the bar (daily and weekly bars:
    the session's date at 00:00 UTC); the others are float64. Adjusted price = raw price × `factor`; the factor is
    1.0 where the source knows none. Nothing else is promised: `inspect` makes the rest of the bars contract true.
    """

    time: Times
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    factor: Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "time", np.ascontiguousarray(self.time, dtype="datetime64[us]"))
        for name in VALUES:
            array = np.ascontiguousarray(getattr(self, name), dtype=np.float64)
            if array.shape != self.time.shape or array.ndim != 1:
                raise ValueError(f"{name} has shape {array.shape}, time has {self.time.shape}")
            object.__setattr__(self, name, array)

    @classmethod
    def empty(cls) -> RawBars:
        """Return bars without a row."""
        none = np.empty(0)
        return cls(np.empty(0, "datetime64[us]"), none, none, none, none, none, none)

    @classmethod
    def joined(cls, *rows: RawBars, mapping: Callable[..., Iterable[Any]] = map) -> RawBars:
        """Return the rows of all, one after the other; of none it is none. `mapping` may be that of threads."""
        if not rows:
            return cls.empty()

        def column(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(each, name) for each in rows])

        return cls(*mapping(column, ("time", *VALUES)))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.time)

    def __getitem__(self, rows: slice | NDArray[np.bool_] | NDArray[np.intp]) -> RawBars:
        """Return the chosen rows (a view for a slice, a copy otherwise)."""
        return RawBars(self.time[rows], *(getattr(self, name)[rows] for name in VALUES))

    @property
    def logical_hash(self) -> str:
        """sha256 over the values as little-endian bytes: the same rows in any file have the same hash."""
        digest = hashlib.sha256(b"gpt-trader bars 1\n%d\n" % len(self))
        digest.update(self.time.astype("<M8[us]", copy=False).tobytes())
        for name in VALUES:
            # + 0.0 makes −0.0 a 0.0: equal values must hash alike.
            digest.update((getattr(self, name) + 0.0).astype("<f8", copy=False).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Quarantine:
    """Rows that are no bars: `rows` (k,), their places `row` in what the source gave (from 0), and why."""

    rows: RawBars
    row: NDArray[np.int64]
    reason: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.reason)

    def followed_by(self, later: Quarantine) -> Quarantine:
        """Return the rows of both."""
        if not len(later):
            return self
        return Quarantine(
            RawBars.joined(self.rows, later.rows),
            np.concatenate([self.row, later.row]),
            (*self.reason, *later.reason),
        )

    def counts(self) -> dict[str, int]:
        """Return how many rows each reason holds back, the commonest first."""
        return dict(Counter(self.reason).most_common())


@dataclass(frozen=True)
class Inspection:
    """What an inspection found: `clean` keeps the bars contract (adjusted and not), the rest is accounted for.

    `reordered` counts the rows that came before an older one, `repeated` those dropped as exact repetitions.
    """

    clean: RawBars
    quarantined: Quarantine
    reordered: int = 0
    repeated: int = 0

    def followed_by(self, later: Inspection) -> Inspection:
        """Return two inspections of one series as one; where both have a time, the later row stays."""
        kept = self.clean
        if len(kept) and len(later.clean) and later.clean.time[0] <= kept.time[-1]:
            kept = kept[~np.isin(kept.time, later.clean.time)]
        clean = RawBars.joined(kept, later.clean)
        if len(kept) and len(later.clean) and later.clean.time[0] < kept.time[-1]:
            clean = clean[np.argsort(clean.time, kind="stable")]
        return Inspection(
            clean,
            self.quarantined.followed_by(later.quarantined),
            self.reordered + later.reordered,
            self.repeated + later.repeated,
        )

    def remarks(self) -> list[str]:
        """Return what a user should know, a sentence each; nothing if the input was in order."""
        said = []
        if self.reordered:
            said.append(f"{self.reordered} rows were out of order: sorted by time")
        if self.repeated:
            said.append(f"{self.repeated} rows repeated another row exactly: dropped")
        said.extend(f"{n} rows quarantined: {why}" for why, n in self.quarantined.counts().items())
        return said


def inspect(raw: RawBars, timeframe: str) -> Inspection:
    """Return the rows that keep the bars contract, sorted, and those that do not, with reasons.

    Raises BadBars if there are rows and none of them is usable. No rows in, no rows out.
    """
    fault, reasons = _faults(raw, timeframe)
    good = np.flatnonzero(fault == 0)
    times = raw.time[good]
    reordered = int(np.count_nonzero(times[1:] < times[:-1]))
    if reordered:
        good = good[np.argsort(times, kind="stable")]
    rows = raw if len(good) == len(raw) and not reordered else raw[good]
    keep, conflicting = _repetitions(rows)
    if conflicting.any():
        reasons = (*reasons, "several different bars have this time")
        fault[good[conflicting]] = len(reasons)
    clean = rows if keep.all() else rows[keep]
    bad = np.flatnonzero(fault)
    if len(raw) and not len(clean):
        raise BadBars(_nothing_usable(raw, int(bad[0]), reasons, fault))
    return Inspection(
        clean,
        Quarantine(raw[bad], bad.astype(np.int64), tuple(reasons[f - 1] for f in fault[bad])),
        reordered,
        len(rows) - len(clean) - int(np.count_nonzero(conflicting)),
    )


def _faults(raw: RawBars, timeframe: str) -> tuple[NDArray[np.int8], tuple[str, ...]]:
    """Return for each row the number (from 1) of the first reason that holds it back, 0 for a good row."""
    top = np.maximum(raw.open, raw.close)
    bottom = np.minimum(raw.open, raw.close)
    prices = (raw.open, raw.high, raw.low, raw.close)
    with np.errstate(over="ignore", invalid="ignore"):
        largest, smallest = np.maximum(raw.high, top) * raw.factor, np.minimum(raw.low, bottom) * raw.factor
        outside = (raw.high < top * (1 - OHLC_TOLERANCE)) | (raw.low > bottom * (1 + OHLC_TOLERANCE))
    checks = [
        ("time is missing", np.isnat(raw.time)),
        ("time is outside 1900 to 2199 (is its unit right?)", (raw.time < _EARLIEST) | (raw.time >= _LATEST)),
        ("price is not a finite number", ~np.logical_and.reduce([np.isfinite(p) for p in prices])),
        ("price is not above zero", np.logical_or.reduce([p <= 0 for p in prices])),
        ("high or low does not contain open and close", outside),
        ("volume is not a finite number", ~np.isfinite(raw.volume)),
        ("volume is negative", raw.volume < 0),
        ("adjustment factor is not a finite number above zero", ~np.isfinite(raw.factor) | (raw.factor <= 0)),
        ("adjusted price is not a finite number above zero", ~np.isfinite(largest) | ~(smallest >= _TINY)),
    ]
    if TIMEFRAMES[timeframe] >= timedelta(days=1):
        off_midnight = raw.time != raw.time.astype("datetime64[D]")
        checks.append((f"label of a {timeframe} bar is not a date at 00:00 UTC", off_midnight))
    fault = np.zeros(len(raw), np.int8)
    for number, (_, mask) in enumerate(checks, start=1):
        fault[mask & (fault == 0)] = number
    return fault, tuple(reason for reason, _ in checks)


def _repetitions(rows: RawBars) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which of the sorted rows to keep, and which belong to a time with several different bars."""
    conflicting = np.zeros(len(rows), np.bool_)
    again = np.zeros(len(rows), np.bool_)
    again[1:] = rows.time[1:] == rows.time[:-1]
    if not again.any():
        return ~again, conflicting
    differs = np.logical_or.reduce([np.diff(getattr(rows, name), prepend=np.nan) != 0 for name in VALUES])
    group = np.cumsum(~again)
    conflicting = np.isin(group, group[again & differs])
    return ~(again | conflicting), conflicting


def _nothing_usable(raw: RawBars, first: int, reasons: tuple[str, ...], fault: NDArray[np.int8]) -> str:
    counted = Counter(reasons[f - 1] for f in fault if f).most_common()
    row = ", ".join(f"{name} {getattr(raw, name)[first]}" for name in ("time", *VALUES))
    return f"none of the {len(raw)} rows is usable: " + "; ".join(
        [*(f"{n} × {why}" for why, n in counted), f"the first is row {first + 1} ({row})"]
    )
