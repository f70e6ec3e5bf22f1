"""Is the best of many trials more than luck? The statistics that the verdict on an optimization rests on.

Sharpe ratios here are per bar, not annualized; what is undefined is None, never NaN. Sources:

- Bailey & López de Prado, The Sharpe Ratio Efficient Frontier, Journal of Risk 15(2), 2012 (probabilistic Sharpe ratio,
  minimum track record length);
- Bailey & López de Prado, The Deflated Sharpe Ratio, Journal of Portfolio Management 40(5), 2014.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from gpt_trader.bars import Floats

_NORMAL: Final = NormalDist()
_EULER: Final = 0.5772156649015329

#: Returns whose variance is less than this share of their mean square are constant, but for rounding.
_CONSTANT: Final = 1e-12


@dataclass(frozen=True)
class Moments:
    """Of n returns: their Sharpe ratio per bar (None: no variance), skewness, and kurtosis (3: normal)."""

    bars: int
    sharpe: float | None
    skewness: float
    kurtosis: float

    @classmethod
    def of(cls, change: Floats) -> Moments:
        """Return the moments of returns (n,); the Sharpe ratio has the sample deviation (n − 1)."""
        bars = len(change)
        off = change - change.mean()
        variance = float((off**2).mean())
        if bars < 2 or variance <= _CONSTANT * float((change**2).mean()):
            return cls(bars, None, 0.0, 3.0)
        sharpe = float(change.mean()) / math.sqrt(variance * bars / (bars - 1))
        return cls(bars, sharpe, float((off**3).mean()) / variance**1.5, float((off**4).mean()) / variance**2)


def probabilistic_sharpe(found: Moments, benchmark: float = 0.0) -> float | None:
    """Return the probability that the true Sharpe ratio is above `benchmark` (per bar); None without a Sharpe ratio.

    Φ((SR − SR*)·√(n − 1) / √(1 − γ₃·SR + (γ₄ − 1)/4·SR²)), equation 3 of the paper of 2012.
    """
    spread = _spread(found)
    if found.sharpe is None or spread is None:
        return None
    return _NORMAL.cdf((found.sharpe - benchmark) * math.sqrt(found.bars - 1) / spread)


def expected_maximum(trials: int, variance: float) -> float:
    """Return the Sharpe ratio (per bar) to expect of the best of so many trials without any skill.

    √V·((1 − γ)·Φ⁻¹(1 − 1/N) + γ·Φ⁻¹(1 − 1/(N·e))), with V the variance of the trials' Sharpe ratios and Euler's γ.
    """
    if trials < 2 or variance <= 0.0:
        return 0.0
    first, second = _NORMAL.inv_cdf(1 - 1 / trials), _NORMAL.inv_cdf(1 - 1 / (trials * math.e))
    return math.sqrt(variance) * ((1 - _EULER) * first + _EULER * second)


def deflated_sharpe(best: Moments, trials: int, variance: float) -> float | None:
    """Return the probability that the best's true Sharpe ratio is above what luck gives the best of so many trials."""
    return probabilistic_sharpe(best, expected_maximum(trials, variance))


def minimum_track_record(found: Moments, benchmark: float = 0.0, confidence: float = 0.95) -> float | None:
    """Return how many bars are needed to believe, with this confidence, a Sharpe ratio above `benchmark` (per bar).

    1 + (1 − γ₃·SR + (γ₄ − 1)/4·SR²)·(Φ⁻¹(confidence) / (SR − SR*))². None where the ratio is not above it.
    """
    spread = _spread(found)
    if found.sharpe is None or spread is None or found.sharpe <= benchmark:
        return None
    return 1.0 + (spread * _NORMAL.inv_cdf(confidence) / (found.sharpe - benchmark)) ** 2


def effective_trials(sums: Floats, trials: int) -> float:
    """Return how many independent trials so many correlated ones are worth: ρ + (1 − ρ)·N, ρ their mean correlation.

    Appendix 3 of the paper of 2014. `sums` are the trials' block sums (blocks, tried): their correlation over the
    blocks stands for that of the returns.
    """
    off = sums - sums.mean(axis=0)
    norm = np.sqrt((off**2).sum(axis=0))
    moving = norm > 0
    count = int(moving.sum())
    if count < 2:
        return float(trials)
    unit = off[:, moving] / norm[moving]
    mean = float(((unit.sum(axis=1) ** 2).sum() - count) / (count * (count - 1)))
    rho = min(max(mean, 0.0), 1.0)
    return rho + (1.0 - rho) * trials


def _spread(found: Moments) -> float | None:
    if found.sharpe is None or found.bars < 2:
        return None
    square = 1.0 - found.skewness * found.sharpe + (found.kurtosis - 1.0) / 4.0 * found.sharpe**2
    return math.sqrt(square) if square > 0.0 else None
