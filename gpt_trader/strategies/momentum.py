"""Momentum with a fixed holding period."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from gpt_trader.strategies.base import CompiledTargets, Strategy

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats


class Momentum(Strategy):
    """When flat and the close has risen by more than `threshold` over `lookback` bars: long for `hold` bars.

    The deciding bar counts as the first of the `hold`; then it is flat for one bar before the next decision.
    Mirrored: short when the close has fallen by more than `threshold`.
    """

    name = "momentum"
    summary = "Buys what has risen over the lookback and holds it for a fixed number of bars"
    search_space = {"lookback": (10, 20, 30), "threshold": (0.01, 0.02, 0.03), "hold": (3, 5, 10)}

    lookback: int = Field(default=20, ge=1, le=10_000, description="Bars over which the change is measured.")
    threshold: float = Field(default=0.02, ge=0, lt=100, description="Change that triggers, as a fraction.")
    hold: int = Field(default=5, ge=1, le=10_000, description="Bars a position is held.")

    @property
    def warmup(self) -> int:
        """The close `lookback` bars ago and today's."""
        return self.lookback + 1

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        """Return the side held at each close (see `Strategy.targets`)."""
        return self.compiled(bars).of(len(bars), first)

    def compiled(self, bars: Bars) -> CompiledTargets:
        """Return the change over the lookback with what it triggers (see `Strategy.compiled`)."""
        import gpt_trader.strategies.compiled as rules

        return rules.moved(bars.close, self.lookback, (self.threshold, self.hold), self.direction)
