"""Simulates the targets of many trials, as many at once as a processor's cache holds; each leaves a row of sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from gpt_trader.backtesting.engine import sides
from gpt_trader.bars import Floats
from gpt_trader.optimization.screening import WIDTH
from gpt_trader.simulation import kernel

if TYPE_CHECKING:
    from gpt_trader.optimization.study import NoTargets, Study

#: So many trials are simulated by one call at most, and their targets take so many bytes: a core's cache holds them.
_TOGETHER: Final = 64
_CACHE: Final = 1_000_000


class Sweep:
    """Rows of sums of trials, whose targets are written to `room` one after another.

    What it needs beside the rows depends neither on how many trials there are nor, but for one trial's targets, on how
    many bars.

    Attributes:
        state: What became of each trial, (m,).
        rows: Their rows, (m, WIDTH), NaN where there is none.
        reasons: Why there is none, by number.
    """

    def __init__(self, study: Study, numbers: Sequence[int]) -> None:
        self.state = np.zeros(len(numbers), np.int8)
        self.rows = np.full((len(numbers), WIDTH), np.nan)
        self.reasons: dict[int, str] = {}
        bars = len(study.bars) - study.first
        self._study, self._numbers = study, numbers
        self._terms = kernel.terms_of(study.request)
        self._pieces = [
            (slice(piece.start - study.first, piece.stop - study.first), kernel.prices_of(study.bars[piece]))
            for piece in study.pieces
        ]
        together = max(1, min(_TOGETHER, len(numbers), _CACHE // (8 * max(bars, 1))))
        self._targets = np.empty((together, bars))
        market = kernel.market(self._pieces[0][1].close) if len(self._pieces) == 1 else np.empty((0, 3))
        sums, odd = np.empty((together, WIDTH)), np.zeros(together, np.bool_)
        self._room = kernel.Rows(market, *sides(study.request), sums, odd)
        whole = sum(len(prices.close) for _, prices in self._pieces) if len(self._pieces) > 1 else 0
        self._curve = kernel.Curve.empty(whole)
        self._places: list[int] = []

    @property
    def room(self) -> Floats:
        """Where the targets of the next trial are to be written."""
        room: Floats = self._targets[len(self._places)]
        return room

    def add(self, place: int) -> None:
        """Take what was written to `room` as the targets of the trial at this place."""
        self._places.append(place)
        if len(self._places) == len(self._targets):
            self.simulate()

    def miss(self, place: int, none: NoTargets) -> None:
        """Note why the trial at this place has no targets."""
        self.state[place], self.reasons[self._numbers[place]] = none.state, none.reason

    def simulate(self) -> None:
        """Simulate what was added since the last time."""
        places, self._places = self._places, []
        found = self._simulated(len(places))
        self.rows[places] = found.sums
        for place in [places[at] for at in np.flatnonzero(found.odd)]:
            none = self._study.write(self._numbers[place], self._targets[0])
            if none is not None:
                self.miss(place, none)
            else:  # it had a side that the request does not trade
                self.rows[place] = self._simulated(1).sums[0]

    def _simulated(self, count: int) -> kernel.Rows:
        """Return what comes of the first so many targets."""
        capital, targets = self._study.request.capital, self._targets[:count]
        market, low, high, sums, odd = self._room
        found = kernel.Rows(market, low, high, sums[:count], odd[:count])
        if len(self._pieces) == 1:
            ((_, prices),) = self._pieces
            kernel.sweep(prices, targets, capital, self._terms, found)
            return found
        found.odd[:] = ~((targets >= low) & (targets <= high)).all(axis=1)
        for trial in np.flatnonzero(~found.odd):
            tally = _run(self._pieces, targets[trial], capital, self._terms, self._curve)
            kernel.summarize(self._curve.equity, capital, tally, found.sums[trial])
        return found


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
