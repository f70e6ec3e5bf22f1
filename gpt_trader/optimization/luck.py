"""Is the best of many trials more than luck? The statistics that the verdict on an optimization rests on.

Sharpe ratios here are per bar, not annualized; what is undefined is None, never NaN. Sources:

- Bailey & López de Prado, The Sharpe Ratio Efficient Frontier, Journal of Risk 15(2), 2012 (probabilistic Sharpe ratio,
  minimum track record length);
- Bailey & López de Prado, The Deflated Sharpe Ratio, Journal of Portfolio Management 40(5), 2014;
- Bailey, Borwein, López de Prado & Zhu, The Probability of Backtest Overfitting, Journal of Computational Finance
  20(4), 2017 (combinatorially symmetric cross-validation).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.bars import Floats

_NORMAL: Final = NormalDist()
_EULER: Final = 0.5772156649015329

#: Numbers that one step of the cross-validation works on at once: 32 MB for each of a few arrays.
_AT_ONCE: Final = 4_000_000


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
        if bars < 2 or variance == 0.0:
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


@dataclass(frozen=True)
class CrossValidation:
    """What combinatorially symmetric cross-validation says: shares of the splits of time.

    `overfitting` (PBO): the best of one half is below the median of the other. `loss`: it loses there.
    """

    overfitting: float
    loss: float


def cross_validated(sums: Floats, squares: Floats, lengths: NDArray[np.int64]) -> CrossValidation | None:
    """Return how the best of one half of the time does in the other, over every way to choose half of the blocks.

    Args:
        sums: Σ of the returns in each block of time, (blocks, trials).
        squares: Σ of their squares, likewise.
        lengths: Bars in each block, (blocks,); the number of blocks is even.

    The trial with the best Sharpe ratio in the one half is ranked by its Sharpe ratio in the other. A trial that never
    moves has a ratio of 0. None for fewer than two trials.
    """
    blocks, trials = sums.shape
    if trials < 2 or blocks < 2 or blocks % 2 or int(lengths.min()) < 2:
        return None
    below = lost = splits = 0
    total_sum, total_square, bars = sums.sum(axis=0), squares.sum(axis=0), int(lengths.sum())
    for chosen in _halves(blocks, max(1, _AT_ONCE // trials)):
        one_sum, one_square = chosen @ sums, chosen @ squares
        one_bars = (chosen @ lengths)[:, None]
        inside = _ratios(one_sum, one_square, one_bars)
        outside = _ratios(total_sum - one_sum, total_square - one_square, bars - one_bars)
        best = np.argmax(inside, axis=1)
        mine = np.take_along_axis(outside, best[:, None], axis=1)
        rank = (outside < mine).sum(axis=1) + (
            (outside == mine).sum(axis=1) + 1
        ) / 2  # ties share their ranks
        below += int((rank / (trials + 1) <= 0.5).sum())
        lost += int((mine < 0.0).sum())
        splits += len(best)
    return CrossValidation(below / splits, lost / splits)


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


def _ratios(total: Floats, square: Floats, bars: NDArray[np.int64]) -> Floats:
    """Return Sharpe ratios per bar from sums; 0 where nothing moves."""
    variance = square - total**2 / bars
    moving = variance > 1e-18 * np.maximum(square, 1e-300)
    ratio = np.zeros_like(total)
    np.divide(
        total / bars,
        np.sqrt(variance / (bars - 1), where=moving, out=np.ones_like(variance)),
        out=ratio,
        where=moving,
    )
    return ratio


@lru_cache(maxsize=4)
def _every_half(blocks: int) -> NDArray[np.int8]:
    """Return every choice of half of the blocks, (splits, blocks) of 0 and 1."""
    chosen = list(combinations(range(blocks), blocks // 2))
    table = np.zeros((len(chosen), blocks), np.int8)
    table[np.arange(len(chosen))[:, None], np.array(chosen)] = 1
    return table


def _halves(blocks: int, at_once: int) -> Iterator[NDArray[np.int64]]:
    table = _every_half(blocks)
    for first in range(0, len(table), at_once):
        yield table[first : first + at_once].astype(np.float64)
