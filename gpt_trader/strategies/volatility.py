"""Trend in a quiet market."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from gpt_trader.strategies.base import Strategy

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
        import numpy as np

        from gpt_trader.indicators import change, exceeds, rolling_std, sma

        trend = sma(bars.close, self.trend)
        quiet = rolling_std(change(bars.close), self.vol_period) < self.threshold
        side = np.zeros(len(bars))
        if self.direction != "short":
            side[quiet & exceeds(bars.close, trend)] = 1.0
        if self.direction != "long":
            side[quiet & exceeds(trend, bars.close)] = -1.0
        side[:first] = 0.0
        return side
