"""Live bars become moments: those of one time are traded together, once all have come or waiting has an end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gpt_trader.trading.events import BarRow, Moment, stamp

#: Whether a symbol's market is open at a bar's label (its open time).
Expects = Callable[[str, np.datetime64], bool]


class Gathering:
    """Bars on their way into moments. Times are labels; `now` is seconds of any clock that only goes forward.

    A source gives each symbol's bars in order of time: one that has a newer bar has no bar of an older moment to come.
    """

    def __init__(
        self, symbols: Sequence[str], after: np.datetime64 | None, grace: float, expects: Expects
    ) -> None:
        """Begin behind the moment `after`; wait `grace` seconds for a symbol whose market is open (`expects`)."""
        self._symbols = tuple(symbols)
        self._after = after
        self._grace = grace
        self._expects = expects
        self._rows: dict[np.datetime64, dict[str, BarRow]] = {}
        self._since: dict[np.datetime64, float] = {}
        self._newest: dict[str, np.datetime64] = {}

    def __len__(self) -> int:
        """Return how many moments wait."""
        return len(self._rows)

    def take(self, symbol: str, time: np.datetime64, row: BarRow, now: float) -> bool:
        """Take a bar; return False for one whose moment is over: it came too late."""
        self._newest[symbol] = max(time, self._newest.get(symbol, time))
        if self._after is not None and time <= self._after:
            return False
        self._rows.setdefault(time, {})[symbol] = row
        self._since.setdefault(time, now)
        return True

    def due(self, now: float) -> Iterator[Moment]:
        """Yield the moments that are to be traded now, oldest first, each once."""
        for time in sorted(self._rows):
            if not self._is_complete(time) and now - self._since[time] < self._grace:
                return
            self._after = time
            del self._since[time]
            rows = self._rows.pop(time)
            yield Moment(stamp(time), {symbol: rows[symbol] for symbol in self._symbols if symbol in rows})

    def _is_complete(self, time: np.datetime64) -> bool:
        newest = self._newest
        missing = (each for each in self._symbols if each not in newest or newest[each] < time)
        return not any(self._expects(symbol, time) for symbol in missing)
