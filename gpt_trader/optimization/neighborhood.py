"""Is the winner a hill or a lone peak? What its neighbors among the tried combinations make of the same bars.

A combination is a point of places, (parameters,): for each searched parameter the place of its value among the
parameter's values, from 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpt_trader.bars import Floats
from gpt_trader.optimization.space import Places, SearchSpace


def neighbors(space: SearchSpace, numbers: Places, best: int, method: str) -> NDArray[np.intp]:
    """Return which of the tried combinations (m,) are the neighbors of the one at `best`.

    In a grid those one step away, parameter by parameter; of ones that were drawn or chosen the nearest, nearest first.
    """
    places = space.places_of(numbers)
    if method != "grid":
        return nearest(places, best)
    near = steps_away(places, best)
    parameter = np.abs(places[near] - places[best]).argmax(axis=1)
    return near[np.argsort(parameter, kind="stable")]


def steps_away(places: Places, best: int) -> NDArray[np.intp]:
    """Return which of the points (trials, parameters) are one step from the best in one parameter: for grids."""
    return np.flatnonzero(np.abs(places - places[best]).sum(axis=1) == 1)


def nearest(places: Places, best: int) -> NDArray[np.intp]:
    """Return the points nearest to the best, nearest first, for searches that draw: as many as a grid point has.

    That is two a parameter. Distances are Euclidean, each parameter scaled to [0, 1] over the points; one that is the
    same in all counts for nothing. Of equally distant ones the earlier first.
    """
    low, high = places.min(axis=0), places.max(axis=0)
    varied = high > low
    unit = (places - places[best])[:, varied] / (high - low)[varied]
    distance = (unit**2).sum(axis=1)
    distance[best] = np.inf
    order = np.argsort(distance, kind="stable")
    return order[: min(2 * int(varied.sum()), len(places) - 1)]


def kept(objective: Floats, best: int, near: NDArray[np.intp]) -> float | None:
    """Return the median objective of the neighbors over the best's own: 1 on a plateau, ≤ 0 where they gain nothing.

    Neighbors without a defined objective (NaN) are left out. None without any neighbor, and where the best's own
    objective is not above 0: a share of a loss says nothing.
    """
    values = objective[near]
    values = values[np.isfinite(values)]
    own = float(objective[best])
    return float(np.median(values)) / own if len(values) and own > 0.0 else None
