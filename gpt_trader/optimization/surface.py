"""The objective over one or two of the searched parameters, thinned to what a page can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.bars import Floats
from gpt_trader.optimization.neighborhood import neighbors
from gpt_trader.optimization.result import OptimizeResult
from gpt_trader.optimization.space import Places, SearchSpace
from gpt_trader.optimization.study import FAILED, RUN, SKIPPED
from gpt_trader.requests import ParamValue

#: What is known of a cell; of several trials in one, the greatest counts.
STATES: Final = ("not tried", "skipped", "failed", "undefined", "")
VALUE: Final = len(STATES) - 1
_STATE_OF: Final = {SKIPPED: 1, FAILED: 2, RUN: 3}

#: Groups of values in which a parameter's weight is measured: with many, chance alone would explain the objective.
_GROUPS: Final = 8


@dataclass(frozen=True)
class Axis:
    """A searched parameter in a picture: a label for each group of `group` consecutive values."""

    name: str
    labels: tuple[str, ...]
    group: int


@dataclass(frozen=True)
class Surface:
    """The best objective in each cell (NaN: none) and the cell's index into `STATES`; arrays have the axes' shape.

    `best` is the cell of the best combination, `neighbors` those of its neighbors among the tried ones, where another.
    """

    axes: tuple[Axis, ...]
    value: Floats
    state: NDArray[np.int8]
    best: tuple[int, ...]
    neighbors: frozenset[tuple[int, ...]]


def varied(space: SearchSpace) -> list[str]:
    """Return the parameters with more than one value, in order."""
    return [name for name, values in space.values.items() if len(values) > 1]


def weights(result: OptimizeResult) -> dict[str, float]:
    """Return for each varied parameter which share of the objective's variance its values explain, the most first.

    Each by itself, of the trials with an objective; 0 where nothing varies.
    """
    space, defined = result.study.space, np.isfinite(result.objective)
    value = result.objective[defined]
    off = value - value.mean()
    total = float((off**2).sum())
    places = space.places_of(result.screened.number[defined])
    found = {}
    for name in varied(space):
        column = list(space.values).index(name)
        group = places[:, column] // _group_size(space, name, _GROUPS)
        count = np.bincount(group)
        between = float((np.bincount(group, off) ** 2 / np.maximum(count, 1)).sum())
        found[name] = between / total if total > 0 else 0.0
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def surface(result: OptimizeResult, names: Sequence[str], most: int) -> Surface:
    """Return the objective over these parameters, at most `most` cells along each; the rest is the best of the others.

    Where a parameter has more values, consecutive ones share a cell.
    """
    space = result.study.space
    axes = tuple(_axis(space, name, most) for name in names)
    shape = tuple(len(axis.labels) for axis in axes)
    columns = [list(space.values).index(name) for name in names]
    sizes = np.array([axis.group for axis in axes])

    def cells(numbers: Sequence[int] | Places) -> Places:
        found: Places = space.places_of(numbers)[:, columns] // sizes
        return found

    at = np.ravel_multi_index(tuple(cells(result.screened.number).T), shape)
    value, state = np.full(math.prod(shape), np.nan), np.zeros(math.prod(shape), np.int8)
    np.fmax.at(value, at, result.objective)
    for code, rank in _STATE_OF.items():
        np.maximum.at(state, at[result.screened.state == code], np.int8(rank))
    state[np.isfinite(value)] = VALUE
    best = _cell(cells([result.numbers[0]])[0])
    tried = result.screened.number
    around = neighbors(space, tried, tried.tolist().index(result.numbers[0]), result.study.request.method)
    near = frozenset(_cell(row) for row in cells(tried[around]))
    return Surface(axes, value.reshape(shape), state.reshape(shape), best, near - {best})


def written(value: ParamValue) -> str:
    """Return a parameter's value as shown: 0.3, not 0.30000000000000004."""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _axis(space: SearchSpace, name: str, most: int) -> Axis:
    values, group = space.values[name], _group_size(space, name, most)
    parts = [values[first : first + group] for first in range(0, len(values), group)]
    labels = (
        written(part[0]) if len(part) == 1 else f"{written(part[0])} … {written(part[-1])}" for part in parts
    )
    return Axis(name, tuple(labels), group)


def _group_size(space: SearchSpace, name: str, most: int) -> int:
    return -(-len(space.values[name]) // most)


def _cell(row: Places) -> tuple[int, ...]:
    return tuple(row.tolist())
