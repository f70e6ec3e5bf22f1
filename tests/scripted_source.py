"""A source whose bars are given, and which counts what is asked of it: for tests of whoever fetches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime

import numpy as np

from gpt_trader.adapters.base import Moment, Source, offered, within
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import GptTraderError, UnknownName
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars


@dataclass
class ScriptedSource(Source):
    """Gives `bars` by symbol in pages of `page` rows; raises `fails[symbol]` after that many pages."""

    bars: dict[str, RawBars]
    page: int = 100
    name: str = "scripted"
    live: bool = True
    corporate: CorporateActions | None = None
    fails: dict[str, tuple[int, Exception]] = field(default_factory=dict)
    calendar: str | None = "24/7"
    asked: list[tuple[str, Moment | None, Moment | None]] = field(default_factory=list)
    rows: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def instruments(self) -> list[Instrument]:
        return [
            Instrument(symbol=symbol, calendar=self.calendar, bars_a_year=365, session_minutes=1440)
            for symbol in self.bars
        ]

    def pages(
        self, symbol: str, timeframe: str, start: date | datetime | None = None, end: Moment | None = None
    ) -> Iterator[RawBars]:
        offered(self, timeframe)
        if symbol not in self.bars:
            raise UnknownName(f"source scripted does not list {symbol}")
        with self._lock:
            self.asked.append((symbol, start, end))
        chosen = within(self.bars[symbol], start, end, f"source scripted's {symbol}")
        most, failure = self.fails.get(symbol, (10**9, GptTraderError("never")))
        for number, first in enumerate(range(0, len(chosen), self.page)):
            if number >= most:
                raise failure
            part = chosen[first : first + self.page]
            with self._lock:
                self.rows += len(part)
            yield part

    def actions(self, symbol: str) -> CorporateActions | None:
        del symbol
        return self.corporate


def ascending(n: int, timeframe_length: np.timedelta64, start: str) -> RawBars:
    """Return n right bars in a row, their close counting up."""
    time = np.datetime64(start, "us") + np.arange(n) * timeframe_length
    close = np.arange(100.0, 100.0 + n)
    return RawBars(time, close, close + 1, close - 1, close, np.full(n, 10.0), np.ones(n))
