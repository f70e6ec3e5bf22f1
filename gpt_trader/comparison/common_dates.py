"""Equity curves of several runs on the dates that they share, and how their returns go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.backtesting import metrics as measure
from gpt_trader.bars import Floats, Times
from gpt_trader.comparison.contenders import Contender
from gpt_trader.instruments import TIMEFRAMES

#: Fewer common returns than this say nothing of how two runs go together.
LEAST_RETURNS: Final = 2


@dataclass(frozen=True)
class CommonDates:
    """Equity on common dates: labels of bars (n,), and each run's growth since the first, (runs, n)."""

    run_ids: tuple[str, ...]
    time: Times
    growth: Floats


@dataclass(frozen=True)
class _Curve:
    """A run's equity at the close of bars of the length `step`, labeled by their open `time`."""

    run_id: str
    step: np.timedelta64
    time: Times
    equity: Floats

    def at(self, close: Times) -> NDArray[np.intp]:
        """Return for each moment the index of the last bar that has closed by then; −1: none has."""
        return np.searchsorted(self.time + self.step, close, side="right") - 1


def common_dates(contenders: Sequence[Contender]) -> CommonDates | None:
    """Return the equity of the runs that have any on the dates that all of these share; None where there are none.

    Of bars of one length these are the labels that all have. Of several lengths they are labels of the longest, and of
    shorter bars the last that has closed by the end of the long one counts. Each curve is divided by its value on the
    first common date; one that is worth nothing there is left out.
    """
    curves = [
        _Curve(each.run_id, np.timedelta64(TIMEFRAMES[each.timeframe or "1d"], "us"), each.time, each.equity)
        for each in contenders
        if each.time is not None and each.equity is not None
    ]
    if not curves:
        return None
    longest = max(curve.step for curve in curves)
    time: Times = reduce(np.intersect1d, [curve.time for curve in curves if curve.step == longest])
    shared = [(curve.at(time + longest) >= 0) & (time <= curve.time[-1]) for curve in curves]
    time = time[np.logical_and.reduce(shared)]
    if not len(time):
        return None
    equity = {curve.run_id: curve.equity[curve.at(time + longest)] for curve in curves}
    growth = {run_id: values / values[0] for run_id, values in equity.items() if values[0] > 0}
    return CommonDates(tuple(growth), time, np.array(list(growth.values()))) if growth else None


def correlation(growth: Floats) -> list[list[float | None]] | None:
    """Return Pearson's correlation of the returns of each two curves (runs, n), 1 of one with itself.

    None for a run whose returns never differ, and instead of all for fewer than two returns.
    """
    change = np.array([measure.returns(curve)[1:] for curve in growth])
    if change.shape[1] < LEAST_RETURNS:
        return None
    off = change - change.mean(axis=1, keepdims=True)
    length = np.sqrt((off**2).sum(axis=1))
    # Less is the rounding of returns that are all the same.
    moves = length > 1e-12 * np.sqrt((change**2).sum(axis=1))

    def coefficient(a: int, b: int) -> float | None:
        if not (moves[a] and moves[b]):
            return None
        value = 1.0 if a == b else float(np.dot(off[a], off[b]) / length[a] / length[b])
        return min(max(value, -1.0), 1.0)

    runs = range(len(off))
    return [[coefficient(a, b) for b in runs] for a in runs]
