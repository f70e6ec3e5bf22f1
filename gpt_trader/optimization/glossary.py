"""The names and plain-language explanations of what is said of an optimization, in the order of its report."""

from __future__ import annotations

import math
from typing import Final

from gpt_trader.backtesting.report.formats import number, percent
from gpt_trader.backtesting.report.glossary import Entry


def _whole(value: float | None) -> str:
    return number(value, 0)


def _needed(value: float | None) -> str:
    return number(None if value is None else math.ceil(value), 0)


def _signed(value: float | None) -> str:
    return percent(value, 2, signed=True)


#: Of the verdict on the best.
JUDGED: Final = (
    Entry("trials", "Trials counted", _whole, "Every combination that was tried, failed ones too."),
    Entry(
        "effective_trials",
        "Worth, in independent trials",
        number,
        "Trials that trade alike are less than as many tries: this many independent ones are worth the same.",
    ),
    Entry("sharpe", "Sharpe ratio of the best", number, "By the engine of record, scaled to a year."),
    Entry(
        "held_sharpe", "Sharpe ratio of buying and holding", number, "Over the same bars, scaled to a year."
    ),
    Entry(
        "expected_by_luck",
        "Sharpe ratio by luck alone",
        number,
        "What the best of so many trials is expected to show if none of them has any skill.",
    ),
    Entry(
        "probabilistic_sharpe",
        "Probabilistic Sharpe ratio",
        percent,
        "Probability that the true Sharpe ratio is above 0, had this been the only trial.",
    ),
    Entry(
        "deflated_sharpe",
        "Deflated Sharpe ratio",
        percent,
        "Probability that the true Sharpe ratio is above what luck alone makes of so many trials.",
    ),
    Entry(
        "pbo",
        "Probability of overfitting",
        percent,
        "Share of the ways to split time in two in which the best of one half is below the median of the other.",
    ),
    Entry(
        "loss_probability",
        "Probability of loss",
        percent,
        "Share of these splits in which the best of one half loses in the other.",
    ),
    Entry(
        "neighborhood",
        "Neighbors' objective",
        percent,
        "Median objective of the combinations one step away, as a share of the best's: a hill, or a lone peak?",
    ),
    Entry(
        "min_track_record",
        "Bars needed to believe it",
        _needed,
        "Minimum track record: so many bars like these, for 95% confidence that it is more than luck.",
    ),
    Entry("bars", "Bars there are", _whole, "Bars that the best was measured on."),
)

#: Of the walk forward.
WALKED: Final = (
    Entry("bars", "Bars tested", _whole, "Bars that nothing was chosen on before they were traded."),
    Entry(
        "total_return",
        "Total return",
        _signed,
        "What the tests made one after another, each with the combination that its own past chose.",
    ),
    Entry(
        "annualized_return", "Annualized return", _signed, "The constant yearly growth that gives the same."
    ),
    Entry(
        "sharpe", "Sharpe ratio", number, "Of the tests as one curve: the figure to compare with the best's."
    ),
    Entry("max_drawdown", "Max drawdown", percent, "The deepest fall from a peak of that curve."),
    Entry("trades", "Trades", _whole, "Entries in all tests."),
    Entry(
        "efficiency",
        "Efficiency",
        percent,
        "Yearly pace of the tests over that of the trainings (Pardo). From about 50% on, much of what was optimized "
        "outlives the training; around 0 or below, nothing does. Undefined where the trainings made nothing.",
    ),
    Entry("consistency", "Consistency", percent, "Share of the tests that gained."),
    Entry(
        "robustness",
        "Robustness",
        percent,
        "Share of the tests that made at least half of their own training's pace.",
    ),
)
