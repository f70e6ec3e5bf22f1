"""The weights of a portfolio over time, one band a symbol: as SVG for the page, and in the report's picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from markupsafe import Markup

from gpt_trader.backtesting.report import drawing
from gpt_trader.backtesting.report.formats import is_daily, moment, percent
from gpt_trader.backtesting.report.panel import Panel, across, frame, time_labels
from gpt_trader.backtesting.report.thinning import Indices
from gpt_trader.bars import Floats
from gpt_trader.portfolio.result import PortfolioResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Symbols with a band of their own; the others share the last one.
SHOWN: Final = 9
POINTS: Final = 300

#: The colors of `assets/portfolio.css`, for the picture.
_COLORS: Final = (
    "#2456c9", "#e08a1e", "#1f9e89", "#b5367a", "#7a9e1f", "#6b4fbb", "#d1495b", "#4aa3df", "#a07855", "#9aa3b2",
)  # fmt: skip


def bands(result: PortfolioResult, rows: Indices) -> tuple[list[str], Floats]:
    """Return the names of the bands and their weights (k, rows): the highest on average first, then the others."""
    means = result.weights.mean(axis=0)
    order = np.argsort(-means, kind="stable")
    names = [result.symbols[place] for place in order[:SHOWN]]
    found = result.weights[np.ix_(rows, order[:SHOWN])].T
    if len(order) > SHOWN:
        names.append(f"{len(order) - SHOWN} others")
        found = np.vstack([found, result.weights[np.ix_(rows, order[SHOWN:])].sum(axis=1)])
    return names, np.asarray(found)


def weights_over_time(result: PortfolioResult) -> Markup:
    """Return the bands as one SVG element with a key; bars are evenly spaced, as in the report's charts."""
    bars = len(result.time)
    rows = np.unique(np.linspace(0, bars - 1, min(POINTS, bars)).astype(np.int64))
    names, weights = bands(result, rows)
    panel = Panel("", 34, 250, 0.0, 1.0, False, lambda value: percent(value, 0))
    x = across(bars)[rows]
    edges = np.vstack([np.zeros(len(rows)), np.cumsum(weights, axis=0)])
    daily = is_daily(result.time)
    parts = [frame(panel), *_key(names)]
    for place, name in enumerate(names):
        low, high = panel.y(edges[place]), panel.y(edges[place + 1])
        outline = drawing.joined([*x, *x[::-1]], [*high, *low[::-1]]) + "z"
        parts.append(drawing.path(f"band w{place}", outline, name))
    parts.append(time_labels(across(bars), 304, lambda index: moment(result.time[index], daily=daily)))
    label = f"Weights over time of {', '.join(names)}; the table below has their averages"
    return drawing.svg("weights", 312, label, parts)


def _key(names: list[str]) -> list[Markup]:
    parts = []
    for place, name in enumerate(names):
        x = 8.0 + 99.0 * place
        parts.append(drawing.path(f"w{place}", drawing.box(x, 4, 10, 10)))
        parts.append(drawing.text(x + 14, 13, name, most=12))
    return parts


def draw_weights(axes: Axes, result: PortfolioResult, rows: Indices) -> None:
    """Draw the bands into a panel of the report's picture, at the bars `rows`."""
    from gpt_trader.backtesting.report.picture import scale

    names, weights = bands(result, rows)
    axes.stackplot(rows, weights, colors=_COLORS[: len(names)], labels=names, linewidth=0)
    axes.set_ylim(0, 1)
    scale(axes, "Weights", lambda value: percent(value, 0), log=False)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.06, 0.955),
        ncols=len(names),
        frameon=False,
        fontsize=8,
        handlelength=1,
    )
