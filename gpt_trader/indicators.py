"""Indicators over one array of prices. Each value depends on its own window alone.

Running sums (TA-Lib, pandas) carry rounding from the array's first value to its last, so the same bar gets
another value when history starts elsewhere. Here the order of additions is fixed by the window: a session that
warms up on 200 bars and a backtest that saw 20 years compute the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Final, TypeVar, cast

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gpt_trader.bars import Flags, Floats

#: Differences below this fraction are rounding, not information (a flat price is not a crossover).
ROUNDING: Final = 1e-12


_Indicator = TypeVar("_Indicator", bound=Callable[..., Floats])

#: What was computed already, by indicator, array and period, while somebody remembers; with the array, so that its
#: identity is not given to another one.
_Memory = dict[tuple[str, int, int], tuple[Floats, Floats]]
_memory: ContextVar[_Memory | None] = ContextVar("indicators computed already", default=None)


@contextmanager
def remembering() -> Iterator[None]:
    """Compute each indicator of an array once within the block: variants of a sweep share most of them."""
    token = _memory.set({})
    try:
        yield
    finally:
        _memory.reset(token)


def _once(indicator: _Indicator) -> _Indicator:
    @wraps(indicator)
    def remembered(values: Floats, period: int = 1) -> Floats:
        memory = _memory.get()
        if memory is None or values.flags.writeable:  # what may change is not what was remembered
            return indicator(values, period)
        key = (indicator.__name__, id(values), period)
        if key not in memory:
            memory[key] = values, indicator(values, period)
        return memory[key][1].copy()  # the caller's own, as ever

    return cast("_Indicator", remembered)


def _window_sum(values: Floats, period: int) -> Floats:
    """Return sums of every full window, shape (n − period + 1,), added oldest to newest."""
    count = len(values) - period + 1
    total = values[:count].astype(np.float64, copy=True)
    for offset in range(1, period):
        total += values[offset : offset + count]
    return total


@_once
def sma(values: Floats, period: int) -> Floats:
    """Return the simple moving average, shape (n,); NaN for the first `period` − 1 values."""
    result = np.full(len(values), np.nan)
    if len(values) >= period:
        result[period - 1 :] = _window_sum(values, period) / period
    return result


@_once
def rolling_std(values: Floats, period: int) -> Floats:
    """Return the sample standard deviation (n − 1) over `period` ≥ 2 values, shape (n,); NaN before.

    Two passes a window (mean first), so a large level does not cancel a small deviation away.
    """
    result = np.full(len(values), np.nan)
    count = len(values) - period + 1
    if count <= 0:
        return result
    mean = _window_sum(values, period) / period
    total = np.zeros(count)
    for offset in range(period):
        total += (values[offset : offset + count] - mean) ** 2
    result[period - 1 :] = np.sqrt(total / (period - 1))
    return result


@_once
def z_score(values: Floats, period: int) -> Floats:
    """Return (value − mean) / standard deviation (n − 1) over `period`, shape (n,).

    0 where the deviation is 0 (or mere rounding of a constant price), NaN for the first `period` − 1 values.
    """
    mean, deviation = sma(values, period), rolling_std(values, period)
    flat = deviation <= ROUNDING * np.abs(mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flat, 0.0, (values - mean) / deviation)


@_once
def change(values: Floats, period: int = 1) -> Floats:
    """Return value / value `period` bars before − 1, shape (n,); NaN for the first `period` values."""
    result = np.full(len(values), np.nan)
    result[period:] = values[period:] / values[: len(values) - period] - 1.0
    return result


@_once
def highest_before(values: Floats, period: int) -> Floats:
    """Return the maximum of the `period` values before each (itself left out), shape (n,); NaN before."""
    result = np.full(len(values), np.nan)
    if len(values) > period:
        result[period:] = sliding_window_view(values[:-1], period).max(axis=1)
    return result


@_once
def lowest_before(values: Floats, period: int) -> Floats:
    """Return the minimum of the `period` values before each (itself left out), shape (n,); NaN before."""
    return -highest_before(-values, period)


def exceeds(left: Floats, right: Floats) -> Flags:
    """Return where `left` > `right` by more than rounding (relative 1e-12); False where either is NaN."""
    return left - right > ROUNDING * np.abs(right)
