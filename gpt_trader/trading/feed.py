"""Bars of several symbols as moments: those of one time together, in order."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import numpy as np

from gpt_trader.bars import Bars
from gpt_trader.trading.events import BarRow, Moment, stamp


def moments(bars: Mapping[str, Bars], after: np.datetime64 | None = None) -> Generator[Moment]:
    """Yield the moments of these series, oldest first; only those behind a time."""
    series = {symbol: each for symbol, each in bars.items() if len(each)}
    if not series:
        return
    columns = {
        symbol: [getattr(each, name).tolist() for name in BarRow._fields] for symbol, each in series.items()
    }
    times = np.unique(np.concatenate([each.time for each in series.values()]))
    if after is not None:
        times = times[times > after]
    places = {symbol: np.searchsorted(each.time, times) for symbol, each in series.items()}
    for number, time in enumerate(times):
        here = {}
        for symbol, each in series.items():
            place = int(places[symbol][number])
            if place < len(each) and each.time[place] == time:
                here[symbol] = BarRow(*(column[place] for column in columns[symbol]))
        yield Moment(stamp(time), here)
