"""The formulas of metrics, for one curve (floats) and for many trials of a sweep at once (arrays) alike.

`metrics` feeds them with exactly rounded sums of a curve, `gpt_trader.optimization.screening` with sums that a sweep
added up while trading. When a metric is undefined is theirs to say.
"""

from __future__ import annotations

import math
from typing import TypeVar

from gpt_trader.bars import Floats

Number = TypeVar("Number", float, Floats)


def total_return(final: Number, capital: float) -> Number:
    """Return what was gained, as a fraction of the capital."""
    return final / capital - 1.0


def annualized(final: Number, capital: float, bars: int, periods_a_year: float) -> Number:
    """Return the compound growth of a year: `(final / capital)^(periods_a_year / bars) − 1`."""
    grown: Number = (final / capital) ** (periods_a_year / bars)
    return grown - 1.0


def over_risk(mean: Number, risk: Number, periods_a_year: float) -> Number:
    """Return a mean return over its risk, a bar's both, for a year: by the deviation Sharpe's, else Sortino's."""
    return mean / risk * math.sqrt(periods_a_year)


def over_fall(yearly: Number, depth: Number) -> Number:
    """Return a year's return over the deepest fall (≤ 0): Calmar's ratio."""
    return yearly / abs(depth)


def profit_factor(gained: Number, lost: Number) -> Number:
    """Return what the winning trades gained over what the losing ones lost (≤ 0)."""
    return gained / -lost
