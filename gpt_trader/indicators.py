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
from random import Random
from threading import Lock
from typing import Final, TypeVar, cast

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gpt_trader.bars import Flags, Floats

#: Differences below this fraction are rounding, not information (a flat price is not a crossover).
ROUNDING: Final = 1e-12


_Indicator = TypeVar("_Indicator", bound=Callable[..., Floats])

#: So many bytes of indicators are remembered at most: some 600 of 5,000 bars, 30 of 100,000.
REMEMBERED: Final = 24_000_000


_Key = tuple[Callable[..., Floats], int, int]


class Memory:
    """What was computed already, by indicator, array and period: at most `limit` bytes.

    Where they do not suffice, what goes is drawn: a grid goes round its values, and what it used last is what it needs
    last. It holds the arrays too that it knows, so that the identity of one is not given to another. For any number of
    threads at once; two that miss the same indicator both compute it.
    """

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit, self.bytes = limit, 0
        self._known: dict[_Key, tuple[Floats, Floats]] = {}
        self._keys: list[_Key] = []
        self._lock = Lock()
        self._random = Random(0)  # noqa: S311 - nothing secret

    def of(self, indicator: Callable[..., Floats], values: Floats, period: int) -> Floats:
        """Return `indicator(values, period)`, read-only and others' as well."""
        key = (indicator, id(values), period)
        known = self._known.get(key)
        if known is not None:
            return known[1]
        found = indicator(values, period)
        found.flags.writeable = False
        with self._lock:
            if key not in self._known:
                self._make_room(found.nbytes)
                self._known[key] = values, found
                self._keys.append(key)
                self.bytes += found.nbytes
        return found

    def _make_room(self, needed: int) -> None:
        while self._keys and self.bytes + needed > self._limit:
            at = self._random.randrange(len(self._keys))
            self._keys[at], self._keys[-1] = self._keys[-1], self._keys[at]
            self.bytes -= self._known.pop(self._keys.pop())[1].nbytes


_memory: ContextVar[Memory | None] = ContextVar("indicators computed already", default=None)


@contextmanager
def remembering() -> Iterator[None]:
    """Compute each indicator of an array once within the block: variants of a sweep share most of them.

    A block within another one, or in a context copied from it, shares what that one remembers.
    """
    token = _memory.set(_memory.get() or Memory())
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
        return memory.of(indicator, values, period).copy()  # the caller's own, as ever

    return cast("_Indicator", remembered)


def shared(indicator: Callable[..., Floats], values: Floats, period: int) -> Floats:
    """Return `indicator(values, period)` without a copy for the caller, who must not write to it."""
    memory = _memory.get()
    if memory is None or values.flags.writeable:
        return indicator(values, period)
    return memory.of(indicator.__wrapped__, values, period)  # type: ignore[attr-defined]  # `_once` wraps them


def _window_sum(values: Floats, period: int) -> Floats:
    """Return sums of every full window, shape (n − period + 1,), added oldest to newest."""
    from gpt_trader.rolling import window_sums

    total = np.empty(len(values) - period + 1)
    window_sums(np.ascontiguousarray(values, np.float64), period, total)
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
    """Return value / value `period` ≥ 1 bars before − 1, shape (n,); NaN for the first `period` values."""
    result = np.full(len(values), np.nan)
    if len(values) > period:
        result[period:] = values[period:] / values[:-period] - 1.0
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
