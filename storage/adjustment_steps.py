"""Adjustment of one stored series as steps in time: what SQL joins instead of computing it a second time.

Factors of corporate actions are constant between ex-dates, so a series of a million minutes has a few dozen steps.
They come from `gpt_trader.adjustments.factors` alone: SQL and `Lake.bars` multiply by the very same numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from gpt_trader.adjustments import factors
from gpt_trader.bars import Floats, Times
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import BadBars
from gpt_trader.raw_bars import RawBars

#: What is needed to know a series' steps again: the hashes of its bars and of its actions, and its timeframe.
Key = tuple[str, str, str]

_KEPT: Final = 5000


@dataclass(frozen=True, eq=False)
class Steps:
    """Multipliers from `start` (k,) on, each until the next one.

    `price` (k,) is None where the stored factor adjusts the prices; `volume` (k,). `refusal` says why the series
    has no adjusted view (its actions contradict its prices), or is empty.
    """

    start: Times
    price: Floats | None
    volume: Floats
    refusal: str = ""


class KnownSteps:
    """The steps computed last in this process, by content. Safe to share among threads."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._steps: dict[Key, Steps] = {}
        self._lock = threading.Lock()

    def get(self, key: Key) -> Steps | None:
        """Return the steps if they are known."""
        return self._steps.get(key)

    def put(self, key: Key, steps: Steps) -> None:
        """Remember steps; the oldest are forgotten."""
        with self._lock:
            self._steps[key] = steps
            while len(self._steps) > self._kept:
                del self._steps[next(iter(self._steps))]


def steps_of(raw: RawBars, actions: CorporateActions, symbol: str, timeframe: str) -> Steps:
    """Return the steps of a series' view that is adjusted for all its actions."""
    try:
        by = factors(raw, actions, "all", timeframe=timeframe)
    except BadBars as error:
        return Steps(raw.time[:1], None, np.ones(1), f"{symbol}: {error.detail}")
    price, volume = np.broadcast_to(by.price, raw.time.shape), np.broadcast_to(by.volume, raw.time.shape)
    if (raw.factor != 1.0).any():
        first = _changes(volume)
        return Steps(raw.time[first], None, volume[first])
    first = _changes(price, volume)
    return Steps(raw.time[first], price[first], volume[first])


def table_of(series: Sequence[tuple[str, Steps]]) -> pa.Table:
    """Return the steps of several symbols as the table that the views join (`storage.lens.Lens`)."""
    counts = [len(steps.start) for _, steps in series]
    symbols = np.repeat(np.array([symbol for symbol, _ in series], object), counts)
    start = np.concatenate([steps.start for _, steps in series])
    price = np.concatenate(
        [np.full(len(steps.start), np.nan) if steps.price is None else steps.price for _, steps in series]
    )
    refusals = np.repeat(np.array([steps.refusal or None for _, steps in series], object), counts)
    return pa.table(
        {
            "symbol": pa.array(symbols.tolist(), pa.string()),
            "start": pa.array(start.astype("datetime64[us]").view(np.int64)).cast(pa.timestamp("us", "UTC")),
            "price": pa.array(price, mask=np.isnan(price)),
            "volume": pa.array(np.concatenate([steps.volume for _, steps in series])),
            "refusal": pa.array(refusals.tolist(), pa.string()),
        }
    )


def _changes(*columns: Floats) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return the first row and every row that differs from the one before it in one of the columns."""
    differs = np.logical_or.reduce([np.diff(column) != 0 for column in columns])
    return np.concatenate([[0], np.flatnonzero(differs) + 1]).astype(np.intp)
