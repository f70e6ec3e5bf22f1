"""Bars of the lake as a document a client can cache: chosen, encoded once, named by an entity tag."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from api.errors import missing
from api.series import CSV, csv_bytes
from gpt_trader.bars import Bars
from gpt_trader.corporate_actions import Adjustment
from gpt_trader.errors import UnknownName
from storage.lake import Lake

JSON: Final = "application/json"
ARROW: Final = "application/vnd.apache.arrow.stream"
MEDIA_TYPES: Final = (JSON, CSV, ARROW)
COLUMNS: Final = ("open", "high", "low", "close", "volume")

_JSON_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


@dataclass(frozen=True)
class Found:
    """The snapshot that holds a series, and the hashes of all that its bars depend on: their own and the actions'."""

    snapshot_id: str
    content: str


@dataclass(frozen=True)
class BarsQuery:
    """Which bars: the newest `limit` from `start` to `end` (inclusive days, UTC) of the snapshot `as_of`.

    With `after` the oldest `limit` of those that open later than it.
    """

    symbol: str
    timeframe: str
    start: date | None
    end: date | None
    as_of: str | None
    limit: int
    adjust: Adjustment
    after: datetime | None = None

    def tag(self, found: Found, media_type: str) -> str:
        """Return the entity tag, a hash of what the bars depend on; weak, as the snapshot's id may differ."""
        what = (found.content, self.start, self.end, self.after, self.limit, self.adjust, media_type)
        named = repr((self.symbol, self.timeframe, *map(str, what)))
        return f'W/"{hashlib.sha256(named.encode()).hexdigest()[:32]}"'


def find(lake: Lake, query: BarsQuery) -> Found:
    """Return where the bars are.

    Raises:
        NotFound: no such symbol, with the nearest one, or no such snapshot.
        UnknownName: the symbol is not stored in this timeframe.
    """
    snapshot = lake.snapshot(query.as_of)
    snapshot_id = snapshot.id if snapshot else ""
    manifest = lake.manifest(snapshot_id or None)
    try:
        lake.instrument(query.symbol, snapshot_id or None)
    except UnknownName as unknown:
        raise missing(unknown) from None
    entry = lake.entry(query.symbol, query.timeframe, snapshot=snapshot_id or None)
    actions = manifest.actions.get(entry.symbol)
    return Found(snapshot_id, entry.logical_hash + (actions.logical_hash if actions else ""))


def encode(lake: Lake, query: BarsQuery, found: Found, media_type: str) -> bytes:
    """Read the bars and return the document in this media type; errors as `Lake.bars`."""
    stored = lake.bars(query.symbol, query.timeframe, snapshot=found.snapshot_id, adjust=query.adjust)
    first, stop = stored.between(query.start, query.end)
    if query.after is not None:
        local, zone = query.after.replace(tzinfo=None), query.after.utcoffset() or timedelta()
        after = np.datetime64(local, "us") - np.timedelta64(zone)  # Python's own ends with the year 9999
        first = max(first, int(np.searchsorted(stored.time, after, "right")))
    inside = stored[first : max(first, stop)]
    surplus = max(len(inside) - query.limit, 0)
    chosen = inside[surplus:] if query.after is None else inside[: len(inside) - surplus]
    if media_type == JSON:
        return _json(chosen, query, found.snapshot_id, truncated=len(chosen) < len(inside))
    table = pa.table({"time": pa.array(chosen.time, pa.timestamp("us", "UTC")), **_columns(chosen)})
    return csv_bytes(table) if media_type == CSV else _arrow(table)


def _columns(bars: Bars) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    return {name: np.ascontiguousarray(getattr(bars, name)) for name in COLUMNS}


def _json(bars: Bars, query: BarsQuery, snapshot_id: str, *, truncated: bool) -> bytes:
    document = {
        "symbol": query.symbol,
        "timeframe": query.timeframe,
        "snapshot_id": snapshot_id,
        "adjust": query.adjust,
        "bars": len(bars),
        "truncated": truncated,
        "columns": {"time": np.ascontiguousarray(bars.time), **_columns(bars)},
    }
    return orjson.dumps(document, option=_JSON_OPTIONS)


def _arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content
