"""The verdict on an optimization: whether its best is more than the luckiest of many, in plain words.

What decides was chosen by measurement (`benchmarks/overfitting.py`): the deflated Sharpe ratio and the share of splits
in which the chosen one loses reject noise and keep a planted edge. The probability of backtest overfitting is told
beside them and decides nothing: it compares with the median of the trials, and where a whole family of parameters
shares an edge the best of them is above its median half of the time only.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from gpt_trader.backtesting import metrics as measure
from gpt_trader.bars import Floats
from gpt_trader.optimization import luck, neighborhood
from gpt_trader.optimization.cross_validation import CrossValidation, Score, cross_validated
from gpt_trader.optimization.screening import COLUMNS, blocks_of
from gpt_trader.optimization.study import RUN, SKIPPED, Screened, Study

#: The best's Sharpe ratio must be above what luck explains with this probability.
DEFLATED: Final = 0.95
#: In more splits than this the best of one half loses in the other: it was chosen for noise.
LOSS: Final = 0.2
#: Neighbors that make less than this share of the best's objective: a peak without a hill.
NEIGHBORS: Final = 0.5
#: More trials than this are not cross-validated: so many are drawn from them (by the request's seed).
_CROSS_VALIDATED: Final = 10_000


#: Objectives that follow from sums over blocks of time: what is said of them, and the score; the others go by Sharpe's.
_SCORES: Final = {
    "sharpe": ("sharpe", Score.SHARPE),
    "sortino": ("sortino", Score.SORTINO),
    "total_return": ("total_return", Score.GROWTH),
    "annualized_return": ("annualized_return", Score.GROWTH),
}


def judged(study: Study, screened: Screened, objective: Floats, best: int, equity: Floats) -> dict[str, Any]:
    """Return the verdict on the trial with the number `best`, whose equity (n,) is the engine of record's, JSON-ready.

    `trials` counts every combination that was tried, failed ones too; `effective_trials` what they are worth as
    independent ones. Sharpe ratios are annualized here. `neighborhood` is the median objective of the neighbors in the
    grid over the best's own; `min_track_record` is in bars; `held_sharpe` is buy-and-hold's. `pbo` and
    `loss_probability` compare trials by the request's objective where it adds up over blocks of time, else by the
    Sharpe ratio (`cross_validated_by`).
    """
    change = measure.returns(equity)
    moments = luck.Moments.of(change)
    year = study.bars.periods_a_year
    tried = screened.state != SKIPPED
    trials = int(np.count_nonzero(tried))
    sharpe = _sharpe(screened, len(equity))
    variance = float(np.nanvar(sharpe, ddof=1)) if np.count_nonzero(np.isfinite(sharpe)) > 1 else 0.0
    luckiest = luck.expected_maximum(trials, variance)
    drawn = _drawn(study, screened)
    crossed = _crossed(study, drawn, len(equity))
    held = measure.sharpe(measure.returns(study.bars[study.first :].close), year)
    found: dict[str, Any] = {
        "trials": trials,
        "effective_trials": luck.effective_trials(blocks_of(drawn, len(equity))[0], trials),
        "sharpe": None if moments.sharpe is None else moments.sharpe * math.sqrt(year),
        "expected_by_luck": luckiest * math.sqrt(year),
        "held_sharpe": held,
        "probabilistic_sharpe": luck.probabilistic_sharpe(moments),
        "deflated_sharpe": luck.probabilistic_sharpe(moments, luckiest),
        "min_track_record": luck.minimum_track_record(moments, luckiest),
        "bars": len(equity),
        "cross_validated_by": _SCORES.get(study.request.objective, ("sharpe", Score.SHARPE))[0],
        "pbo": None if crossed is None else crossed.overfitting,
        "loss_probability": None if crossed is None else crossed.loss,
        "neighborhood": _neighborhood(study, screened, objective, best),
    }
    verdict, reasons = _decided(found)
    return {**found, "verdict": verdict, "reasons": reasons}


def _sharpe(screened: Screened, bars: int) -> Floats:
    """Return the trials' Sharpe ratios per bar, (m,); NaN where there is none."""
    mean, m2 = (screened.sums[:, COLUMNS.index(name)] for name in ("mean", "m2"))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = mean / np.sqrt(m2 / (bars - 1))
    return np.where(np.isfinite(ratio), ratio, np.nan)


def _drawn(study: Study, screened: Screened) -> Floats:
    """Return the rows of the tried trials that are cross-validated."""
    run = np.flatnonzero(screened.state == RUN)
    if len(run) > _CROSS_VALIDATED:
        drawn = np.random.default_rng(study.request.seed).permutation(len(run))[:_CROSS_VALIDATED]
        run = np.sort(run[drawn])
    return screened.rows_at(run)


def _crossed(study: Study, rows: Floats, bars: int) -> CrossValidation | None:
    """Return what the splits of time say of the trials with these rows."""
    sums, squares, downside, growth, lengths = blocks_of(rows, bars)
    _, score = _SCORES.get(study.request.objective, ("sharpe", Score.SHARPE))
    first = growth if score == Score.GROWTH else sums
    return cross_validated(first, downside if score == Score.SORTINO else squares, lengths, score)


def _neighborhood(study: Study, screened: Screened, objective: Floats, best: int) -> float | None:
    """Return the median objective of the best's neighbors that were tried, over the best's own."""
    at = int(np.flatnonzero(screened.number == best)[0])
    near = neighborhood.neighbors(study.space, screened.number, at, study.request.method)
    return neighborhood.kept(objective, at, near)


def _decided(found: dict[str, Any]) -> tuple[str, list[str]]:
    deflated, loss = found["deflated_sharpe"], found["loss_probability"]
    if deflated is None or found["sharpe"] is None:
        return "undecided", ["The best never moved or has too few bars: there is nothing to judge."]
    reasons = []
    if deflated < DEFLATED:
        reasons.append(
            f"The best of {found['trials']} trials without any skill is expected to show a Sharpe ratio of "
            f"{found['expected_by_luck']:.2f}; this one shows {found['sharpe']:.2f}. The probability that it is more "
            f"than luck is {deflated:.0%} (deflated Sharpe ratio), and {DEFLATED:.0%} is asked for."
        )
    if loss is not None and loss > LOSS:
        reasons.append(
            f"Chosen on one half of the time, the best loses in the other half in {loss:.0%} of all splits "
            f"({LOSS:.0%} is the most that is let pass)."
        )
    held = found["held_sharpe"]
    if held is not None and 0 < held >= found["sharpe"]:
        reasons.append(
            f"Buying and holding has a Sharpe ratio of {held:.2f} over the same bars, this one {found['sharpe']:.2f}: "
            "what it made is the market's."
        )
    near = found["neighborhood"]
    if near is not None and near < NEIGHBORS:
        made = f"make {near:.0%} of its objective" if near >= 0 else "lose where it gains"
        reasons.append(f"Its neighbors in the grid {made}: a peak without a hill around it.")
    if reasons:
        return "reject", [*reasons, *_asides(found)]
    if loss is None:
        return "undecided", ["With fewer than two trials, or too few bars, nothing can be cross-validated."]
    kept = [
        f"The Sharpe ratio of {found['sharpe']:.2f} is more than luck with a probability of {deflated:.1%}, all "
        f"{found['trials']} trials counted (luck alone: {found['expected_by_luck']:.2f}).",
        f"Chosen on one half of the time, the best loses in the other in {loss:.0%} of all splits.",
    ]
    return "accept", [*kept, *_asides(found)]


def _asides(found: dict[str, Any]) -> list[str]:
    """Return what is worth knowing and decides nothing."""
    said = []
    needed = found["min_track_record"]
    if needed is not None and needed > found["bars"]:
        said.append(
            f"To believe it, {math.ceil(needed)} bars like these are needed; there are {found['bars']}."
        )
    if found["pbo"] is not None and found["pbo"] > 0.5:
        said.append(
            f"In {found['pbo']:.0%} of all splits the best of one half is below the median of the other: which of the "
            "trials is chosen does not matter much, or hurts."
        )
    return said
