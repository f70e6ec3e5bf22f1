"""The bars that a session has seen, by symbol: what its strategies decide from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from gpt_trader.bars import Bars
from gpt_trader.instruments import Instrument
from gpt_trader.trading.events import Moment, unstamp

_COLUMNS: Final = ("open", "high", "low", "close", "volume")
_ROOM: Final = 1024


class _Series:
    """One symbol's bars, with room for more. Those before `first` came before the session."""

    def __init__(self, warm: Bars, first: int) -> None:
        self.instrument: Instrument = warm.instrument
        self.timeframe = warm.timeframe
        self.first, self.count = first, len(warm)
        self._time = np.empty(self.count + _ROOM, dtype="datetime64[us]")
        self._values = np.empty((len(_COLUMNS), self.count + _ROOM))
        self._time[: self.count] = warm.time
        for column, name in enumerate(_COLUMNS):
            self._values[column, : self.count] = getattr(warm, name)

    def append(self, time: np.datetime64, row: tuple[float, ...]) -> None:
        if self.count == len(self._time):  # what strategies were given keeps the old arrays
            self._time = np.concatenate((self._time, np.empty_like(self._time)))
            self._values = np.concatenate((self._values, np.empty_like(self._values)), axis=1)
        self._time[self.count] = time
        self._values[:, self.count] = row
        self.count += 1

    def scale(self, factor: float) -> None:
        self._values = self._values.copy()
        self._values[:4, : self.count] *= factor
        self._values[4, : self.count] /= factor

    def bars(self) -> Bars:
        values = self._values[:, : self.count]
        return Bars(self.instrument, self.timeframe, self._time[: self.count], *values)


class History:
    """All symbols' bars. Strategies get read-only views; nothing that was given away is written to."""

    def __init__(self, warm: Mapping[str, Bars], first: Mapping[str, int] | None = None) -> None:
        """Begin with bars by symbol; those from `first` on are the session's own (default: none of them)."""
        firsts = first or {}
        self._series = {symbol: _Series(bars, firsts.get(symbol, len(bars))) for symbol, bars in warm.items()}

    def append(self, moment: Moment) -> None:
        """Take the bars of a moment that is over."""
        time = unstamp(moment.time)
        for symbol, row in moment.bars.items():
            self._series[symbol].append(time, row)

    def rebase(self, symbol: str, factor: float) -> None:
        """Scale a symbol's prices so far by the factor, and its volume the other way."""
        self._series[symbol].scale(factor)

    def bars(self, symbol: str) -> tuple[Bars, int]:
        """Return a symbol's bars so far and the index of the session's first."""
        series = self._series[symbol]
        return series.bars(), series.first

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols there are."""
        return tuple(self._series)

    def instrument(self, symbol: str) -> Instrument:
        """Return the facts of a symbol."""
        return self._series[symbol].instrument
