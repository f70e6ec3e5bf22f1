"""Channel breakout with confirmation and a stop on closes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from gpt_trader.strategies.base import Strategy

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Flags, Floats


class Breakout(Strategy):
    """Long after `confirm` consecutive closes above the channel; out when a close falls `stop` below its entry.

    Each close is compared with the highest high of the `lookback` bars before it. The stop is measured from
    the close that decided the entry. Mirrored: short after closes below the lowest low, out when a close rises
    `stop` above; with `both`, one bar may close one side and open the other.
    """

    name = "breakout"
    summary = "Buys confirmed closes above the recent highs, with a stop on closes"
    search_space = {"lookback": (15, 20, 25), "confirm": (1, 2, 3), "stop": (0.01, 0.02, 0.03)}

    lookback: int = Field(default=20, ge=1, le=10_000, description="Bars in the channel.")
    confirm: int = Field(default=2, ge=1, le=1_000, description="Consecutive closes beyond the channel.")
    stop: float = Field(default=0.02, gt=0, lt=1, description="Adverse move of a close, as a fraction.")

    @property
    def warmup(self) -> int:
        """The channel before the first of the confirming closes."""
        return self.lookback + self.confirm

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        """Return the side held at each close (see `Strategy.targets`)."""
        import numpy as np

        from gpt_trader.indicators import exceeds, highest_before, lowest_before

        up = self._confirmed(exceeds(bars.close, highest_before(bars.high, self.lookback)))
        down = self._confirmed(exceeds(lowest_before(bars.low, self.lookback), bars.close))
        signal = np.zeros(len(bars))
        if self.direction != "short":
            signal[up] = 1.0
        if self.direction != "long":
            signal[down] = -1.0
        return self._held(bars.close, signal, first)

    def _confirmed(self, beyond: Flags) -> Flags:
        """Return where the last `confirm` values are all true, shape (n,)."""
        run = beyond.copy()
        for back in range(1, self.confirm):
            run[back:] &= beyond[:-back]
            run[:back] = False
        return run

    def _held(self, close: Floats, signal: Floats, first: int) -> Floats:
        """Return the side held at each close, flat at `first`, shape (n,)."""
        import numpy as np

        side = np.zeros(len(close))
        held, entered_at = 0.0, 0.0
        for i, (price, wanted) in enumerate(zip(close.tolist(), signal.tolist(), strict=True)):
            if i < first:
                continue
            stopped = held if held and held * (price - entered_at) < -self.stop * entered_at else 0.0
            if stopped:
                held = 0.0
            if not held and wanted and wanted != stopped:
                held, entered_at = wanted, price
            side[i] = held
        return side
