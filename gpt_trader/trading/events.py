"""What a ledger is made of: events, each chained to the one before by its hash.

    opened    the request, the capital, what each strategy was warmed up with          once, first
    bars      one bar of each symbol that has one at this time: an input, as it was seen
    rebased   a symbol's earlier prices were scaled (split, dividend): units go the other way, value stays
    missed    a symbol's bar came after a later moment was traded: it is not traded, and strategies never see it
    command   somebody paused, resumed or stopped the session
    wanted    a leg's target changed at this bar's close
    skipped   an entry is left out, for want of money
    order     an order is intended: committed before it is sent
    cancel    a cancellation is intended
    accepted, ended, fill     what the broker reported
    status    the session's status changed, and why
    seen      the bar's closes are known now: to strategies, to sizing, to equity
    closed    a bar is done: cash and equity at its close
    finished  the session has ended

Amounts are decimal strings, prices of bars are doubles (JSON gives both back exactly), times UTC with `Z`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

#: The chain before its first event.
GENESIS: Final = hashlib.sha256(b"gpt-trader ledger 1").hexdigest()

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """One event; `key`, if any, is unique in its ledger for ever."""

    type: str
    data: Mapping[str, Any]
    key: str | None = None


class BarRow(NamedTuple):
    """One bar: prices, and volume in units."""

    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass(frozen=True, slots=True)
class Moment:
    """The bars that carry one time as their label (the open of each), by symbol."""

    time: str
    bars: Mapping[str, BarRow]

    def event(self) -> LedgerEvent:
        """Return it as the input that it is."""
        rows = {symbol: list(row) for symbol, row in self.bars.items()}
        return LedgerEvent("bars", {"time": self.time, "bars": rows}, key=f"bars:{self.time}")

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Moment:
        """Return the moment of a `bars` event."""
        return cls(data["time"], {symbol: BarRow(*row) for symbol, row in data["bars"].items()})


def stamp(time: np.datetime64) -> str:
    """Return a time as the ledger writes it: UTC ISO 8601 with `Z`, to the second or as fine as it is."""
    text = str(np.datetime_as_string(time, unit="us"))
    return f"{text.removesuffix('.000000')}Z"


def unstamp(text: str) -> np.datetime64:
    """Return the time that `stamp` wrote, or the manifest of the lake, which writes it the same way."""
    return np.datetime64(text.removesuffix("Z"), "us")


_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_AS_WRITTEN: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def chained(before: str, event: LedgerEvent) -> str:
    """Return the ledger's hash after this event: sha256 over the hash before it, its type and its content."""
    content = _CANONICAL.encode(event.data)
    return hashlib.sha256(f"{before}\n{event.type}\n{content}".encode()).hexdigest()


def document(event: LedgerEvent) -> bytes:
    """Return an event's content as JSON, its keys in order; raise ValueError for what is not finite."""
    try:
        content = orjson.dumps(event.data)
    except orjson.JSONEncodeError:  # an integer of more than 64 bits, half a surrogate pair
        return _AS_WRITTEN.encode(event.data).encode()
    if b"null" in content:  # it may be what orjson makes of a number that is not finite
        return _AS_WRITTEN.encode(event.data).encode()
    return content
