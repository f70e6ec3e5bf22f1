"""Series to check: bars where a calendar (or a table of spans) expects them, seeded, with nothing wrong."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from gpt_trader.bars import Times
from gpt_trader.calendars import Anchor, calendar, expected_labels
from gpt_trader.instruments import TIMEFRAMES, Instrument
from gpt_trader.quality import Policy, Verdict
from gpt_trader.raw_bars import VALUES, RawBars
from storage.quality import CheckedSeries, check

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def walk(time: Times, seed: int = 1) -> RawBars:
    """Return a quiet random walk on these labels, opens near the close before, volume that varies."""
    random = np.random.default_rng(seed)
    n = len(time)
    close = 100 * np.exp(np.cumsum(random.uniform(-0.004, 0.004, n)))
    open_ = np.concatenate([close[:1], close[:-1]]) * np.exp(random.uniform(-0.001, 0.001, n))
    return RawBars(
        time,
        open_,
        np.maximum(open_, close) * (1 + random.uniform(0, 0.002, n)),
        np.minimum(open_, close) * (1 - random.uniform(0, 0.002, n)),
        close,
        random.uniform(500, 1000, n),
        np.ones(n),
    )


def labels(name: str, timeframe: str, first: str, last: str, anchor: Anchor = "open") -> Times:
    """Return the labels that a calendar expects."""
    return expected_labels(
        calendar(name), timeframe, date.fromisoformat(first), date.fromisoformat(last), anchor
    )


def labels_of(spans: Sequence[tuple[str, str]], timeframe: str) -> Times:
    """Return the labels of spans given as (open, close) in UTC."""
    step = np.timedelta64(TIMEFRAMES[timeframe])
    return np.concatenate([np.arange(np.datetime64(a, "us"), np.datetime64(b, "us"), step) for a, b in spans])


def series(
    bars: RawBars, *, calendar: str | None = "XNYS", timeframe: str = "1d", symbol: str = "TEST", **more: Any
) -> CheckedSeries:
    """Return a series to check."""
    return CheckedSeries(Instrument(symbol=symbol, calendar=calendar), timeframe, bars, **more)


def verdict(bars: RawBars, policy: Policy | None = None, now: datetime = NOW, **more: Any) -> Verdict:
    """Check one series; `more` as `series`."""
    (found,) = check([series(bars, **more)], policy or Policy(), now)
    return found


def found(bars: RawBars, **more: Any) -> list[tuple[str, str, str, int]]:
    """Check one series and return its findings: rule, first, last (to the minute), count."""
    return [
        (f.rule, str(f.first.astype("M8[m]")), str(f.last.astype("M8[m]")), f.count)
        for f in verdict(bars, **more).findings
    ]


def without(bars: RawBars, *rows: int | slice) -> RawBars:
    """Return the bars without some rows."""
    keep = np.ones(len(bars), bool)
    for row in rows:
        keep[row] = False
    return bars[keep]


def scaled(bars: RawBars, rows: int | slice, by: float, names: Sequence[str] = VALUES[:4]) -> RawBars:
    """Return the bars with some rows' values multiplied."""
    columns = {name: getattr(bars, name).copy() for name in VALUES}
    for name in names:
        columns[name][rows] *= by
    return RawBars(bars.time, **columns)


def moved(bars: RawBars, by: np.timedelta64 | np.ndarray) -> RawBars:
    """Return the bars with their labels moved."""
    return RawBars(bars.time + by, *(getattr(bars, name) for name in VALUES))
