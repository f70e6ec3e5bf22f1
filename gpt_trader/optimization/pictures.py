"""The objective over one parameter as a line, over two as a heat map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from markupsafe import Markup

from gpt_trader.backtesting.report.drawing import (
    LETTER,
    LONGEST,
    WIDTH,
    Scale,
    Written,
    box,
    every,
    leveled,
    path,
    svg,
    text,
    ticks,
)
from gpt_trader.optimization.surface import STATES, VALUE, Axis, Surface

SHADES: Final = 10
_TOP: Final = 50.0


@dataclass(frozen=True)
class _Grid:
    """Where the cells of a heat map stand: from `left` on, `width` × `height` each, `gap` between them."""

    left: float
    width: float
    height: float
    gap: float

    @classmethod
    def of(cls, rows: Axis, columns: Axis) -> _Grid:
        left = 24 + _widest(rows)
        height = min(max(560 / len(rows.labels), 8.0), 40.0)
        return cls(
            left,
            min((WIDTH - left - 4) / len(columns.labels), 235.0),
            height,
            1.0 if height >= 14 else 0.0,
        )

    def box(self, cell: tuple[int, ...]) -> tuple[float, float, float, float]:
        """Return left, top, width and height of a cell."""
        x, y = self.left + cell[1] * self.width, _TOP + cell[0] * self.height
        return x, y, self.width - self.gap, self.height - self.gap


def heat_map(found: Surface, written_as: Written) -> Markup:
    """Return the surface of two parameters: a colored cell for each value, others struck out.

    The best is framed, its neighbors in dashes.
    """
    rows, columns = found.axes
    grid, scale = _Grid.of(rows, columns), Scale.of(found.value, SHADES)
    bottom = _TOP + len(rows.labels) * grid.height
    parts = [
        _legend(scale, written_as),
        text(4, _TOP - 32, f"{rows.name} ↓", "title"),
        text(grid.left, _TOP - 12, f"{columns.name} →", "title"),
        *_row_labels(rows, grid.height),
        *_column_labels(columns, grid.left, grid.width, bottom),
        *(_cell(found, cell, grid, scale, written_as) for cell in np.ndindex(found.value.shape)),
    ]
    for name, cell in [*(("near", near) for near in sorted(found.neighbors)), ("best", found.best)]:
        frame = box(*grid.box(cell))
        parts += [path("halo", frame), path(f"frame {name}", frame)]
    label = f"Heat map of the objective over {rows.name} and {columns.name}; the table below has the numbers"
    return svg("heat", bottom + 24, label, parts)


def _cell(found: Surface, cell: tuple[int, ...], grid: _Grid, scale: Scale, written_as: Written) -> Markup:
    x, y, width, height = grid.box(cell)
    rows, columns = found.axes
    state, value = int(found.state[cell]), float(found.value[cell])
    said = written_as(value) if state == VALUE else STATES[state]
    title = f"{rows.name} {rows.labels[cell[0]]}, {columns.name} {columns.labels[cell[1]]}: {said}"
    if state != VALUE:
        return path(_class(state), _struck(state, x, y, width, height), title)
    shade = f"s{scale.shade(value)}"
    drawn = path(f"cell {shade}", box(x, y, width, height), title)
    if width < 50 or height < 17:
        return drawn
    return drawn + text(x + width / 2, y + height / 2 + 4, said, f"in {shade}")


def line(found: Surface, written_as: Written) -> Markup:
    """Return the surface of one parameter as a line; values without an objective are marks at the bottom."""
    (axis,) = found.axes
    left, right, top, bottom = 12.0, WIDTH - 74, 16.0, 240.0
    step = (right - left) / (len(axis.labels) - 1)
    low, high = float(np.nanmin(found.value)), float(np.nanmax(found.value))
    level = leveled(low, high, top, bottom - 20)
    through, marks = "", []
    for at, value in enumerate(found.value.tolist()):
        state, x = int(found.state[at]), left + at * step
        said = written_as(value) if state == VALUE else STATES[state]
        title = f"{axis.name} {axis.labels[at]}: {said}"
        if state != VALUE:
            marks.append(path(_class(state), _struck(state, x - 4, bottom - 8, 8, 8), title))
            continue
        goes_on = at > 0 and found.state[at - 1] == VALUE
        through += f"{'L' if goes_on else 'M'}{x:.1f} {level(value):.1f}"
        rank = " best" if (at,) == found.best else " near" if (at,) in found.neighbors else ""
        marks.append(path(f"dot{rank}", f"M{x:.1f} {level(value):.1f}h0", title))
    parts = [
        *ticks(low, high, level, (left, right), written_as),
        path("thread t4", through),
        *marks,
        *_column_labels(axis, left - step / 2, step, bottom),
    ]
    label = f"The objective over {axis.name}; the table below has the numbers"
    return svg("line", bottom + 24, label, parts)


def _class(state: int) -> str:
    return STATES[state].replace(" ", "-")


def _struck(state: int, x: float, y: float, width: float, height: float) -> str:
    """Return one stroke through what was skipped, two through what failed, a dash or a point for the rest."""
    return {
        "skipped": f"M{x:.1f} {y + height:.1f}l{width:.1f} {-height:.1f}",
        "failed": f"M{x:.1f} {y:.1f}l{width:.1f} {height:.1f}m0 {-height:.1f}l{-width:.1f} {height:.1f}",
        "undefined": f"M{x + width / 3:.1f} {y + height / 2:.1f}h{width / 3:.1f}",
        "not tried": f"M{x + width / 2:.1f} {y + height / 2:.1f}h0",
    }[STATES[state]]


def _legend(scale: Scale, written_as: Written) -> Markup:
    swatches = [path(f"cell s{n}", box(790 + 16 * n, 4, 16, 10)) for n in range(scale.shades)]
    ends = [text(784, 13, written_as(scale.low), "end"), text(956, 13, written_as(scale.high))]
    return Markup("").join([*swatches, *ends])


def _widest(axis: Axis) -> float:
    return LETTER * max(min(len(label), LONGEST) for label in axis.labels)


def _row_labels(axis: Axis, height: float) -> list[Markup]:
    shown = range(0, len(axis.labels), every(height, 13))
    return [text(4, _TOP + (at + 0.5) * height + 4, axis.labels[at]) for at in shown]


def _column_labels(axis: Axis, left: float, width: float, bottom: float) -> list[Markup]:
    """Return labels under the columns, as many as there is room for."""
    needed, parts, end = 10 + _widest(axis), [], 0.0
    for at, label in enumerate(axis.labels):
        x = min(max(left + (at + 0.5) * width, needed / 2), WIDTH - needed / 2)
        if x - needed / 2 >= end:
            parts.append(text(x, bottom + 16, label, "mid"))
            end = x + needed / 2
    return parts
