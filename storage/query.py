"""SQL over the lake: an in-memory DuckDB that can read the files of one snapshot and nothing else.

Parquet is the truth, DuckDB a lens (`storage.lens` has the views): a connection lives as long as a query, holds no
file open for writing, and sees exactly the files that the manifest names. Beside the bars there are

- `series`: symbol, timeframe, source, rows, first, last; `instruments`: the facts of each
- `actions`: symbol, ex_date, split, dividend

What a query does not name is neither read nor verified, and not there: a snapshot may have years of minutes.

`query` runs in this process, for SQL of our own; a user's goes through `storage.query_process`. Never open
a connection before a process forks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

import duckdb
import pyarrow as pa

from gpt_trader.errors import Problem, Refused
from gpt_trader.instruments import TIMEFRAMES, Instrument
from storage.adjustment_steps import KnownSteps, Steps, steps_of, table_of
from storage.lake import Lake, Version
from storage.lens import Files, Lens, answer, opened
from storage.manifest import Entry, FileRef, Manifest

DEFAULT_LIMIT: Final = 10_000
DEFAULT_TIMEOUT_SECONDS: Final = 30.0

_known_steps: Final = KnownSteps()

#: Columns of `series` and `instruments` that are no text.
_TYPES: Final = {
    "rows": pa.int64(),
    "bars_a_year": pa.float64(),
    "session_minutes": pa.float64(),
    "fractional": pa.bool_(),
    "shortable": pa.bool_(),
    "edited": pa.list_(pa.string()),
}
_ACTIONS: Final = pa.schema(
    {"symbol": pa.string(), "ex_date": pa.date32(), "split": pa.float64(), "dividend": pa.float64()}
)


@contextmanager
def connect(lake: Lake, snapshot: Version = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection whose views show one snapshot; closed at the end.

    For SQL of our own: a user's goes through `query`, because what may be read here may be written over by COPY.
    Every file is checked against the manifest's sha256 first (CorruptLake). Raises NotFound or Refused for
    a snapshot that there is not.
    """
    with shown(lake, snapshot) as lens, opened(lens) as connection:
        yield connection


def query(
    lake: Lake,
    sql: str,
    *,
    snapshot: Version = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
) -> pa.Table:
    """Run one SELECT in this process and return at most `limit` rows; result and errors as `storage.lens.answer`.

    Raises CorruptLake where a file that the query needs is damaged.
    """
    if limit < 1:
        raise Refused.of(Problem("limit", limit, "must be at least 1"))
    with shown(lake, snapshot, sql) as lens:
        return answer(lens, sql, limit=limit, timeout=timeout)


@contextmanager
def shown(lake: Lake, snapshot: Version = None, sql: str | None = None) -> Iterator[Lens]:
    """Give what SQL may see of a snapshot, which collection leaves alone until the end of the block.

    With `sql` only the bars and actions that it names. Raises NotFound or Refused for a snapshot that there is not,
    CorruptLake for a file that is not what the manifest says.
    """
    with lake.pinned(snapshot) as found:
        version = found.id if found else None
        manifest, entries = lake.manifest(version), lake.entries(version)
        stored = tuple(t for t in TIMEFRAMES if any(e.timeframe == t for e in entries))
        named = _named(sql)
        tables = {
            "series": _series(entries),
            "instruments": _instruments(lake.instruments(version)),
            "actions": _actions(
                lake, manifest if named is None or "actions" in named else Manifest(), version
            ),
        }
        files = {}
        for timeframe in stored:
            if named is None or f"bars_{timeframe}" in named:
                here = [entry for entry in entries if entry.timeframe == timeframe]
                files[timeframe], steps = _bars(lake, manifest, here, version)
                if steps:
                    tables[f"steps_{timeframe}"] = table_of(steps)
        yield Lens(version or "", stored, files, tables)


def _named(sql: str | None) -> Collection[str] | None:
    """Return the words of a query, small; whoever finds his table among them may have meant something else by it."""
    return None if sql is None else set(re.findall(r"\w+", sql.lower()))


def _bars(
    lake: Lake, manifest: Manifest, entries: list[Entry], version: str | None
) -> tuple[Files, list[tuple[str, Steps]]]:
    """Return the verified files of series of one timeframe, and the steps of those that have actions."""
    as_stored: list[str] = []
    by_steps: list[str] = []
    steps: list[tuple[str, Steps]] = []
    for entry in entries:
        paths = [str(path) for path in lake.verified_paths([entry])]
        actions = manifest.actions.get(entry.symbol)
        if actions is None or not actions.rows:
            as_stored += paths
        else:
            by_steps += paths
            steps.append((entry.symbol, _steps(lake, entry, actions, version)))
    return Files(tuple(as_stored), tuple(by_steps)), steps


def _steps(lake: Lake, entry: Entry, file: FileRef, version: str | None) -> Steps:
    key = (entry.logical_hash, file.logical_hash, entry.timeframe)
    known = _known_steps.get(key)
    if known is None:
        raw = lake.raw_bars(entry.symbol, entry.timeframe, snapshot=version)
        actions = lake.actions(entry.symbol, snapshot=version)
        assert actions is not None  # the manifest names its file
        known = steps_of(raw, actions, entry.symbol, entry.timeframe)
        _known_steps.put(key, known)
    return known


def _series(entries: list[Entry]) -> pa.Table:
    columns = {
        name: pa.array([getattr(entry, name) for entry in entries], _TYPES.get(name, pa.string()))
        for name in ("symbol", "timeframe", "source", "rows", "first", "last")
    }
    for name in ("first", "last"):
        columns[name] = columns[name].cast(pa.timestamp("us", "UTC"))
    return pa.table(columns)


def _instruments(instruments: list[Instrument]) -> pa.Table:
    facts = [instrument.model_dump(mode="json") for instrument in instruments]
    return pa.table(
        {
            name: pa.array([fact[name] for fact in facts], _TYPES.get(name, pa.string()))
            for name in Instrument.model_fields
        }
    )


def _actions(lake: Lake, manifest: Manifest, version: str | None) -> pa.Table:
    tables = []
    for symbol in sorted(s for s, file in manifest.actions.items() if file.rows):
        found = lake.actions(symbol, snapshot=version)
        assert found is not None  # the manifest names its file
        days = pa.array(found.ex_date.astype("datetime64[D]").astype("int32")).cast(pa.date32())
        columns = [pa.array([symbol] * len(found)), days, pa.array(found.split), pa.array(found.dividend)]
        tables.append(pa.table(columns, schema=_ACTIONS))
    return pa.concat_tables([_ACTIONS.empty_table(), *tables])
