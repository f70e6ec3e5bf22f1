"""What static pictures are made of: paths and texts of SVG, 1000 wide. Colors are classes of the style."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from markupsafe import Markup

from gpt_trader.backtesting.report.formats import round_ticks
from gpt_trader.bars import Floats

WIDTH: Final = 1000.0
LETTER: Final = 6.2  # width of a letter, about
LONGEST: Final = 22  # letters of a label
#: How a value of the objective is written.
Written = Callable[[float], str]


@dataclass(frozen=True)
class Scale:
    """Shades in equal steps from `low` to `high`; what is beyond has the outermost."""

    low: float
    high: float
    shades: int

    @classmethod
    def of(cls, values: Floats, shades: int) -> Scale:
        """Return the scale of the finite ones among these values, a few outliers on either side left out."""
        low, high = np.percentile(values[np.isfinite(values)], (2, 98))
        return cls(float(low), float(high), shades)

    def shade(self, value: float) -> int:
        """Return the shade of a value, from 0."""
        if self.high <= self.low:
            return self.shades - 1
        share = (value - self.low) / (self.high - self.low)
        return int(min(max(share, 0.0) * self.shades, self.shades - 1))


def svg(name: str, height: float, label: str, parts: Sequence[Markup]) -> Markup:
    """Return a picture 1000 wide, with its words for those who do not see it."""
    return Markup(
        '<svg class="picture {}" viewBox="0 0 1000 {:g}" role="img" aria-label="{}">{}</svg>'
    ).format(name, round(height, 1), label, Markup("").join(parts))


def path(name: str, drawn: str, title: str = "") -> Markup:
    """Return a path of a class, with a title that the pointer shows."""
    shown = Markup("<title>{}</title>").format(title) if title else ""
    return Markup('<path class="{}" d="{}">{}</path>').format(name, drawn, shown)


def text(x: float, y: float, words: str, name: str = "", most: int = LONGEST) -> Markup:
    """Return a text on a baseline, of at most so many letters; of the classes, `mid` and `end` align it."""
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(name, x, y, cut(words, most))


def cut(words: str, most: int = LONGEST) -> str:
    """Return a label that fits."""
    return words if len(words) <= most else words[: most - 1] + "…"


def box(x: float, y: float, width: float, height: float) -> str:
    """Return a rectangle as a path."""
    return f"M{x:.1f} {y:.1f}h{width:.1f}v{height:.1f}h{-width:.1f}z"


def joined(x: Sequence[float], y: Sequence[float]) -> str:
    """Return a line through points as a path."""
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def leveled(low: float, high: float, top: float, bottom: float) -> Callable[[float], float]:
    """Return a function from values to vertical places: `low` is at the bottom, `high` at the top."""
    span = high - low or 1.0
    return lambda value: bottom - (bottom - top) * (value - low) / span


def ticks(
    low: float, high: float, level: Callable[[float], float], across: tuple[float, float], written_as: Written
) -> list[Markup]:
    """Return rules with round values on their right, from one x to another."""
    parts = []
    for tick in round_ticks(low, high, log=False):
        parts.append(path("grid", f"M{across[0]:g} {level(tick):.1f}H{across[1]:g}"))
        parts.append(text(across[1] + 6, level(tick) + 4, written_as(tick)))
    return parts


def under(left: float, right: float, y: float, words: Callable[[float], str]) -> list[Markup]:
    """Return five labels under a picture, of shares 0 to 1 of the way from `left` to `right`."""
    sides = {0.0: "", 0.25: "mid", 0.5: "mid", 0.75: "mid", 1.0: "end"}
    return [text(left + share * (right - left), y, words(share), side) for share, side in sides.items()]


def every(room: float, needed: float) -> int:
    """Return of how many labels one can be shown, where each has `room` and needs `needed`."""
    return max(1, int(np.ceil(needed / room)))
