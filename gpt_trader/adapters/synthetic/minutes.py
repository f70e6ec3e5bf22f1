"""Minutes made to fit their day: a random path from its open to its close that touches its high and its low."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpt_trader.adapters.synthetic.market import EPOCH, Ints, MarketDays, Purpose, Terms, draws
from gpt_trader.bars import Flags, Floats, Times
from gpt_trader.calendars import Sessions, calendar
from gpt_trader.raw_bars import RawBars

_MINUTE = np.timedelta64(1, "m")
#: A path is stretched at most so much to reach the day's high or low; the rest is a spike.
_STRETCH = 3.0


def minute_bars(terms: Terms, days: MarketDays, sessions: Sessions) -> RawBars:
    """Return the minutes of whole sessions, one after the other; `days` and `sessions` (n,) are the same ones.

    Aggregated by session they give the days' prices and volumes exactly.
    """
    most = int(calendar(terms.calendar).session_minutes)
    counts = ((sessions.close - sessions.open) // _MINUTE).astype(np.int64)
    place = np.arange(most)
    there: Flags = place < counts[:, None]
    numbers = ((days.day - EPOCH).astype(np.int64)).tolist()
    drawn = np.array([draws(terms, Purpose.MINUTES, n).standard_normal((4, most)) for n in numbers])
    walk, above, below, busy = drawn.transpose(1, 0, 2)
    close = _closes(days, counts, np.where(there, walk, 0.0))
    open_ = np.concatenate([days.open[:, None], close[:, :-1]], axis=1)
    wick = 0.5 * close * (days.noise / np.sqrt(counts))[:, None]
    high = np.minimum(np.maximum(open_, close) + _whole(np.abs(above) * wick), days.high[:, None])
    low = np.maximum(np.minimum(open_, close) - _whole(np.abs(below) * wick), days.low[:, None])
    rows = np.arange(len(days))
    high[rows, np.where(there, high, 0).argmax(axis=1)] = days.high
    low[rows, np.where(there, low, np.iinfo(np.int64).max).argmin(axis=1)] = days.low
    volume = _volumes(days.volume, counts, np.where(there, _weights(terms, counts, busy), 0.0))
    time = sessions.open[:, None] + place * _MINUTE
    return bars_of(time[there], [column[there] for column in (open_, high, low, close, volume)])


def bars_of(time: Times, columns: Sequence[Ints]) -> RawBars:
    """Return raw bars of open, high, low and close in cents, and volume; arrays are (n,)."""
    opens, highs, lows, closes = (column / 100.0 for column in columns[:4])
    return RawBars(time, opens, highs, lows, closes, columns[4].astype(np.float64), np.ones(len(time)))


def _closes(days: MarketDays, counts: Ints, steps: Floats) -> Ints:
    """Return the minutes' closes (n, most) in cents; behind a session's end they stay at its close."""
    done = np.minimum(np.arange(1, steps.shape[1] + 1) / counts[:, None], 1.0)
    walk = np.cumsum(steps, axis=1)
    bridge = (walk - done * walk[:, -1:]) * (days.noise / np.sqrt(counts))[:, None]
    first, final = np.log(days.open)[:, None], np.log(days.close)[:, None]
    path = np.exp(first + done * (final - first) + bridge)
    top, bottom = np.maximum(days.open, days.close), np.minimum(days.open, days.close)
    path = _reaching(path, top, days.high)
    path = -_reaching(-path, -bottom, -days.low)
    closes: Ints = np.clip(_whole(path), days.low[:, None], days.high[:, None])
    return closes


def _reaching(path: Floats, beyond: Ints, limit: Ints) -> Floats:
    """Return the path with what lies above `beyond` stretched or shrunk so that its peak comes to `limit`."""
    over = np.maximum(path - beyond[:, None], 0.0)
    peak = over.max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        by = np.where(peak > 0, np.minimum((limit - beyond) / peak, _STRETCH), 1.0)
    stretched: Floats = path - over + over * by[:, None]
    return stretched


def _weights(terms: Terms, counts: Ints, busy: Floats) -> Floats:
    """Return how busy each minute is: more at open and close, where there are such."""
    weights: Floats = np.exp(0.5 * busy)
    if terms.always_open:
        return weights
    centred = 2 * np.arange(busy.shape[1]) / counts[:, None] - 1
    return weights * (1 + 1.5 * centred**2)


def _volumes(total: Ints, counts: Ints, weights: Floats) -> Ints:
    """Return whole volumes (n, most), at least 1, that add up to `total` over each session's minutes."""
    share = np.cumsum(weights, axis=1)
    given = _whole(share / share[:, -1:] * (total - counts)[:, None])
    return np.diff(given, axis=1, prepend=0) + 1


def _whole(values: Floats) -> Ints:
    rounded: Ints = np.rint(values).astype(np.int64)
    return rounded
