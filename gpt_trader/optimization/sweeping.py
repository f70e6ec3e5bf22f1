"""Simulates the targets of many trials, as many at once as a processor's cache holds; each leaves a row of sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.backtesting.engine import sides
from gpt_trader.bars import Flags, Floats, Sides
from gpt_trader.optimization.screening import COLUMNS, WIDTH
from gpt_trader.simulation import kernel

if TYPE_CHECKING:
    from gpt_trader.optimization.study import NoTargets, Study

#: So many trials are simulated by one call at most, and their targets take so many bytes: a core's cache holds them.
_TOGETHER: Final = 64
_CACHE: Final = 1_000_000


class _Room:
    """Targets that wait to be simulated together, (together, bars), and the places of their trials."""

    def __init__(self, kind: type[np.generic], trials: int, bars: int) -> None:
        together = max(1, min(_TOGETHER, trials, _CACHE // (np.dtype(kind).itemsize * max(bars, 1))))
        self.targets: NDArray[Any] = np.empty((together, bars), kind)
        self.each: list[NDArray[Any]] = list(self.targets)
        self.places: list[int] = []


class Sweep:
    """Rows of sums of trials, whose targets are written to `room` one after another.

    What it needs beside the rows depends neither on how many trials there are nor, but for one trial's targets, on how
    many bars.

    Attributes:
        state: What became of each trial, (m,).
        sums: The first columns of their rows, (m, len(COLUMNS)), NaN where there is none.
        blocks: The others, (m, WIDTH − len(COLUMNS)).
        reasons: Why there is none, by number.
    """

    def __init__(self, study: Study, numbers: Sequence[int]) -> None:
        self.state = np.zeros(len(numbers), np.int8)
        self.sums = np.full((len(numbers), len(COLUMNS)), np.nan)
        self.blocks = np.full((len(numbers), WIDTH - len(COLUMNS)), np.nan)
        self.reasons: dict[int, str] = {}
        self._study, self._numbers = study, numbers
        self._terms, self._sides = kernel.terms_of(study.request), sides(study.request)
        self._pieces = [
            (slice(piece.start - study.first, piece.stop - study.first), kernel.prices_of(study.bars[piece]))
            for piece in study.pieces
        ]
        alone = self._pieces[0][1].close if len(self._pieces) == 1 else np.empty(0)
        self._market = kernel.market(alone)
        whole = sum(len(prices.close) for _, prices in self._pieces) if len(self._pieces) > 1 else 0
        self._curve = kernel.Curve.empty(whole)
        self._rooms: dict[bool, _Room] = {}
        self._asked: _Room

    def room(self, whole: bool) -> Floats | Sides:
        """Return where the targets of the next trial are to be written: int8 where they are `whole`, else float64."""
        room = self._rooms.get(whole)
        if room is None:
            bars = len(self._study.bars) - self._study.first
            room = self._rooms[whole] = _Room(np.int8 if whole else np.float64, len(self._numbers), bars)
        self._asked = room
        return room.each[len(room.places)]

    def add(self, place: int) -> None:
        """Take what was written to `room` as the targets of the trial at this place."""
        room = self._asked
        room.places.append(place)
        if len(room.places) == len(room.each):
            self._simulate(room)

    def miss(self, place: int, none: NoTargets) -> None:
        """Note why the trial at this place has no targets."""
        self.state[place], self.reasons[self._numbers[place]] = none.state, none.reason

    def simulate(self) -> None:
        """Simulate what is left in the rooms."""
        for room in self._rooms.values():
            self._simulate(room)

    def _simulate(self, room: _Room) -> None:
        """Simulate what was added to a room since the last time."""
        places, room.places = room.places, []
        rows, odd = self._simulated(room.targets[: len(places)])
        self._keep(places, rows)
        for place in [places[at] for at in np.flatnonzero(odd)]:
            targets = self._study.targets(self._numbers[place])
            if isinstance(targets, np.ndarray):  # it had a side that the request does not trade
                self._keep([place], self._simulated(targets.reshape(1, -1))[0])
            else:
                self.miss(place, targets)

    def _keep(self, places: list[int], rows: Floats) -> None:
        """Keep the rows of the trials at these places."""
        self.sums[places], self.blocks[places] = rows[:, : len(COLUMNS)], rows[:, len(COLUMNS) :]

    def _simulated(self, targets: Floats | Sides) -> tuple[Floats, Flags]:
        """Return the rows of targets (m, bars), and which targets are odd (see `kernel.Rows`)."""
        capital, (low, high) = self._study.request.capital, self._sides
        sums, odd = np.full((len(targets), WIDTH), np.nan), np.zeros(len(targets), np.bool_)
        if len(self._pieces) == 1:
            ((_, prices),) = self._pieces
            found = kernel.Rows(self._market, low, high, sums, odd)
            kernel.sweep(prices, kernel.Wishes.of(targets), capital, self._terms, found)
            return sums, odd
        odd[:] = ~((targets >= low) & (targets <= high)).all(axis=1)
        for trial in np.flatnonzero(~odd):
            wanted = targets[trial].astype(np.float64)
            tally = _run(self._pieces, wanted, capital, self._terms, self._curve)
            kernel.summarize(self._curve.equity, capital, tally, sums[trial])
        return sums, odd


def _run(
    pieces: list[tuple[slice, kernel.Prices]],
    targets: Floats,
    capital: float,
    terms: kernel.Terms,
    curve: kernel.Curve,
) -> kernel.Tally:
    """Trade the pieces one after another and write the curve of all; return what the trades of all add up to."""
    tallies, done = [], 0
    for places, prices in pieces:
        part = slice(done, done + len(prices.close))
        its = kernel.Curve(curve.equity[part], curve.position[part])
        if capital > 0.0:
            tallies.append(kernel.run(prices, targets[places], capital, terms, its))
        else:  # a piece before was ruinous
            its.equity[:], its.position[:] = 0.0, 0.0
        done = part.stop
        if done < len(curve.equity):
            its.equity[-1] = kernel.sold(its.equity[-1], its.position[-1], prices.close[-1], terms)
        capital = float(its.equity[-1])
    return kernel.Tally(*(sum(values) for values in zip(*tallies, strict=True)))
