"""When all weights are traded back to: at the first open of each period."""

from __future__ import annotations

from typing import Final

import numpy as np

from gpt_trader.bars import Flags, Times
from gpt_trader.portfolio.request import Period

#: numpy's unit of a period. The epoch, 1970-01-01, was a Thursday: a week that begins on Monday is three days off.
_UNITS: Final = {"day": "D", "month": "M", "year": "Y"}
_MONDAY: Final = np.timedelta64(3, "D")


def due(time: Times, period: Period) -> Flags:
    """Return at which closes (n,) the whole portfolio is decided anew, to be traded at the next open.

    A period of `time` (n,) begins with its first bar, by the UTC date of the bar's label. What is traded at that open
    is decided at the close before it, so no future is needed to know it but the calendar. The first close of all is
    one: the portfolio is bought at the second bar. The last one never is: there is no open to trade at.
    """
    found: Flags = np.zeros(len(time), dtype=np.bool_)
    if period != "none":
        begun = _numbers(time, period)
        found[:-1] = begun[1:] != begun[:-1]
    found[0] = True
    found[-1] = False
    return found


def _numbers(time: Times, period: Period) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return the number of the period that each time lies in."""
    if period == "quarter":
        return _numbers(time, "month") // 3
    days = time.astype("datetime64[D]")
    if period == "week":
        return np.floor_divide((days + _MONDAY).astype(np.int64), 7)
    return days.astype(f"datetime64[{_UNITS[period]}]").astype(np.int64)
