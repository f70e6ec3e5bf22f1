"""The best trials through all parameters, the distribution of the objective, and the stretches of the walk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from gpt_trader.backtesting.report.drawing import (
    LETTER,
    WIDTH,
    Scale,
    Written,
    every,
    joined,
    leveled,
    path,
    svg,
    text,
    ticks,
    under,
)
from gpt_trader.backtesting.report.formats import percent
from gpt_trader.bars import Floats
from gpt_trader.optimization.result import OptimizeResult
from gpt_trader.optimization.surface import varied, written

_SHADES: Final = 5
_BINS: Final = 40
#: Height of a row whose words can be read.
_READABLE: Final = 13.0


def parallel(result: OptimizeResult, places: Sequence[int], written_as: Written) -> Markup:
    """Return trials (by place, the best first) as lines through an axis for each varied parameter and the objective."""
    space, names = result.study.space, varied(result.study.space)
    value = result.objective[list(places)]
    low, high = float(value.min()), float(value.max())
    top, bottom = 40.0, 330.0
    x = np.linspace(70.0, WIDTH - 90, len(names) + 1).tolist()
    columns = [list(space.values).index(name) for name in names]
    share = space.places_of(result.screened.number[list(places)])[:, columns] / (
        np.array(space.shape)[columns] - 1
    )
    level = leveled(low, high, top, bottom)
    y = np.column_stack((bottom - (bottom - top) * share, [level(one) for one in value.tolist()]))
    lines = [joined(x, row) for row in y.tolist()]
    scale = Scale.of(value, _SHADES)
    shades = [scale.shade(one) for one in value.tolist()]
    ends = [(written(space.values[name][0]), written(space.values[name][-1])) for name in names]
    parts = [
        path(f"thread t{shade}", "".join(d for d, its in zip(lines, shades, strict=True) if its == shade))
        for shade in sorted(set(shades))
    ]
    parts.append(path("thread chosen", lines[0]))
    for a, name, (first, last) in zip(
        x, [*names, "objective"], [*ends, (written_as(low), written_as(high))], strict=True
    ):
        parts += [
            path("grid", f"M{a:.1f} {top:g}V{bottom:g}"),
            text(a, 16, name, "title mid"),
            text(a, 32, last, "mid"),
            text(a, bottom + 16, first, "mid"),
        ]
    label = f"Parallel coordinates of the {len(places)} best trials; the table below has the numbers"
    return svg("parallel", bottom + 24, label, parts)


@dataclass(frozen=True)
class Distribution:
    """How many trials (b,) have an objective between neighboring `edges` (b + 1,); the outermost hold what is beyond.

    `trials` have an objective, and `better` ones more than the best that was chosen: they break the constraints.
    """

    edges: Floats
    counts: NDArray[np.int64]
    best: float
    median: float
    trials: int
    better: int


def distribution(objective: Floats, best: float) -> Distribution:
    """Return the distribution of the finite ones among the objectives (m,); outliers do not stretch the bins."""
    values = objective[np.isfinite(objective)]
    low, high = np.percentile(values, (1, 99))
    low, high = min(float(low), best), max(float(high), best)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value, or its rounding: no bins fit between
        room = max(abs(low), 1.0) / 2
        low, high = low - room, high + room
    counts, edges = np.histogram(
        np.clip(values, low, high), min(_BINS, max(5, len(values) // 2)), (low, high)
    )
    better = int(np.count_nonzero(values > best))
    return Distribution(edges, counts, best, float(np.median(values)), len(values), better)


def histogram(found: Distribution, written_as: Written, luck: float | None = None) -> Markup:
    """Return the distribution as bars, with the places of the best, the median, and what luck alone would make."""
    top, bottom, left, right = 60.0, 254.0, 12.0, 940.0
    low, high = float(found.edges[0]), float(found.edges[-1])
    most = int(found.counts.max())
    level = leveled(0.0, float(most), top, bottom)
    width = (right - left) / len(found.counts)
    parts = ticks(0.0, float(most), level, (left, right), lambda count: f"{count:,.4g}")
    for at, count in enumerate(found.counts.tolist()):
        bar = f"M{left + at * width:.1f} {bottom:g}V{level(count):.1f}h{width - 1:.1f}V{bottom:g}z"
        between = f"{written_as(float(found.edges[at]))} to {written_as(float(found.edges[at + 1]))}"
        parts.append(path("pillar", bar, f"{between}: {count} trials"))
    # Each mark has its own line for its words: they never cover one another.
    marks = [("median", found.median, 48.0), ("luck", luck, 32.0), ("best", found.best, 16.0)]
    for name, value, y in marks:
        if value is None or not low <= value <= high:
            continue
        x = left + (right - left) * (value - low) / (high - low)
        side = "end" if x > right - 80 else "" if x < left + 80 else "mid"
        parts.append(path(f"mark {name}", f"M{x:.1f} {y + 4:g}V{bottom:g}"))
        parts.append(text(x, y, f"{name} {written_as(value)}", side))
    parts += under(left, right, bottom + 17, lambda share: written_as(low + share * (high - low)))
    label = f"Histogram of the objective of {found.trials} trials; the table below has the numbers"
    return svg("distribution", bottom + 26, label, parts)


def timeline(walk: Mapping[str, Any]) -> Markup:
    """Return the walk as rows of bars along time, one a window: what it was chosen on, and what it was tested on.

    Beside them, where rows are high enough to read: what the test made, and the combination that made it.
    """
    rows, left = walk["each"], 34.0
    height = min(22.0, max(5.0, 700 / len(rows)))
    worded = height >= _READABLE
    top = 22.0 if worded else 8.0
    letters = min(44, max(11, *(len(_combination(row)) for row in rows)))
    words = WIDTH - 4 - LETTER * letters
    right = words - 100 if worded else WIDTH - 12
    spans = np.array([[_time(moment) for moment in (*row["train"], *row["test"])] for row in rows])
    first, second = spans.min(), np.timedelta64(1, "s")
    length = float((spans.max() - first) / second)
    x = left + (right - left) * ((spans - first) / second) / length
    parts = (
        [text(words - 14, top - 8, "return, tested", "end"), text(words, top - 8, "combination")]
        if worded
        else []
    )
    for at, (row, (train, train_end, test, test_end)) in enumerate(zip(rows, x.tolist(), strict=True)):
        y, made = top + (at + 0.1) * height, _made(row)
        for name, start, end, said in (
            ("train", train, train_end, "chosen on {} to {}".format(*_days(row["train"]))),
            (f"test {made}", test, test_end, "tested on {} to {}".format(*_days(row["test"]))),
        ):
            bar = f"M{start:.1f} {y:.1f}H{max(end, start + 1):.1f}v{height * 0.8:.1f}H{start:.1f}z"
            parts.append(path(name, bar, f"window {at + 1}: {said}; {_outcome(row)}"))
        baseline = y + height * 0.4 + 4
        if at % every(height, _READABLE) == 0:
            parts.append(text(4, baseline, str(at + 1)))
        if worded:
            parts.append(
                text(words - 14, baseline, percent(row["test_return"], 1, signed=True), f"end {made}")
            )
            parts.append(text(words, baseline, _combination(row), most=letters))
    bottom = top + height * len(rows)
    parts += under(left, right, bottom + 18, lambda share: str(first + int(share * length) * second)[:10])
    label = f"Training and test stretches of {len(rows)} windows; the table below has the numbers"
    return svg("walk", bottom + 28, label, parts)


def _made(row: Mapping[str, Any]) -> str:
    """Return the class of what a window's test made."""
    return "held" if row["params"] is None else "gain" if row["test_return"] > 0 else "loss"


def _outcome(row: Mapping[str, Any]) -> str:
    made = percent(row["test_return"], 1, signed=True)
    return f"{_combination(row)} made {made} in {row['trades']} trades"


def _combination(row: Mapping[str, Any]) -> str:
    if row["params"] is None:
        return "none: cash was held"
    return ", ".join(f"{name} {written(value)}" for name, value in row["params"].items())


def _days(stretch: Sequence[str]) -> list[str]:
    return [moment[:10] for moment in stretch]


def _time(moment: str) -> np.datetime64:
    return np.datetime64(moment.removesuffix("Z"), "s")
