"""The names of sources, for whoever checks one without loading numpy or a vendor's library."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

#: Every source, the default first. `ccxt` is followed by a venue: `ccxt:kraken`.
SOURCES: Final = ("sample", "csv", "yahoo", "alpaca", "ccxt", "synthetic")

#: Those that have a live stream of bars.
STREAMING: Final = ("alpaca", "ccxt")

#: Where bars come from that were made here, of stored finer ones.
RESAMPLE: Final = "resample"


def source_name(value: str) -> str:
    """Return the name of a source, for a field of a pydantic model; whether a ccxt venue exists is not checked.

    Raises PydanticCustomError of the type `unknown_name`, which `gpt_trader.validation` tells as UnknownName.
    """
    family, _, venue = value.partition(":")
    if family in SOURCES and (family == "ccxt") == bool(venue):
        return value
    from pydantic_core import PydanticCustomError

    close = get_close_matches(family.lower(), SOURCES, n=1, cutoff=0.5)
    nearest = "ccxt:kraken" if family == "ccxt" else close[0] if close else None
    allowed = ", ".join("ccxt:VENUE" if name == "ccxt" else name for name in SOURCES)
    raise PydanticCustomError("unknown_name", "is no source", {"allowed": allowed, "nearest": nearest})
