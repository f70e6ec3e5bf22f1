"""A session's curve as SVG: equity, drawdown and what is invested, with marks where the session itself changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from markupsafe import Markup

from gpt_trader.backtesting import metrics as measure
from gpt_trader.backtesting.report import drawing
from gpt_trader.backtesting.report.formats import is_daily, moment, money, percent
from gpt_trader.backtesting.report.panel import Panel, across, frame, line, time_labels
from gpt_trader.backtesting.report.thinning import display_indices
from gpt_trader.trading.outcome import Change
from gpt_trader.trading.record import Record

_POINTS: Final = 900
_HEIGHT: Final = 500

#: A drawdown of less is marked at less than whole percents.
_SHALLOW: Final = -0.05


def curve(record: Record, capital: float, changes: Sequence[Change]) -> Markup:
    """Return the picture of a session of at least one bar; bars are evenly spaced."""
    equity, falls = record.equity, measure.drawdown(record.equity)
    invested = np.divide(equity - record.cash, equity, out=np.zeros(len(equity)), where=equity > 0)
    shown = display_indices((equity, falls, invested), _POINTS)
    x = across(len(equity))
    low, high = min(float(equity.min()), capital), max(float(equity.max()), capital)
    deepest = min(float(falls.min()), -0.01)
    room = (high - low) * 0.04 or abs(high) * 0.01 or 1.0
    panels = [
        Panel("Equity", 24, 230, low - room, high + room, False, money),
        Panel("Drawdown", 290, 80, deepest, 0.0, False, _whole if deepest < _SHALLOW else _tenths),
        Panel(
            "Invested",
            406,
            60,
            min(float(invested.min()), 0.0),
            max(float(invested.max()), 1.0),
            False,
            _whole,
        ),
    ]
    start = float(panels[0].y(np.array([capital]))[0])
    parts = [
        *(frame(panel) for panel in panels),
        drawing.path("start", f"M8 {start:.1f}H930", f"capital {money(capital)}"),
        *_marks(changes, len(equity), panels[0]),
        line(x, panels[0].y(equity), shown, "strategy"),
        line(x, panels[1].y(falls), shown, "fall"),
        line(x, panels[2].y(invested), shown, "price"),
        time_labels(x, _HEIGHT - 8, lambda at: moment(record.time[at], daily=is_daily(record.time))),
    ]
    label = f"Equity over {len(equity)} bars, its drawdown, and the share invested"
    return Markup('<svg class="sketch" viewBox="0 0 1000 {}" role="img" aria-label="{}">{}</svg>').format(
        _HEIGHT, label, Markup("").join(parts)
    )


def _marks(changes: Sequence[Change], bars: int, panel: Panel) -> list[Markup]:
    """Return a line for each change but the session's end, with what it was as its title."""
    x = across(bars)
    return [
        drawing.path(
            "change",
            f"M{x[min(each.place, bars - 1)]:.1f} {panel.top:g}v{panel.height:g}",
            f"{each.what}: {each.reason}",
        )
        for each in changes
        if each.place < bars
    ]


def _whole(value: float) -> str:
    return percent(value, 0)


def _tenths(value: float) -> str:
    return percent(value, 1)
