"""The prices of a portfolio: open and close of many symbols over the union of their bar times."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gpt_trader.bars import Flags, Floats, Times
from gpt_trader.compiling import compiled
from gpt_trader.instruments import Instrument


@dataclass(frozen=True, eq=False)
class Panel:
    """Open and close of m symbols at n times, the union of their bar times; NaN where a symbol has no bar.

    `time` (n,) is datetime64[us], UTC, strictly increasing; `open` and `close` are (n, m), a column each of
    `instruments`. Rows before `first` are history: weights may be computed from them, nothing is traded there.
    """

    instruments: tuple[Instrument, ...]
    timeframe: str
    time: Times
    open: Floats
    close: Floats
    first: int = 0

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(instrument.symbol for instrument in self.instruments)

    @property
    def periods_a_year(self) -> float:
        """Bars in a year: those of the market that has most, as the times are the union."""
        return max(instrument.periods_a_year(self.timeframe) for instrument in self.instruments)

    @property
    def currencies(self) -> list[str]:
        """Currencies of the prices, each once."""
        return sorted({instrument.currency for instrument in self.instruments})

    @cached_property
    def traded(self) -> Panel:
        """The range alone, row by row in memory: what the simulation steps through."""
        opened, closed = (np.ascontiguousarray(prices[self.first :]) for prices in (self.open, self.close))
        return Panel(self.instruments, self.timeframe, self.time[self.first :], opened, closed)

    @cached_property
    def marks(self) -> Floats:
        """What a unit is valued at, at each time (n, m): its last close; before its first bar that one's close."""
        marked = np.empty(self.close.shape)
        _mark(np.ascontiguousarray(self.close), marked)
        return marked

    @cached_property
    def bars_hash(self) -> str:
        """sha256 over symbols, timeframe, times, opens and closes, history that weights are computed from included."""
        named = "\n".join(["gpt-trader panel 1", self.timeframe, str(self.first), *self.symbols])
        digest = hashlib.sha256(f"{named}\n".encode())
        digest.update(self.time.astype("<M8[us]", copy=False).tobytes())
        for prices in (self.open, self.close):
            # By columns: that is how a matrix of the lake lies in memory.
            digest.update(np.ascontiguousarray(prices.T.astype("<f8", copy=False)).data)
        return digest.hexdigest()


def last_rows(prices: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return the row of each symbol's last bar at or before each row (n, m); −1 before its first bar."""
    rows = np.where(np.isnan(prices), -1, np.arange(len(prices), dtype=np.int64)[:, None])
    return np.maximum.accumulate(rows, axis=0)


def never_traded(panel: Panel) -> Sequence[str]:
    """Return the symbols without a bar in the range."""
    empty: Flags = np.asarray(np.isnan(panel.close[panel.first :]).all(axis=0))
    return [symbol for symbol, none in zip(panel.symbols, empty.tolist(), strict=True) if none]


@compiled(nogil=True)
def _mark(close: Floats, marked: Floats) -> None:
    n, m = close.shape
    for s in range(m):
        marked[0, s] = 0.0
        for t in range(n):
            if not np.isnan(close[t, s]):
                marked[0, s] = close[t, s]
                break
    for t in range(1, n):
        for s in range(m):
            marked[t, s] = marked[t - 1, s] if np.isnan(close[t, s]) else close[t, s]
