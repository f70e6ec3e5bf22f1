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
    "m3",
    "m4",
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
def summarize(equity: Floats, found: Tally, row: Floats) -> None:
    """Write the row (WIDTH,) of an equity curve (n,)."""
    bars = len(equity)
    total, peak, depth, downside = 0.0, equity[0], 0.0, 0.0
    base = len(COLUMNS)
    row[base:] = 0.0
    before = equity[0]
    for i in range(bars):
        value = equity[i]
        change = value / before - 1.0 if before != 0.0 and i else 0.0
        before = value
        total += change
        if change < 0.0:
            downside += change * change
        peak = max(peak, value)
        depth = min(depth, value / peak - 1.0)
        block = i * BLOCKS // bars
        row[base + block] += change
        row[base + BLOCKS + block] += change * change
    mean = total / bars
    m2, m3, m4 = 0.0, 0.0, 0.0
    before = equity[0]
    for i in range(bars):
        change = equity[i] / before - 1.0 if before != 0.0 and i else 0.0
        before = equity[i]
        off = change - mean
        square = off * off
        m2 += square
        m3 += square * off
        m4 += square * square
    row[0], row[1], row[2], row[3], row[4] = equity[bars - 1], mean, m2, m3, m4
    row[5], row[6] = downside, depth
    row[7], row[8], row[9] = found.entries, found.closed, found.wins
    row[10], row[11], row[12] = found.gained, found.lost, found.held


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
