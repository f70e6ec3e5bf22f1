"""Tries combinations of parameters: each is simulated by the kernel and kept as one row of sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.backtesting.engine import require_bars, wanted_targets
from gpt_trader.backtesting.execution import execute
from gpt_trader.backtesting.result import iso
from gpt_trader.bars import Bars, Floats, Sides
from gpt_trader.errors import GptTraderError, NotEnoughBars, Refused
from gpt_trader.indicators import remembering
from gpt_trader.optimization.kept_blocks import Blocks
from gpt_trader.optimization.kept_reasons import KeptReasons
from gpt_trader.optimization.screening import COLUMNS
from gpt_trader.optimization.space import SearchSpace
from gpt_trader.optimization.sweeping import Sweep
from gpt_trader.requests import OptimizeRequest
from gpt_trader.simulation import kernel
from gpt_trader.strategies.base import Strategy
from gpt_trader.strategies.registry import build
from gpt_trader.strategies.user import portable, received

#: What became of a trial.
RUN: Final = 0
SKIPPED: Final = 1  # the strategy refuses the combination: it was no trial of anything
FAILED: Final = 2  # the strategy raised, or gave what are no targets: it counts as a trial

#: Kernel and engine of record may differ by rounding alone.
TOLERANCE: Final = 1e-9


@dataclass(frozen=True)
class Screened:
    """Trials by combination number: states (m,), what is summed up (NaN unless run), reasons by number.

    A row of `screening` is in two parts: `sums` (m, len(COLUMNS)), which every trial is asked for, and `blocks`, which
    of many trials are in a file.
    """

    number: NDArray[np.int64]
    state: NDArray[np.int8]
    sums: Floats
    blocks: Blocks
    reasons: Mapping[int, str]

    @classmethod
    def of_rows(
        cls, number: NDArray[np.int64], state: NDArray[np.int8], rows: Floats, reasons: Mapping[int, str]
    ) -> Screened:
        """Return trials with their rows (m, WIDTH)."""
        columns, blocks = rows[:, : len(COLUMNS)], Blocks.of(np.ascontiguousarray(rows[:, len(COLUMNS) :]))
        return cls(number, state, np.ascontiguousarray(columns), blocks, reasons)

    @classmethod
    def of(cls, parts: Iterable[Screened]) -> Screened:
        """Return the trials of all parts, in order; of each no more is kept than of one of many trials."""
        number, state, sums = bytearray(), bytearray(), bytearray()  # grow where they are, most often
        blocks, reasons = Blocks(), KeptReasons()
        for part in parts:
            number += part.number.tobytes()
            state += part.state.tobytes()
            sums += part.sums.tobytes()
            blocks.add(part.blocks)
            reasons.add(part.reasons)
        return cls(
            np.frombuffer(number, np.int64),
            np.frombuffer(state, np.int8),
            # Column by column, as they are asked for, and as a table of them takes them without a copy.
            np.asfortranarray(np.frombuffer(sums).reshape(-1, len(COLUMNS))),
            blocks,
            reasons,
        )

    def rows_at(self, places: NDArray[np.intp]) -> Floats:
        """Return the rows of the trials at these places, (k, WIDTH)."""
        return np.concatenate((self.sums[places], self.blocks.at(places)), axis=1)

    @property
    def rows(self) -> Floats:
        """Return all rows, (m, WIDTH): 600 bytes a trial, for as many as memory is there for."""
        return self.rows_at(np.arange(len(self.number)))

    def counts(self) -> dict[str, int]:
        """Return how many trials were run, skipped and failed."""
        names = {"run": RUN, "skipped": SKIPPED, "failed": FAILED}
        return {name: int(np.count_nonzero(self.state == state)) for name, state in names.items()}


@dataclass(frozen=True)
class Study:
    """What is searched, on which bars: `bars[first:]` are traded, those before are warm-up.

    `gaps` are stretches [start, stop) of them, in order, that strategies see and nothing is measured on: what lies
    between is traded from cash, each piece with what the one before left: what is held before a gap is sold, at its
    costs.
    """

    bars: Bars
    first: int
    strategy: type[Strategy]
    space: SearchSpace
    request: OptimizeRequest
    gaps: tuple[tuple[int, int], ...] = ()

    @property
    def pieces(self) -> list[slice]:
        """Return the stretches of bars between the gaps, in order; those of a single bar are left out."""
        edges = [self.first, *(edge for gap in self.gaps for edge in gap), len(self.bars)]
        pairs = zip(edges[::2], edges[1::2], strict=True)
        return [slice(start, stop) for start, stop in pairs if stop - start >= 2 or not self.gaps]

    @property
    def traded(self) -> Bars:
        """Return the bars that trials are measured on, without the gaps."""
        if not self.gaps:
            return self.bars[self.first :]
        rows = np.concatenate([np.arange(piece.start, piece.stop) for piece in self.pieces])
        columns = ("time", "open", "high", "low", "close", "volume")
        return replace(self.bars, **{name: getattr(self.bars, name)[rows] for name in columns})

    def __getstate__(self) -> dict[str, Any]:
        """Pickle with the source of a user's strategy, which no other process could import."""
        return {**vars(self), "strategy": portable(self.strategy)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the pickled state in."""
        vars(self).update(state, strategy=received(state["strategy"]))

    def candidate(self, number: int) -> Strategy:
        """Return the strategy with the combination of this number; raise Refused where it does not take it."""
        return build(self.strategy, self.space.at(number), self.request.direction)

    def screen(self, numbers: Sequence[int]) -> Screened:
        """Simulate the combinations with these numbers by the kernel.

        One that the strategy refuses is skipped, one on which it raises has failed; either way the others go on.
        """
        sweep, tried = Sweep(self, numbers), np.asarray(numbers, np.int64)
        with remembering():
            for place in self.space.by_neighborhood(tried):
                none = self.write(numbers[place], sweep.room, unchecked=True)
                if none is None:
                    sweep.add(place)
                else:
                    sweep.miss(place, none)
            sweep.simulate()
        reasons = {number: sweep.reasons[number] for number in numbers if number in sweep.reasons}
        return Screened(tried, sweep.state, sweep.sums, Blocks.of(sweep.blocks), reasons)

    def verify(self, numbers: Sequence[int], screened: Screened) -> int:
        """Try these combinations anew, and by the engine of record as well; return how many were compared.

        Raises GptTraderError that names the combination, and the first bar whose equity differs by more than rounding
        between the two, or that the sweep had kept another outcome of it.
        """
        self._require_kept(numbers, screened)
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

    def _require_kept(self, numbers: Sequence[int], screened: Screened) -> None:
        """Raise GptTraderError where trying again gives another row than the sweep kept (in a cache, from a worker)."""
        order = np.argsort(screened.number, kind="stable")
        kept = screened.rows_at(order[np.searchsorted(screened.number, numbers, sorter=order)])
        again = self.screen(numbers).rows
        for number, one, other in zip(numbers, kept, again, strict=True):
            if not np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
                raise GptTraderError(
                    f"the sweep kept another outcome of {self.space.at(number)} than trying it again gives: a strategy "
                    "that is not deterministic, or a damaged cache (`gpt-trader cache clear`)"
                )

    def targets(self, number: int) -> Floats | NoTargets:
        """Return a combination's targets on `bars[first:]`, or why there are none."""
        found = np.empty(len(self.bars) - self.first)
        none = self.write(number, lambda whole: found)
        return found if none is None else none

    def write(
        self, number: int, room: Callable[[bool], Floats | Sides], *, unchecked: bool = False
    ) -> NoTargets | None:
        """Write a combination's targets on `bars[first:]`, or return why there are none.

        `room(whole)` is where: float64, or int8 where they are `whole`. Those of a compiled function are left as they
        come, and may be whole, where they may be `unchecked`.
        """
        try:
            candidate = self.candidate(number)
        except Refused as refused:
            return NoTargets(SKIPPED, refused.detail)
        except Exception as error:  # noqa: BLE001 - a user's validator: shown and counted, and the study goes on
            return NoTargets(FAILED, f"{type(error).__name__}: {error}"[:500])
        try:
            bars, first = self.bars, self.first
            require_bars(bars, first, candidate, self.request)
            compiled = candidate.compiled(bars) if unchecked else None
            if compiled is None:
                room(False)[:] = wanted_targets(candidate, bars, first, self.request)
            else:
                write_to, inputs, whole = compiled
                write_to(*inputs, first, room(whole))
        except (Refused, NotEnoughBars) as refused:
            return NoTargets(FAILED, refused.detail)
        except Exception as error:  # noqa: BLE001 - a user's code: shown and counted, and the study goes on
            return NoTargets(FAILED, f"{type(error).__name__}: {error}"[:500])
        return None


@dataclass(frozen=True)
class NoTargets:
    """Why a combination cannot be traded: it is `SKIPPED` or has `FAILED`."""

    state: int
    reason: str
