"""A panel of a static chart: where values stand in it, its frame with labels, and lines through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from markupsafe import Markup

from gpt_trader.backtesting.report.formats import round_ticks
from gpt_trader.backtesting.report.thinning import Indices
from gpt_trader.bars import Floats

WIDTH: Final = 1000.0
LEFT: Final = 8.0
#: Room on the right for the labels of the values.
RIGHT: Final = 70.0


@dataclass(frozen=True)
class Panel:
    """One panel: its title, where it stands (viewBox units) and the values at its bottom and top."""

    title: str
    top: float
    height: float
    low: float
    high: float
    log: bool
    written: Callable[[float], str]

    def y(self, values: Floats) -> Floats:
        """Return the vertical places of `values`."""
        low, high = self._scaled(np.array([self.low, self.high]))
        span = high - low or 1.0
        return np.asarray(self.top + self.height * (1 - (self._scaled(values) - low) / span))

    def _scaled(self, values: Floats) -> Floats:
        return np.log(values) if self.log else values


def across(points: int) -> Floats:
    """Return the horizontal places of so many points, evenly spaced, (points,)."""
    places: Floats = LEFT + (WIDTH - LEFT - RIGHT) * (np.arange(points) / max(1, points - 1))
    return places


def frame(panel: Panel) -> Markup:
    """Return the panel's title, and rules with round values on their right."""
    lines = [
        Markup('<text class="title" x="{:g}" y="{:g}">{}</text>').format(LEFT, panel.top - 8, panel.title)
    ]
    ticks = round_ticks(panel.low, panel.high, log=panel.log)
    for tick, y in zip(ticks, panel.y(np.array(ticks)), strict=True):
        lines.append(
            Markup(
                '<path class="grid" d="M{0:g} {2:.1f}H{1:g}"/><text class="label" x="{3:g}" y="{4:.1f}">{5}</text>'
            ).format(LEFT, WIDTH - RIGHT, y, WIDTH - RIGHT + 6, y + 4, panel.written(tick))
        )
    return Markup("").join(lines)


def line(x: Floats, y: Floats, shown: Indices, name: str) -> Markup:
    """Return a line through the points `shown`, as a path of a class."""
    points = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x[shown], y[shown], strict=True))
    return Markup('<path class="{}" d="M{}"/>').format(name, points)


def time_labels(x: Floats, y: float, written: Callable[[int], str]) -> Markup:
    """Return six labels or fewer on a baseline under the places `x`; `written` gets a place's index."""
    places = np.unique(np.linspace(0, len(x) - 1, 6).astype(np.int64)).tolist()
    labels = [
        Markup('<text class="label" text-anchor="{}" x="{:.1f}" y="{:g}">{}</text>').format(
            "start" if index == 0 else "end" if index == len(x) - 1 else "middle", x[index], y, written(index)
        )
        for index in places
    ]
    return Markup("").join(labels)
