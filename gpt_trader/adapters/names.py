"""The names of sources, for whoever checks one without loading numpy or a vendor's library."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

#: Every source, the default first. `ccxt` is followed by a venue: `ccxt:kraken`.
SOURCES: Final = ("sample", "csv", "yahoo", "alpaca", "ccxt", "synthetic")


def source_name(value: str) -> str:
    """Return the name of a source; raise ValueError that lists them and says the nearest (a venue is not checked)."""
    family, _, venue = value.partition(":")
    if family == "ccxt" and not venue:
        raise ValueError("source ccxt needs a venue, e.g. ccxt:kraken")
    if family in SOURCES and (family == "ccxt" or not venue):
        return value
    near = get_close_matches(family.lower(), SOURCES, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"{value[:80]!r} is no source; there are sample, csv, yahoo, alpaca, ccxt:VENUE, synthetic{hint}"
    )
