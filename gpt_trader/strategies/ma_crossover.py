"""Moving-average crossover."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from gpt_trader.strategies.base import CompiledTargets, Strategy

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats


class MaCrossover(Strategy):
    """Long while SMA(fast) of the closes is above SMA(slow); mirrored: short while below."""

    name = "ma_crossover"
    summary = "Long while the fast moving average of closes is above the slow one"
    search_space = {"fast": (5, 10, 15, 20), "slow": (20, 30, 40, 50)}

    fast: int = Field(default=10, ge=1, le=10_000, description="Bars in the fast average.")
    slow: int = Field(default=30, ge=2, le=10_000, description="Bars in the slow average.")

    @model_validator(mode="after")
    def _fast_below_slow(self) -> MaCrossover:
        if self.fast >= self.slow:
            raise ValueError(f"fast {self.fast} must be below slow {self.slow}")
        return self

    @property
    def warmup(self) -> int:
        """The slow window."""
        return self.slow

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        """Return the side of the crossover at each close (see `Strategy.targets`)."""
        return self.compiled(bars).of(len(bars), first)

    def compiled(self, bars: Bars) -> CompiledTargets:
        """Return the crossover of both averages (see `Strategy.compiled`)."""
        import gpt_trader.strategies.compiled as rules

        return rules.averages_crossed(bars.close, self.fast, self.slow, self.direction)
