"""One column of many series as a matrix, time × symbol: what an optimizer computes on.

Prices are those of `Lake.bars` in the same view (`gpt_trader.adjustments.factors`), bit for bit. A matrix is kept in
a cache under the hash of all that it depends on, so it is never old: other bars have another key.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import gpt_trader
from gpt_trader.adjustments import factors
from gpt_trader.bars import Floats, Times
from gpt_trader.corporate_actions import Adjustment
from gpt_trader.errors import Conflict, CorruptLake, Problem, Refused, UnknownName
from gpt_trader.raw_bars import RawBars
from storage.array_cache import ArrayCache
from storage.lake import Lake, Version
from storage.manifest import Entry, FileRef, Manifest

Column = Literal["open", "high", "low", "close", "volume"]

#: Raised when the files of the cache or the way to their numbers change.
_LAYOUT: Final = 1
_ARRAYS: Final = ("time", "values")


@dataclass(frozen=True, eq=False)
class Matrix:
    """One column of several series over the union of their bar times.

    `time` (n,) is datetime64[us], UTC, strictly increasing; `values` (n, m) is float64 in Fortran order (a symbol's
    column is contiguous), NaN where a symbol has no bar; `symbols` names the m columns. Arrays are read-only.
    """

    symbols: tuple[str, ...]
    time: Times
    values: Floats


@dataclass(frozen=True)
class _View:
    """What is asked of every series."""

    timeframe: str
    column: Column
    start: date | None
    end: date | None
    adjust: Adjustment
    known_at: date | None


def matrix(
    lake: Lake,
    symbols: Sequence[str],
    timeframe: str = "1d",
    column: Column = "close",
    *,
    start: date | None = None,
    end: date | None = None,
    adjust: Adjustment = "all",
    known_at: date | None = None,
    snapshot: Version = None,
    cache: ArrayCache | None = None,
) -> Matrix:
    """Return one column of several series, from the cache if it is there.

    `start` and `end` are days (UTC), inclusive; `adjust` and `known_at` as `Lake.bars`.
    Raises Refused (no symbol, one twice, a view that cannot be computed), UnknownName (a symbol, timeframe or column
    that there is not), NotFound (no such snapshot), CorruptLake. A cache that cannot be written is no error.
    """
    if column not in get_args(Column):
        raise UnknownName.among("column", column, get_args(Column))
    view = _View(timeframe, column, start, end, adjust, known_at)
    with lake.pinned(snapshot) as found:
        version = found.id if found else None
        manifest = lake.manifest(version)
        entries = [_entry(lake, manifest, symbol, timeframe, version) for symbol in symbols]
        names = tuple(entry.symbol for entry in entries)
        if not names or len(set(names)) < len(names):
            raise Refused.of(Problem("symbols", ", ".join(symbols), "must be at least one, each once"))
        key = _key(manifest, entries, view)
        kept = cache.get(key, _ARRAYS) if cache else None
        if kept is not None:
            return Matrix(names, kept[0].view("datetime64[us]"), kept[1])
        time, values = _joined(_series(lake, manifest, entries, view, version))
    if cache is not None:
        with suppress(OSError, Conflict):  # it costs the next reader time, and nobody a number
            cache.put(key, {"time": time.view(np.int64), "values": values})
    time.flags.writeable = values.flags.writeable = False
    return Matrix(names, time, values)


def _entry(lake: Lake, manifest: Manifest, symbol: str, timeframe: str, version: str | None) -> Entry:
    return manifest.entries.get((symbol, timeframe)) or lake.entry(symbol, timeframe, snapshot=version)


def _key(manifest: Manifest, entries: Sequence[Entry], view: _View) -> str:
    """Return the hash of all that the matrix depends on: bars, actions, the view, and the code's version."""
    digest = hashlib.sha256(f"{_LAYOUT} {gpt_trader.__version__} {view!r}\n".encode())
    for entry in entries:
        actions = manifest.actions.get(entry.symbol)
        digest.update(
            f"{entry.symbol} {entry.logical_hash} {actions.logical_hash if actions else None}\n".encode()
        )
    return digest.hexdigest()[:40]


def _series(
    lake: Lake, manifest: Manifest, entries: Sequence[Entry], view: _View, version: str | None
) -> list[tuple[Times, Floats]]:
    """Return time and value of each series, read side by side: hashing and unpacking leave the interpreter's lock."""

    def one(entry: Entry) -> tuple[Times, Floats]:
        return _one(lake, entry, manifest.actions.get(entry.symbol), view, version)

    if len(entries) == 1:
        return [one(entries[0])]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as threads:
        return list(threads.map(one, entries))


def _one(
    lake: Lake, entry: Entry, file: FileRef | None, view: _View, version: str | None
) -> tuple[Times, Floats]:
    has_actions = file is not None and file.rows > 0
    names = {view.column, "factor", *(["close"] if has_actions else [])}
    columns = _read(lake, entry, sorted(names), version)
    time, price = columns["time"].view("datetime64[us]"), columns[view.column]
    actions = None if file is None else lake.actions(entry.symbol, snapshot=version)
    # Of a price `factors` looks at the close alone, and at that only where there are dividends.
    close = columns.get("close", price)
    raw = RawBars(time, close, close, close, close, close, columns["factor"])
    by = factors(raw, actions, view.adjust, view.known_at, timeframe=entry.timeframe)
    values = price * (by.volume if view.column == "volume" else by.price)
    if view.start is None and view.end is None:
        return time, values
    days = time.astype("datetime64[D]")
    first = np.searchsorted(days, np.datetime64(view.start, "D"), "left") if view.start else 0
    stop = np.searchsorted(days, np.datetime64(view.end, "D"), "right") if view.end else len(days)
    return time[first:stop], values[first:stop]


def _read(
    lake: Lake, entry: Entry, names: Sequence[str], version: str | None
) -> dict[str, NDArray[np.float64]]:
    """Return some columns of a series and its times (as int64 under `time`), from files whose sha256 is right."""
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in ("time", *names)}
    for file in entry.files:
        try:
            content = (lake.root / file.path).read_bytes()
        except OSError:
            content = b""
        if hashlib.sha256(content).hexdigest() != file.sha256:
            lake.raw_bars(
                entry.symbol, entry.timeframe, snapshot=version
            )  # says what is wrong, and what to do
            raise CorruptLake(f"{lake.root / file.path} changed while it was read: try again")
        with pq.ParquetFile(pa.BufferReader(content)) as parquet:
            table = parquet.read(columns=["time", *names], use_threads=False)
        for name, found in parts.items():
            kind = np.int64 if name == "time" else np.float64
            found += [_numpy(chunk, kind) for chunk in table.column(name).chunks]
    return {name: found[0] if len(found) == 1 else np.concatenate(found) for name, found in parts.items()}


def _numpy(chunk: pa.Array, kind: type[np.generic]) -> NDArray[np.float64]:
    """Return a chunk without nulls as numpy, without a copy."""
    start = chunk.offset * np.dtype(kind).itemsize
    found: NDArray[np.float64] = np.frombuffer(chunk.buffers()[1], kind, count=len(chunk), offset=start)
    return found


def _joined(series: Sequence[tuple[Times, Floats]]) -> tuple[Times, Floats]:
    """Return the union of the times (n,) and the values at them (n, m)."""
    union = _union([time for time, _ in series])
    values = np.full((len(series), len(union)), np.nan)
    for row, (time, column) in zip(values, series, strict=True):
        first = _run(union, time)
        if first is None:
            row[np.searchsorted(union, time)] = column
        else:
            row[first : first + len(time)] = column
    return union, values.T


def _union(times: Sequence[Times]) -> Times:
    """Return the sorted union; where one holds all the others (one calendar) nothing is sorted."""
    union = max(times, key=len)
    extra = []
    for time in times:
        if _run(union, time) is None:
            at = np.minimum(np.searchsorted(union, time), len(union) - 1)
            missing = time[union[at] != time]
            if len(missing):
                extra.append(missing)
    if extra:
        return np.unique(np.concatenate([union, *extra]))
    return union.copy()  # what was read may be a read-only view of a file's buffer


def _run(union: Times, time: Times) -> int | None:
    """Return where in the union the times stand as one run, None where they do not."""
    if not len(time):
        return 0
    first = int(np.searchsorted(union, time[0]))
    return first if np.array_equal(union[first : first + len(time)], time) else None
