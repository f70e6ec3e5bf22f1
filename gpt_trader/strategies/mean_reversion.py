"""Reversion to the mean, by z-score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from gpt_trader.strategies.base import Strategy

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats


class MeanReversion(Strategy):
    """Long when the close's z-score is ≤ −`entry`, until it is ≥ +`exit`.

    z = (close − mean) / standard deviation (n − 1) over `period`, 0 where the deviation is 0. Mirrored: short
    when z ≥ +`entry`, until z ≤ −`exit`; with `both`, one bar may close one side and open the other.
    """

    name = "mean_reversion"
    summary = "Buys closes far below their rolling mean and sells above it"
    search_space = {"period": (15, 20, 25), "entry": (1.5, 2.0, 2.5), "exit": (0.25, 0.5, 0.75)}

    period: int = Field(default=20, ge=2, le=10_000, description="Bars in the window.")
    entry: float = Field(default=2.0, gt=0, le=100, description="Entry distance from the mean, in σ.")
    exit: float = Field(default=0.5, ge=-100, le=100, description="Exit beyond the mean, in σ.")

    @model_validator(mode="after")
    def _exit_above_entry(self) -> MeanReversion:
        if self.exit <= -self.entry:
            raise ValueError(
                f"exit {self.exit} must be above -entry {-self.entry}: else it leaves as it enters"
            )
        return self

    @property
    def warmup(self) -> int:
        """The window."""
        return self.period

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        """Return the side held at each close (see `Strategy.targets`)."""
        import numpy as np

        from gpt_trader.indicators import z_score

        side = np.zeros(len(bars))
        scores = z_score(bars.close, self.period).tolist()
        held = 0.0
        for i in range(first, len(scores)):
            held = self._next(held, scores[i])
            side[i] = held
        return side

    def _next(self, held: float, z: float) -> float:
        """Return the side after a bar with score `z`; a NaN score changes nothing."""
        if held * z >= self.exit and held:
            held = 0.0
        if not held and z <= -self.entry and self.direction != "short":
            return 1.0
        if not held and z >= self.entry and self.direction != "long":
            return -1.0
        return held
