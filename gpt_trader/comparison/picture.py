"""The growth of several runs and their drawdowns on common dates, as static SVG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from markupsafe import Markup

from gpt_trader.backtesting import metrics as measure
from gpt_trader.backtesting.report.formats import is_daily, moment, number, percent
from gpt_trader.backtesting.report.panel import Panel, across, frame, line, time_labels
from gpt_trader.backtesting.report.thinning import display_indices
from gpt_trader.comparison.common_dates import CommonDates

#: Colors of the style; from the eleventh run on they come again, dashed.
COLORS: Final = 10
_POINTS: Final = 900
#: Growth that spans more than this reads better on a log scale.
_SPAN: Final = 3.0


def overlaid(common: CommonDates, keys: Mapping[str, str]) -> Markup:
    """Return the curves of the runs over one another; `keys` has the letter of each run."""
    growth = common.growth
    falls = np.array([measure.drawdown(curve) for curve in growth])
    shown = display_indices(list(growth), max(_POINTS, 2 * len(growth) + 1))
    low, high = float(growth.min()), float(growth.max())
    upper = Panel("Growth of 1", 24, 300, low, high, low > 0 and high / low > _SPAN, _growth)
    lower = Panel("Drawdown", 360, 120, min(float(falls.min()), -0.01), 0.0, False, _fall)
    x, daily = across(len(common.time)), is_daily(common.time)
    parts = [
        frame(upper),
        frame(lower),
        time_labels(x, 502, lambda index: moment(common.time[index], daily=daily)),
    ]
    # The first on top.
    for at, run_id in reversed(list(enumerate(common.run_ids))):
        name = f"run {look(keys[run_id])}"
        parts += [
            line(x, upper.y(growth[at]), shown, name),
            line(x, lower.y(falls[at]), shown, f"{name} under"),
        ]
    label = f"Growth and drawdown of {len(growth)} runs on {len(common.time)} common dates; the tables have the numbers"
    return Markup(
        '<svg class="sketch overlaid" viewBox="0 0 1000 510" role="img" aria-label="{}">{}</svg>'
    ).format(label, Markup("").join(parts))


def look(key: str) -> str:
    """Return the classes of a run's color by its letter."""
    place = ord(key) - ord("A")
    return f"c{place % COLORS}{' again' if place >= COLORS else ''}"


def _growth(value: float) -> str:
    return number(value, 2)


def _fall(value: float) -> str:
    return percent(value, 0)
