"""Which bars are drawn when there are more than a screen and a page can hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpt_trader.bars import Floats

Indices = NDArray[np.int64]

#: The most points of a series that a page carries.
DISPLAY_LIMIT = 20_000


def display_indices(series: Sequence[Floats], limit: int = DISPLAY_LIMIT) -> Indices:
    """Return which bars to draw: all, or at most `limit`, ascending, first and last included.

    Preserves extremes: the bars are cut into equal runs, and of each run the lowest and the highest bar of
    *every* series is kept, so no peak or valley is lost by more than a run's width. Each run is filled up to
    the same number of bars, evenly spread, so that the axis stays true to time.

    Each of `series` is (n,) and finite. For display only: metrics are never computed from it.

    Raises:
        ValueError: `limit` is too small for the number of series.
    """
    length = len(series[0])
    if length <= limit:
        return np.arange(length, dtype=np.int64)
    kept = 2 * len(series) + 1
    runs = limit // kept
    if runs < 1:
        raise ValueError(f"limit {limit} is less than {kept}, the least for {len(series)} series")
    width = -(-length // runs)
    chosen = np.zeros((runs, width), dtype=np.bool_)
    for values in series:
        np.put_along_axis(chosen, _runs(values, runs, width, np.inf).argmin(axis=1)[:, None], True, axis=1)
        np.put_along_axis(chosen, _runs(values, runs, width, -np.inf).argmax(axis=1)[:, None], True, axis=1)
    chosen.flat[[0, length - 1]] = True
    # The fractional parts of multiples of the golden ratio: any number of the smallest is spread evenly.
    spread = (np.arange(width) * 0.6180339887498949) % 1.0
    rank = np.where(chosen, -1.0, spread)
    picked = np.argpartition(rank, kept - 1, axis=1)[:, :kept] + np.arange(runs)[:, None] * width
    ascending = np.sort(picked, axis=None)
    return ascending[ascending < length].astype(np.int64)


def _runs(values: Floats, runs: int, width: int, padding: float) -> Floats:
    padded = np.full(runs * width, padding)
    padded[: len(values)] = values
    return padded.reshape(runs, width)
