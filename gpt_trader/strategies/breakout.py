"""Channel breakout with confirmation and a stop on closes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from gpt_trader.strategies.base import CompiledTargets, Strategy

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats


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
        return self.compiled(bars).of(len(bars), first)

    def compiled(self, bars: Bars) -> CompiledTargets:
        """Return the channel with what leaving it triggers (see `Strategy.compiled`)."""
        import gpt_trader.strategies.compiled as rules

        return rules.broken_out(bars, self.lookback, (self.confirm, self.stop), self.direction)
