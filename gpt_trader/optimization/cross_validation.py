"""Combinatorially symmetric cross-validation: does what is best on one half of the time stay good on the other half?

Bailey, Borwein, López de Prado & Zhu, The Probability of Backtest Overfitting, Journal of Computational Finance 20(4),
2017. Time is cut into S blocks; each of the C(S, S/2) ways to choose half of them is a split: the trial with the best
score on the chosen half is judged on the other. Half the splits mirror the other half, so each pair is summed once. A
score is a ratio per bar, not annualized: Sharpe's in the paper, else what the study maximizes, where that follows from
sums over blocks (`Score`).

Everything follows from sums over the blocks, so that the cost of a split does not grow with the bars. The sums are
added one trial beside the other, never by a matrix product: that rounds by a trial's place, so that equal trials would
no longer tie, and by the machine's number of cores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from itertools import combinations, pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt_trader.bars import Floats
from gpt_trader.compiling import compiled
from gpt_trader.errors import Problem, Refused

#: `Score`, as compiled code compares it.
SHARPE: Final = 0
GROWTH: Final = 2

#: Returns whose variance is less than this share of their mean square are constant, but for rounding.
_CONSTANT: Final = 1e-12


class Score(IntEnum):
    """By what the best of a half is chosen; what the second sums are of which `cross_validated` takes beside Σr.

    SHARPE: Σr², mean over standard deviation. SORTINO: Σ min(r, 0)², mean over downside deviation. GROWTH: the first
    sums are growths (logarithms), added; the second decide nothing.
    """

    SHARPE = SHARPE
    SORTINO = 1
    GROWTH = GROWTH


@dataclass(frozen=True)
class CrossValidation:
    """What the splits of time say of a search.

    Attributes:
        overfitting: PBO, the share of splits in which the best of one half is below the median of all trials on the
            other; a split in which it is the median counts half.
        loss: Share of splits in which it loses on the other half.
        degradation: Slope of its Sharpe ratio on the other half over that on the half it was chosen by. Both halves
            share one total, so that it is near −1 wherever the same trial wins most splits, with an edge or without:
            it describes, and tells no luck from skill. None where the ratio chosen by is always the same.
        splits: How many splits there were.
    """

    overfitting: float
    loss: float
    degradation: float | None
    splits: int


def block_sums(change: Floats, blocks: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return what `cross_validated` takes, of returns (bars, trials): Σr and Σr² (blocks, trials), bars (blocks,).

    Blocks are as equal as can be. Raises Refused for fewer bars than blocks.
    """
    bars = len(change)
    if bars < blocks:
        raise Refused.of(Problem("bars", bars, f"do not fill {blocks} blocks", allowed=f"at least {blocks}"))
    edges = -(-np.arange(blocks + 1) * bars // blocks)
    parts = [change[first:stop] for first, stop in pairwise(edges)]
    sums = np.array([part.sum(axis=0) for part in parts])
    squares = np.array([(part**2).sum(axis=0) for part in parts])
    return sums, squares, np.diff(edges).astype(np.int64)


def cross_validated(
    sums: Floats, squares: Floats, lengths: NDArray[np.int64], score: Score = Score.SHARPE
) -> CrossValidation | None:
    """Return how the best of one half of the time does in the other, over every way to choose half of the blocks.

    Args:
        sums: Σ of the returns in each block of time, (blocks, trials).
        squares: Σ of their squares, likewise (see `Score`).
        lengths: Bars in each block, (blocks,).
        score: By what trials are compared.

    A trial that does not move (SORTINO: that never loses) in a half has a ratio of 0 there. Trials that tie for the
    best count as one that does what they do on average. None for fewer than two trials, or a block of fewer than two
    bars. Memory is some 300 bytes a trial, whatever the number of splits. Raises Refused for an odd number of blocks,
    and where sums are not finite.
    """
    blocks, trials = sums.shape
    if blocks < 2 or blocks % 2:
        raise Refused.of(Problem("blocks", blocks, "cannot be halved", allowed="an even number"))
    wrong = int(np.count_nonzero(~(np.isfinite(sums) & np.isfinite(squares)).all(axis=0)))
    if wrong:
        message = f"are not finite numbers in {wrong} of {trials} trials"
        raise Refused.of(Problem("returns", wrong, message, allowed="finite numbers"))
    if trials < 2 or int(lengths.min()) < 2:
        return None
    halves = np.array([(0, *others) for others in combinations(range(1, blocks), blocks // 2 - 1)])
    found = np.empty((3, 2 * len(halves)))
    parts = Parts(np.ascontiguousarray(sums), np.ascontiguousarray(squares), lengths)
    _judge_all(parts, int(score), halves, found)
    inside, outside, below = found
    return CrossValidation(
        overfitting=float(below.mean()),
        loss=float(np.count_nonzero(outside < 0.0)) / len(outside),
        degradation=_slope(inside, outside),
        splits=len(outside),
    )


def _slope(x: Floats, y: Floats) -> float | None:
    off = x - x.mean()
    square = float((off**2).sum())
    return float((off * (y - y.mean())).sum()) / square if square > _CONSTANT * float((x**2).sum()) else None


class Parts(NamedTuple):
    """Σ (blocks, trials) of two kinds, and bars (blocks,)."""

    sums: Floats
    squares: Floats
    lengths: NDArray[np.int64]


@compiled(nogil=True)
def _judge_all(parts: Parts, score: int, halves: NDArray[np.int64], found: Floats) -> None:
    """Judge each half (pairs, S/2) and its mirror; write what `_judge` says of them, (3, 2·pairs).

    Halves come in order, so that from one to the next only the last few blocks differ: row k of `total` and `square`
    has the sums of the half's first k blocks. The mirror is the whole less the half. Both add blocks in the order of
    time, so that a trial which does not move in a half has a sum of exactly 0 there.
    """
    sums, squares, lengths = parts
    blocks, trials = sums.shape
    size = halves.shape[1]
    whole, whole_square = np.zeros(trials), np.zeros(trials)
    for block in range(blocks):
        whole += sums[block]
        whole_square += squares[block]
    total, square = np.zeros((size + 1, trials)), np.zeros((size + 1, trials))
    here, there = np.empty(trials), np.empty(trials)
    every = lengths.sum()
    for pair in range(len(halves)):
        same = 0
        while pair > 0 and halves[pair, same] == halves[pair - 1, same]:
            same += 1
        bars = 0
        for k in range(size):
            block = halves[pair, k]
            bars += lengths[block]
            if k >= same:
                for trial in range(trials):
                    total[k + 1, trial] = total[k, trial] + sums[block, trial]
                    square[k + 1, trial] = square[k, trial] + squares[block, trial]
        _scores(total[size], square[size], bars, score, here)
        _scores(whole - total[size], whole_square - square[size], every - bars, score, there)
        found[0, 2 * pair], found[1, 2 * pair], found[2, 2 * pair] = _judge(here, there)
        found[0, 2 * pair + 1], found[1, 2 * pair + 1], found[2, 2 * pair + 1] = _judge(there, here)


@compiled(nogil=True)
def _scores(total: Floats, square: Floats, bars: int, score: int, found: Floats) -> None:
    """Write the scores (trials,) of returns with these sums; 0 where a ratio has nothing to divide by."""
    for trial in range(len(total)):
        if score == GROWTH:
            found[trial] = total[trial]
            continue
        # What is left of Σ min(r, 0)², where a half is the whole less the other, may be rounding alone.
        spread = square[trial] - (total[trial] * total[trial] / bars if score == SHARPE else 0.0)
        moving = spread > _CONSTANT * (square[trial] if score == SHARPE else total[trial] * total[trial])
        deviation = math.sqrt(spread / (bars - 1 if score == SHARPE else bars)) if moving else 1.0
        found[trial] = total[trial] / bars / deviation if moving else 0.0


@compiled(nogil=True)
def _judge(here: Floats, there: Floats) -> tuple[float, float, float]:
    """Return the best ratio of `here`, that trial's of `there`, and whether the latter is below the median.

    The last is 0, 1, or ½ where it is the median: as many trials are above as are below (ties share their ranks).
    """
    best, first = here[0], 0
    for trial in range(1, len(here)):
        if here[trial] > best:
            best, first = here[trial], trial
    ties, off = 0, 0.0
    for trial in range(first, len(here)):
        if here[trial] == best:
            ties += 1
            off += there[trial] - there[first]
    mine = there[first] + off / ties
    surplus = 0
    for ratio in there:
        surplus += int(ratio < mine) - int(ratio > mine)
    share = 0.5 if surplus == 0 else 0.0
    return best, mine, 1.0 if surplus < 0 else share
