"""What a sweep keeps of each trial: one row of sums, from which every objective and the overfitting tests follow.

The formulas are those of `gpt_trader.backtesting.metrics`, which sums exactly; here sums are plain, for speed. Tests
hold the two equal to 1e-9, a sweep's best are simulated and measured anew by the engine of record, and every number
that a user is shown of them is the engine's.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit

from gpt_trader.bars import Floats
from gpt_trader.requests import Objective
from gpt_trader.simulation.kernel import Tally

#: Blocks of time for which sums are kept: what combinatorially symmetric cross-validation is made of.
BLOCKS: Final = 16


#: The columns of a row, before the sums and the sums of squares of the blocks' returns.
COLUMNS: Final = (
    "final",  # equity at the last close
    "mean",  # of the bars' returns
    "m2",  # Σ (r − mean)²
    "downside",  # Σ min(r, 0)²
    "depth",  # of the deepest drawdown, ≤ 0
    "entries",
    "closed",
    "wins",
    "gained",
    "lost",
    "held",
)
WIDTH: Final = len(COLUMNS) + 2 * BLOCKS


@njit(cache=True, error_model="numpy", nogil=True)
def summarize(equity: Floats, found: Tally, change: Floats, row: Floats) -> None:
    """Write the row (WIDTH,) of an equity curve (n,); `change` (n,) is room for its returns."""
    bars, base = len(equity), len(COLUMNS)
    change[0] = 0.0
    if equity[bars - 1] == 0.0:  # ruined on the way: nothing comes of nothing
        for i in range(1, bars):
            change[i] = equity[i] / equity[i - 1] - 1.0 if equity[i - 1] != 0.0 else 0.0
    else:
        for i in range(1, bars):
            change[i] = equity[i] / equity[i - 1] - 1.0
    total, squares, downside = 0.0, 0.0, 0.0
    peak, depth = equity[0], 0.0
    for block in range(BLOCKS):
        first, stop = -(-block * bars // BLOCKS), -(-(block + 1) * bars // BLOCKS)
        one, square = 0.0, 0.0
        for i in range(first, stop):
            one += change[i]
            square += change[i] * change[i]
            fall = min(change[i], 0.0)
            downside += fall * fall
            peak = max(peak, equity[i])
            if equity[i] < peak * (1.0 + depth):
                depth = equity[i] / peak - 1.0
        row[base + block], row[base + BLOCKS + block] = one, square
        total += one
        squares += square
    mean = total / bars
    row[0], row[1], row[2] = equity[bars - 1], mean, max(squares - total * mean, 0.0)
    row[3], row[4] = downside, depth
    row[5], row[6], row[7] = found.entries, found.closed, found.wins
    row[8], row[9], row[10] = found.gained, found.lost, found.held


def objective_of(
    rows: Floats, objective: Objective, bars: int, capital: float, periods_a_year: float
) -> Floats:
    """Return a metric of many rows (m, WIDTH), shape (m,); NaN where it is undefined (there it is None elsewhere)."""
    of = {name: rows[:, place] for place, name in enumerate(COLUMNS)}
    year = math.sqrt(periods_a_year)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        growth = of["final"] / capital
        yearly = growth ** (periods_a_year / bars) - 1.0
        values: dict[str, Floats] = {
            "total_return": growth - 1.0,
            "annualized_return": yearly,
            "sharpe": of["mean"] / np.sqrt(of["m2"] / (bars - 1)) * year,
            "sortino": of["mean"] / np.sqrt(of["downside"] / bars) * year,
            "calmar": yearly / np.abs(of["depth"]),
            "max_drawdown": of["depth"],
            "win_rate": of["wins"] / of["closed"],
            "profit_factor": of["gained"] / -of["lost"],
            "expectancy": (of["gained"] + of["lost"]) / of["closed"],
        }
    found = values[objective]
    return np.where(np.isfinite(found), found, np.nan)
