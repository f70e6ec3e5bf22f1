"""The market stream: what each commit of bars brought, in the event log, a channel a symbol.

A bar is told as its source printed it (raw, as traded): adjusted series are `GET /market/bars`. An event holds the new
bars of one series, at most `MOST_BARS` of them, the newest; `left_out` says how many older ones came with them, and
`previous` which bar was the last one before, so that a reader sees whether it knows everything in between.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from gpt_trader.errors import GptTraderError
from gpt_trader.instruments import TIMEFRAMES
from gpt_trader.raw_bars import RawBars
from gpt_trader.trading.events import unstamp
from storage.events import EventLog, NewEvent
from storage.lake import Lake
from storage.lake_files import bar_time
from storage.lake_writing import Arrival, Ingest
from storage.manifest import Manifest

#: Most bars that one event holds: a first ingest brings decades, and a stream tells what is new.
MOST_BARS: Final = 100

#: Where a commit as a whole is told.
SYSTEM_CHANNEL: Final = "system.events"

_PLAIN: Final = re.compile(r"[^A-Za-z0-9_-]")
_PRICES: Final = ("open", "high", "low", "close", "volume")

Outcomes = list[Ingest | GptTraderError]
Commit = Callable[[Sequence[Arrival]], Outcomes]


def channel_of_symbol(symbol: str) -> str:
    """Return the event log's channel of a symbol; what a channel's name cannot hold (`^`, `=`, `.`) is escaped."""
    return "market.stream." + _PLAIN.sub(lambda found: f":{ord(found[0]):02X}", symbol)


def publishing(lake: Lake, log: EventLog, lost: Callable[[str, Exception], None]) -> Commit:
    """Return `lake.upsert_many` that tells the log what it committed, after the commit.

    The bars stand whether or not they can be told: `lost` is called with the symbol and the error where the database
    does not answer. A process killed in between leaves bars untold; the next event's `previous` shows it.
    """

    def commit(arrivals: Sequence[Arrival]) -> Outcomes:
        before = lake.manifest()
        outcomes = lake.upsert_many(arrivals)
        publish(log, before, arrivals, outcomes, lost)
        return outcomes

    return commit


def publish(
    log: EventLog,
    before: Manifest,
    arrivals: Sequence[Arrival],
    outcomes: Outcomes,
    lost: Callable[[str, Exception], None],
) -> None:
    """Append what a commit brought: an event a series that changed, and one for the snapshot."""
    from sqlalchemy.exc import InterfaceError, OperationalError

    told: list[tuple[str, NewEvent]] = []
    for arrival, outcome in zip(arrivals, outcomes, strict=True):
        if isinstance(outcome, Ingest) and (outcome.added or outcome.restated):
            told.append((arrival.instrument.symbol, NewEvent("bars", _news(before, arrival, outcome))))
    if not told:
        return
    try:
        for symbol, event in told:
            log.append_many(channel_of_symbol(symbol), [event])
        log.append_many(SYSTEM_CHANNEL, [NewEvent("lake.committed", _summary([each for _, each in told]))])
    except (OperationalError, InterfaceError) as error:
        lost(symbol, error)


def rows_of(bars: RawBars) -> list[dict[str, Any]]:
    """Return bars as JSON-ready rows: `time` (UTC, the bar's open), raw open, high, low, close, and volume."""
    columns = [getattr(bars, name).tolist() for name in _PRICES]
    return [
        {"time": bar_time(time), **dict(zip(_PRICES, values, strict=True))}
        for time, *values in zip(bars.time, *columns, strict=True)
    ]


def newest(lake: Lake, symbol: str, count: int) -> dict[str, Any]:
    """Return the newest `count` bars of every stored series of a symbol, JSON-ready; none for one that is not stored.

    Raises CorruptLake where a file is damaged.
    """
    manifest = lake.manifest()
    stored = [timeframe for timeframe in TIMEFRAMES if (symbol, timeframe) in manifest.entries]
    series = [
        {"timeframe": timeframe, "bars": rows_of(lake.newest_bars(symbol, timeframe, count))}
        for timeframe in stored
    ]
    return {"symbol": symbol, "series": series}


def _news(before: Manifest, arrival: Arrival, outcome: Ingest) -> dict[str, Any]:
    entry = before.entries.get((outcome.symbol, outcome.timeframe))
    clean = arrival.found.clean
    new = clean
    if entry is not None and not arrival.replaces:
        last = unstamp(entry.last)
        new = clean[clean.time > last]
    return {
        "symbol": outcome.symbol,
        "timeframe": outcome.timeframe,
        "source": outcome.source,
        "snapshot_id": outcome.snapshot_id,
        "previous": entry.last if entry is not None and not arrival.replaces else None,
        "added": outcome.added,
        "restated": outcome.restated,
        "left_out": max(len(new) - MOST_BARS, 0),
        "bars": rows_of(new[-MOST_BARS:]),
    }


def _summary(events: Sequence[NewEvent]) -> dict[str, Any]:
    symbols = sorted({str(event.data["symbol"]) for event in events})
    return {
        "snapshot_id": events[0].data["snapshot_id"],
        "series": len(events),
        "added": sum(event.data["added"] for event in events),
        "restated": sum(event.data["restated"] for event in events),
        "symbols": symbols[:20],
        "more_symbols": max(len(symbols) - 20, 0),
    }
