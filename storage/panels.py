"""The prices of many symbols in a range of days with all history before it, as a portfolio reads them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np

from gpt_trader.errors import NotEnoughBars, Problem
from gpt_trader.portfolio.panel import Panel
from storage.array_cache import ArrayCache
from storage.lake import Lake
from storage.matrices import Column, Matrix, matrix


def panel_in_range(
    lake: Lake,
    symbols: Sequence[str],
    timeframe: str,
    start: date | None,
    end: date | None,
    *,
    snapshot: str | None,
    cache: ArrayCache | None = None,
) -> Panel:
    """Return opens and closes up to day `end`, adjusted as of that day; `first` is the first time from day `start` on.

    Prices are those of `Lake.bars`, from the cache of matrices if they are there. Raises NotEnoughBars if the range is
    empty; else as `storage.matrices.matrix`.
    """

    def column(name: Column) -> Matrix:
        return matrix(lake, symbols, timeframe, name, end=end, known_at=end, snapshot=snapshot, cache=cache)

    opens, closes = column("open"), column("close")
    days = closes.time.astype("datetime64[D]")
    first = int(np.searchsorted(days, np.datetime64(start, "D"), "left")) if start else 0
    if first >= len(closes.time):
        raise NotEnoughBars.of(
            Problem(
                field="start",
                value=f"{start or ''}..{end or ''}",
                message=f"the lake has no {timeframe} bars of these {len(symbols)} symbols in this range",
                allowed=f"{days[0]} to {days[-1]}" if len(days) else None,
            )
        )
    known = lake.manifest(snapshot).instruments
    instruments = tuple(known[symbol] for symbol in closes.symbols)
    return Panel(instruments, timeframe, closes.time, opens.values, closes.values, first)
