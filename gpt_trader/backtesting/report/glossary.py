"""The metrics' names, units and plain-language explanations, in the order in which a report lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from gpt_trader.backtesting.report.formats import number, percent


@dataclass(frozen=True)
class Entry:
    """One metric: the field of `Metrics`, its label, how it is written, what it means, and which values are better.

    `better` is None where neither more nor less of it is.
    """

    field: str
    label: str
    written: Callable[[float | None], str]
    meaning: str
    better: Literal["more", "less"] | None = None


def _percent(value: float | None) -> str:
    return percent(value, 2)


def _signed_percent(value: float | None) -> str:
    return percent(value, 2, signed=True)


def _count(value: float | None) -> str:
    return number(value, 0)


GLOSSARY: Final[dict[str, tuple[Entry, ...]]] = {
    "Return": (
        Entry(
            "total_return", "Total return", _signed_percent, "Final equity over the capital, minus 1.", "more"
        ),
        Entry(
            "annualized_return",
            "Annualized return",
            _signed_percent,
            "The constant yearly growth that gives the same total return.",
            "more",
        ),
        Entry("final_equity", "Final equity", number, "Cash and open position at the last close.", "more"),
    ),
    "Risk": (
        Entry(
            "annualized_volatility",
            "Annualized volatility",
            _percent,
            "Standard deviation of the returns bar by bar, scaled to a year: how much the curve shakes.",
            "less",
        ),
        Entry(
            "max_drawdown",
            "Max drawdown",
            _percent,
            "The deepest fall of equity from a peak: the worst loss for someone who came in at the top.",
            "more",
        ),
        Entry(
            "max_drawdown_bars",
            "Its length, bars",
            _count,
            "Bars from the peak before the deepest fall to its recovery, or to the last bar.",
            "less",
        ),
        Entry("exposure", "Exposure", _percent, "Share of the bars with an open position."),
    ),
    "Reward for risk": (
        Entry(
            "sharpe",
            "Sharpe ratio",
            number,
            "Mean over standard deviation of the returns bar by bar, scaled to a year; risk-free rate 0.",
            "more",
        ),
        Entry(
            "sortino",
            "Sortino ratio",
            number,
            "As Sharpe, but only returns below zero count as risk.",
            "more",
        ),
        Entry(
            "calmar", "Calmar ratio", number, "Annualized return over the size of the max drawdown.", "more"
        ),
    ),
    "Trades": (
        Entry(
            "trades",
            "Trades",
            _count,
            "Entries, a position still open at the end included; the rest of this group is over closed trades.",
        ),
        Entry(
            "win_rate",
            "Win rate",
            _percent,
            "Share of the closed trades that made money after costs.",
            "more",
        ),
        Entry(
            "profit_factor",
            "Profit factor",
            number,
            "Sum of the gains over sum of the losses of the closed trades; undefined without a loss.",
            "more",
        ),
        Entry("expectancy", "Expectancy", number, "Mean profit or loss of a closed trade, in money.", "more"),
        Entry(
            "average_trade",
            "Average trade",
            _signed_percent,
            "Mean return of a closed trade on what was put in.",
            "more",
        ),
        Entry(
            "best_trade",
            "Best trade",
            _signed_percent,
            "Highest return of a closed trade on what was put in.",
            "more",
        ),
        Entry(
            "worst_trade",
            "Worst trade",
            _signed_percent,
            "Lowest return of a closed trade on what was put in.",
            "more",
        ),
    ),
    "Activity": (
        Entry(
            "turnover",
            "Turnover",
            number,
            "Value bought and sold in a year over the mean equity: all in and out once a year is 2.",
        ),
        Entry("costs", "Costs paid", number, "Commission and slippage of all orders, in money.", "less"),
    ),
}

#: Each metric by its field.
METRICS: Final[dict[str, Entry]] = {entry.field: entry for entries in GLOSSARY.values() for entry in entries}
