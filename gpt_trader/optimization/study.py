"""Tries combinations of parameters: each is simulated by the kernel and kept as one row of sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.backtesting.engine import require_bars, wanted_targets
from gpt_trader.backtesting.execution import execute
from gpt_trader.backtesting.result import iso
from gpt_trader.bars import Bars, Floats
from gpt_trader.errors import GptTraderError, NotEnoughBars, Refused
from gpt_trader.indicators import remembering
from gpt_trader.optimization.screening import WIDTH, summarize
from gpt_trader.optimization.space import SearchSpace
from gpt_trader.requests import OptimizeRequest
from gpt_trader.simulation import kernel
from gpt_trader.strategies.base import Strategy
from gpt_trader.strategies.registry import build

#: What became of a trial.
RUN: Final = 0
SKIPPED: Final = 1  # the strategy refuses the combination: it was no trial of anything
FAILED: Final = 2  # the strategy raised, or gave what are no targets: it counts as a trial

#: Kernel and engine of record may differ by rounding alone.
TOLERANCE: Final = 1e-9


@dataclass(frozen=True)
class Screened:
    """Trials by combination number: states (m,), rows (m, WIDTH) of `screening` (NaN unless run), reasons by number."""

    number: NDArray[np.int64]
    state: NDArray[np.int8]
    rows: Floats
    reasons: dict[int, str]

    @classmethod
    def of(cls, parts: Sequence[Screened]) -> Screened:
        """Return the trials of all parts, in order."""
        return cls(
            np.concatenate([part.number for part in parts]),
            np.concatenate([part.state for part in parts]),
            np.concatenate([part.rows for part in parts]),
            {number: reason for part in parts for number, reason in part.reasons.items()},
        )

    def counts(self) -> dict[str, int]:
        """Return how many trials were run, skipped and failed."""
        names = {"run": RUN, "skipped": SKIPPED, "failed": FAILED}
        return {name: int(np.count_nonzero(self.state == state)) for name, state in names.items()}


@dataclass(frozen=True)
class Study:
    """What is searched, on which bars: `bars[first:]` are traded, those before are warm-up."""

    bars: Bars
    first: int
    strategy: type[Strategy]
    space: SearchSpace
    request: OptimizeRequest

    def candidate(self, number: int) -> Strategy:
        """Return the strategy with the combination of this number; raise Refused where it does not take it."""
        return build(self.strategy, self.space.at(number), self.request.direction)

    def screen(self, numbers: Sequence[int]) -> Screened:
        """Simulate the combinations with these numbers by the kernel.

        One that the strategy refuses is skipped, one on which it raises has failed; either way the others go on.
        """
        traded = self.bars[self.first :]
        prices, terms = kernel.prices_of(traded), kernel.terms_of(self.request)
        curve, change = kernel.Curve.empty(len(traded)), np.empty(len(traded))
        state = np.zeros(len(numbers), np.int8)
        rows = np.full((len(numbers), WIDTH), np.nan)
        reasons: dict[int, str] = {}
        with remembering():
            for place, number in enumerate(numbers):
                found = self._targets(number)
                if isinstance(found, _NoTargets):
                    state[place], reasons[number] = found.state, found.reason
                    continue
                tally = kernel.run(prices, found, self.request.capital, terms, curve)
                summarize(curve.equity, tally, change, rows[place])
        return Screened(np.asarray(numbers, np.int64), state, rows, reasons)

    def verify(self, numbers: Sequence[int]) -> int:
        """Simulate these combinations by the engine of record as well; return how many were compared.

        Raises GptTraderError that names the combination and the first bar whose equity differs by more than rounding.
        """
        traded = self.bars[self.first :]
        for number in numbers:
            targets = wanted_targets(self.candidate(number), self.bars, self.first, self.request)
            ours = kernel.simulate(traded, targets, self.request).equity
            theirs = execute(traded, targets, self.request).equity
            scale = float(np.abs(theirs).max())
            differs = np.abs(ours - theirs) > TOLERANCE * np.maximum(np.abs(theirs), 1e-3 * scale)
            if differs.any():
                at = int(np.argmax(differs))
                raise GptTraderError(
                    f"the simulation kernel and vectorbt disagree on {self.space.at(number)}: at "
                    f"{iso(traded.time[at])} equity is {ours[at]!r} by the kernel and {theirs[at]!r} by vectorbt. "
                    "This is a fault of gpt-trader: please report it"
                )
        return len(numbers)

    def _targets(self, number: int) -> Floats | _NoTargets:
        try:
            candidate = self.candidate(number)
        except Refused as refused:
            return _NoTargets(SKIPPED, refused.detail)
        try:
            require_bars(self.bars, self.first, candidate, self.request)
            return wanted_targets(candidate, self.bars, self.first, self.request)
        except (Refused, NotEnoughBars) as refused:
            return _NoTargets(FAILED, refused.detail)
        except Exception as error:  # noqa: BLE001 - a user's code: shown and counted, and the study goes on
            return _NoTargets(FAILED, f"{type(error).__name__}: {error}"[:500])


@dataclass(frozen=True)
class _NoTargets:
    state: int
    reason: str
