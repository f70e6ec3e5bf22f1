"""The bars of a range of days with all history before it, as every simulation and every check reads them."""

from __future__ import annotations

from datetime import date

from gpt_trader.bars import Bars
from gpt_trader.errors import NotEnoughBars, Problem
from storage.lake import Lake


def bars_in_range(
    lake: Lake, symbol: str, timeframe: str, start: date | None, end: date | None, *, snapshot: str | None
) -> tuple[Bars, int]:
    """Return the bars up to day `end`, adjusted as of that day, and the index of the first one from day `start` on.

    Raises NotEnoughBars if the range is empty; else as `Lake.bars`.
    """
    bars = lake.bars(symbol, timeframe, snapshot=snapshot, known_at=end)
    first, stop = bars.between(start, end)
    if first >= stop:
        raise NotEnoughBars.of(
            Problem(
                field="start",
                value=f"{start or ''}..{end or ''}",
                message=f"the lake has no {timeframe} bars of {symbol} in this range",
                allowed=f"{bars.time[0].astype('datetime64[D]')} to {bars.time[-1].astype('datetime64[D]')}",
            )
        )
    return bars[:stop], first
