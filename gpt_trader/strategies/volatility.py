"""Trend in a quiet market."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from gpt_trader.strategies.base import CompiledTargets, Strategy

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats


class Volatility(Strategy):
    """Long while the close is above SMA(trend) and the volatility of bar returns is below the threshold.

    Volatility is the sample standard deviation (n − 1) of simple bar returns over `vol_period`, not
    annualized. Mirrored: short while the close is below the average, in the same quiet.
    """

    name = "volatility"
    summary = "Long above the trend average while bar returns are quiet"
    search_space = {"vol_period": (15, 20, 25), "threshold": (0.015, 0.02, 0.025), "trend": (40, 50, 60)}

    vol_period: int = Field(default=20, ge=2, le=10_000, description="Bar returns in the volatility window.")
    threshold: float = Field(default=0.02, gt=0, lt=10, description="Volatility of one bar's return.")
    trend: int = Field(default=50, ge=1, le=10_000, description="Bars in the trend average.")

    @property
    def warmup(self) -> int:
        """The longer of both windows; n returns need n + 1 closes."""
        return max(self.trend, self.vol_period + 1)

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        """Return the side of the trend while quiet, at each close (see `Strategy.targets`)."""
        return self.compiled(bars).of(len(bars), first)

    def compiled(self, bars: Bars) -> CompiledTargets:
        """Return the average, the volatility and the threshold (see `Strategy.compiled`)."""
        import gpt_trader.strategies.compiled as rules

        periods = (self.vol_period, self.trend)
        return rules.trending_quietly(bars.close, periods, self.threshold, self.direction)
