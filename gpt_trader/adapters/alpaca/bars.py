"""Alpaca's rows as raw bars, and the windows of time in which they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

from gpt_trader.bars import Times, instant
from gpt_trader.calendars import calendar, monday_of
from gpt_trader.errors import BadBars
from gpt_trader.instruments import TIMEFRAMES
from gpt_trader.raw_bars import RawBars

#: Our timeframes as Alpaca writes them. Its hours of stocks count from midnight in New York and mix trades from before
#: the open with those of the session: ours are made of its 15 minutes, which the open does not cut.
TIMEFRAME_NAMES: Final = {
    "1m": "1Min",
    "5m": "5Min",
    "15m": "15Min",
    "1d": "1Day",
    "1w": "1Week",
}
#: Alpaca finished loading stocks from January 2016 on, crypto from 2021: there is nothing before.
EARLIEST: Final = datetime(2016, 1, 1, tzinfo=UTC)
#: Labels in the longest window: so many bars fit into a page (10,000 rows), and a window mostly is one call. Stocks
#: are traded 16 hours of 24 on 5 days of 7, so that twice as many labels have no more bars.
_LABELS: Final = 8640
_LABELS_OF_STOCKS: Final = 2 * _LABELS
_MICROSECOND: Final = timedelta(microseconds=1)
_FIELDS: Final = ("o", "h", "l", "c", "v")


def windows(
    timeframe: str, first: datetime, last: datetime, *, crypto: bool
) -> Iterator[tuple[datetime, datetime]]:
    """Yield spans of labels, both bounds inclusive, that together are `first` to `last`."""
    length = TIMEFRAMES[timeframe] * (_LABELS if crypto else _LABELS_OF_STOCKS)
    while first <= last:
        upto = last if last - first < length else first + length - _MICROSECOND
        yield first, upto
        first = upto + _MICROSECOND


def last_moment(timeframe: str, last: datetime) -> datetime:
    """Return the last microsecond of the bar that `last` lies in: a bar that the question cuts comes unfinished."""
    length = TIMEFRAMES[timeframe]
    monday = timedelta(days=4) if timeframe == "1w" else timedelta()
    last -= (last - datetime(1970, 1, 1, tzinfo=UTC) - monday) % length
    return last + length - _MICROSECOND


def regular(raw: RawBars) -> RawBars:
    """Return the bars of stocks that lie in a regular session; those without a time stay, for the inspection."""
    known = raw.time[~np.isnat(raw.time)]
    if not len(known):
        return raw
    first, last = known.min().astype("datetime64[D]").item(), known.max().astype("datetime64[D]").item()
    sessions = calendar("XNYS").sessions(first, last)
    return raw[np.isnat(raw.time) | (sessions.holding(raw.time) >= 0)]


def raw_bars(rows: object, timeframe: str, what: str) -> RawBars:
    """Return the rows in their order; a value that is missing is NaN or NaT, for the inspection to hold back.

    Daily bars come labeled midnight in New York (stocks) or UTC (crypto; until July 2025 midnight in Chicago): in
    UTC all of these lie on the session's date. Weekly bars get their Monday. Raises BadBars for what are no rows.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadBars(f"{what}: alpaca gave what are no rows")
    try:
        times = np.array([moment(row.get("t")) for row in rows], "datetime64[us]")
        opens, highs, lows, closes, volumes = (
            np.array([row.get(field) for row in rows], np.float64) for field in _FIELDS
        )
        labels = _labels(times, timeframe)
        return RawBars(labels, opens, highs, lows, closes, volumes, np.ones(len(rows)))
    except (ValueError, TypeError, OverflowError) as error:
        raise BadBars(f"{what}: alpaca gave a row that cannot be read: {str(error)[:200]}") from None


def moment(text: object) -> np.datetime64:
    """Return a time as Alpaca writes it (RFC 3339, up to nanoseconds) in UTC, NaT for None.

    Raises ValueError for what is no such time.
    """
    if text is None:
        return np.datetime64("NaT", "us")
    if not isinstance(text, str):
        raise ValueError(f"{str(text)[:40]!r} is no time")  # noqa: TRY004 - the caller's one kind of error
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text[:40]!r} is a time without a zone")
    return instant(found)


def between(raw: RawBars, first: datetime, last: datetime) -> RawBars:
    """Return the rows with labels from `first` to `last`, both inclusive, and those without a label."""
    keep = np.isnat(raw.time) | ((raw.time >= instant(first)) & (raw.time <= instant(last)))
    return raw if keep.all() else raw[keep]


def first_label(raw: RawBars) -> datetime | None:
    """Return the first label that is known, None if none is."""
    known = raw.time[~np.isnat(raw.time)]
    return known[0].item().replace(tzinfo=UTC) if len(known) else None


def joined(pages: Sequence[Any]) -> list[Any]:
    """Return the rows of all pages of a window, in the order in which they came; a page without any is null."""
    return [row for page in pages for row in (page or ())]


def _labels(times: Times, timeframe: str) -> Times:
    if TIMEFRAMES[timeframe] < timedelta(days=1):
        return times
    known = ~np.isnat(times)
    labels = np.full(len(times), np.datetime64("NaT", "us"))
    days = times[known].astype("datetime64[D]")
    labels[known] = monday_of(days) if timeframe == "1w" else days
    return labels
