"""Reversion to the mean, by z-score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from gpt_trader.strategies.base import CompiledTargets, Strategy

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
        return self.compiled(bars).of(len(bars), first)

    def compiled(self, bars: Bars) -> CompiledTargets:
        """Return the z-score with what it triggers (see `Strategy.compiled`); an undefined one changes nothing."""
        import gpt_trader.strategies.compiled as rules

        return rules.reverted(bars.close, self.period, (self.entry, self.exit), self.direction)
