"""Bars and instruments for tests of the lake and of sources: seeded, and right by the bars contract."""

from __future__ import annotations

import numpy as np

from gpt_trader.instruments import TIMEFRAMES, Instrument
from gpt_trader.raw_bars import VALUES, RawBars

AAPL = Instrument(symbol="AAPL", venue="XNAS", calendar="XNYS")
IBM = Instrument(symbol="IBM", venue="XNYS", calendar="XNYS")


def some_bars(n: int, *, timeframe: str = "1d", start: str = "2020-01-01", seed: int = 1) -> RawBars:
    """Return n bars without gaps, a random walk with volume and a factor below 1."""
    random = np.random.default_rng(seed)
    step = np.timedelta64(TIMEFRAMES[timeframe])
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, n)))
    open_ = close * np.exp(random.normal(0, 0.005, n))
    return RawBars(
        np.datetime64(start, "us") + np.arange(n) * step,
        open_,
        np.maximum(open_, close) * 1.01,
        np.minimum(open_, close) * 0.99,
        close,
        random.integers(0, 1_000_000, n).astype(float),
        np.full(n, 0.5),
    )


def changed(raw: RawBars, row: int, **values: float | str) -> RawBars:
    """Return the bars with some values of one row replaced."""
    columns = {name: getattr(raw, name).copy() for name in ("time", *VALUES)}
    for name, value in values.items():
        columns[name][row] = np.datetime64(value, "us") if name == "time" else value
    return RawBars(**columns)


def equal(one: RawBars, other: RawBars) -> bool:
    """Return whether both hold the same rows, bit for bit."""
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("time", *VALUES))


def exact_bars(n: int, *, timeframe: str = "1d", start: str = "2019-12-02", factor: float = 1.0) -> RawBars:
    """Return n bars without gaps whose values any machine computes to the same bit; the older half has `factor`."""
    number = np.arange(n)
    close = 100 + (number * 7 % 13) * 0.25
    open_ = 100 + (number * 5 % 11) * 0.25
    return RawBars(
        np.datetime64(start, "us") + number * np.timedelta64(TIMEFRAMES[timeframe]),
        open_,
        np.maximum(open_, close) + 0.5,
        np.minimum(open_, close) - 0.5,
        close,
        1000.0 + number,
        np.where(number < n // 2, factor, 1.0),
    )
