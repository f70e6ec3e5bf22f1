"""The OHLCV contract: what every array of bars in this program is, wherever it came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gpt_trader.instruments import Instrument

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
#: Targets of −1, 0 and 1 alone.
Sides = NDArray[np.int8]
Times = NDArray[np.datetime64]

#: Relative slack of the OHLC check: a price times an adjustment factor rounds.
OHLC_TOLERANCE: Final = 1e-9


def instant(moment: datetime) -> np.datetime64:
    """Return a time with a zone as `Times` has it: UTC, to the microsecond."""
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")


@dataclass(frozen=True, eq=False)
class Bars:
    """OHLCV bars of one instrument in one timeframe, oldest first.

    Shapes: every array is (n,). `time` is datetime64[us], UTC, the **open time** of the bar (its label),
    strictly increasing; prices are float64, finite and > 0 with low ≤ open, close ≤ high (relative
    tolerance 1e-9, as scaled prices round); `volume` is float64, finite and ≥ 0. Arrays are read-only.
    `logical_hash` identifies the content, independent of the file it was read from: that of the whole series as
    stored when read from the lake, that of just these bars after `identified`.
    """

    instrument: Instrument
    timeframe: str
    time: Times
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    logical_hash: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for name in ("time", "open", "high", "low", "close", "volume"):
            array = getattr(self, name)
            if array.shape != self.time.shape or array.ndim != 1:
                raise ValueError(f"{name} has shape {array.shape}, time has {self.time.shape}")
            if array.flags.writeable:
                view = array.view()
                view.flags.writeable = False
                object.__setattr__(self, name, view)

    def __len__(self) -> int:
        """Return the number of bars."""
        return len(self.time)

    def __getitem__(self, part: slice) -> Bars:
        """Return a view of a contiguous part (no copy)."""
        return replace(
            self,
            time=self.time[part],
            open=self.open[part],
            high=self.high[part],
            low=self.low[part],
            close=self.close[part],
            volume=self.volume[part],
        )

    def between(self, start: date | None, end: date | None) -> tuple[int, int]:
        """Return the half-open index range of the bars from day `start` to day `end` (UTC), both inclusive."""
        days = self.time.astype("datetime64[D]")
        first = int(np.searchsorted(days, np.datetime64(start, "D"), "left")) if start else 0
        stop = int(np.searchsorted(days, np.datetime64(end, "D"), "right")) if end else len(self)
        return first, stop

    def identified(self) -> Bars:
        """Return the same bars with the hash of just these values, whatever else the series they came from holds.

        sha256 over symbol, timeframe and the arrays as little-endian bytes.
        """
        digest = hashlib.sha256(
            f"gpt-trader bars-used 1\n{self.symbol}\n{self.timeframe}\n{len(self)}\n".encode()
        )
        digest.update(self.time.astype("<M8[us]", copy=False).tobytes())
        for values in (self.open, self.high, self.low, self.close, self.volume):
            digest.update((values + 0.0).astype("<f8", copy=False).tobytes())
        return replace(self, logical_hash=digest.hexdigest())

    @property
    def symbol(self) -> str:
        """The instrument's id."""
        return self.instrument.symbol

    @property
    def periods_a_year(self) -> float:
        """How many of these bars a year has, by the instrument's own market."""
        return self.instrument.periods_a_year(self.timeframe)
