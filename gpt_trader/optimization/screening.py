"""What a sweep keeps of each trial: one row of sums, from which every objective and the overfitting tests follow.

The formulas are those of `gpt_trader.backtesting.metrics` (`ratios`), which sums exactly; here sums are plain, for
speed. Tests hold the two equal to 1e-9, a sweep's best are simulated and measured anew by the engine of record, and
every number that a user is shown of them is the engine's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gpt_trader.backtesting import ratios
from gpt_trader.bars import Floats
from gpt_trader.requests import Objective
from gpt_trader.simulation.kernel import BLOCKS, COLUMNS, WIDTH

__all__ = ["BLOCKS", "COLUMNS", "WIDTH", "blocks_of", "objective_of"]


def objective_of(
    sums: Floats, objective: Objective, bars: int, capital: float, periods_a_year: float
) -> Floats:
    """Return a metric of the first columns (m, len(COLUMNS)) of many rows, shape (m,).

    NaN where it is undefined (there it is None elsewhere).
    """
    of = {name: sums[:, place] for place, name in enumerate(COLUMNS)}

    def yearly() -> Floats:
        return ratios.annualized(of["final"], capital, bars, periods_a_year)

    values: dict[str, Callable[[], Floats]] = {
        "total_return": lambda: ratios.total_return(of["final"], capital),
        "annualized_return": yearly,
        "sharpe": lambda: ratios.over_risk(of["mean"], np.sqrt(of["m2"] / (bars - 1)), periods_a_year),
        "sortino": lambda: ratios.over_risk(of["mean"], np.sqrt(of["downside"] / bars), periods_a_year),
        "calmar": lambda: ratios.over_fall(yearly(), of["depth"]),
        "max_drawdown": lambda: of["depth"],
        "win_rate": lambda: of["wins"] / of["closed"],
        "profit_factor": lambda: ratios.profit_factor(of["gained"], of["lost"]),
        "expectancy": lambda: (of["gained"] + of["lost"]) / of["closed"],
    }
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = values[objective]()
    return np.where(np.isfinite(found), found, np.nan)


def blocks_of(rows: Floats, bars: int) -> tuple[Floats, Floats, Floats, Floats, NDArray[np.int64]]:
    """Return Σr, Σr², Σ min(r, 0)² and growth (a logarithm) of many rows by block, (BLOCKS, m) each; bars (BLOCKS,)."""
    edges = -(-np.arange(BLOCKS + 1) * bars // BLOCKS)
    sums, squares, downside, growth = np.split(rows[:, len(COLUMNS) :].T, 4)
    return sums, squares, downside, growth, np.diff(edges).astype(np.int64)
