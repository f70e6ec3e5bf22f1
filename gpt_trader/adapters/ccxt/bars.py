"""ccxt's rows of bars as raw bars."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

from gpt_trader.bars import Times
from gpt_trader.calendars import monday_of
from gpt_trader.errors import BadBars, Refused
from gpt_trader.instruments import TIMEFRAMES
from gpt_trader.raw_bars import RawBars

#: Open time in milliseconds since 1970 (UTC), open, high, low, close, volume; what is missing is None.
Row = Sequence[Any]

_BEGIN_OF_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS: Final = 6


def milliseconds(span: timedelta) -> int:
    """Return a span in whole milliseconds, rounded down."""
    return span // timedelta(milliseconds=1)


def since_1970(moment: datetime) -> int:
    """Return a time in milliseconds, rounded down."""
    return milliseconds(moment - _BEGIN_OF_TIME)


def whole_rows(answer: Sequence[Any]) -> list[Row]:
    """Return rows of six: one that is none, or cut short, lacks values."""
    rows = [list(row[:_FIELDS]) if isinstance(row, list | tuple) else [] for row in answer]
    return [row + [None] * (_FIELDS - len(row)) for row in rows]


def raw_bars(rows: Sequence[Row], source: str, symbol: str, timeframe: str) -> RawBars:
    """Return the rows in their order; a value that is missing is NaN or NaT, for the inspection to hold back.

    Raises BadBars for a value that is no number, Refused where all days or weeks begin at another time than ours.
    """
    try:
        time = np.array(
            [
                np.datetime64("NaT", "ms") if row[0] is None else np.datetime64(int(row[0]), "ms")
                for row in rows
            ]
        )
        columns = [np.array([row[place] for row in rows], np.float64) for place in range(1, _FIELDS)]
    except (ValueError, TypeError, OverflowError) as error:
        raise BadBars(f"{source} gave a bar of {symbol} that cannot be read: {str(error)[:200]}") from None
    raw = RawBars(time, *[*columns, np.ones(len(rows))])
    _same_days(raw.time[~np.isnat(raw.time)], f"{source}'s {timeframe} bars of {symbol}", timeframe)
    return raw


def _same_days(time: Times, what: str, timeframe: str) -> None:
    if TIMEFRAMES[timeframe] < timedelta(days=1) or not len(time):
        return
    day = time.astype("datetime64[D]")
    weekly = timeframe == "1w"
    if (time == (monday_of(day) if weekly else day)).any():
        return
    begin: datetime = time[0].item()
    theirs, ours = (f"{begin:%A} %H:%M", "Monday 00:00") if weekly else ("%H:%M", "00:00")
    raise Refused(
        f"{what} begin at {begin.strftime(theirs)} UTC, ours at {ours}: ingest finer bars and make them of those"
    )
