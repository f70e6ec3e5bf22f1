"""The charts as static SVG: what a reader sees without JavaScript, and on paper."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from gpt_trader.backtesting.report.formats import (
    MARKED_TRADES,
    is_daily,
    moment,
    money,
    percent,
    quantity,
    round_ticks,
)
from gpt_trader.backtesting.report.series import log_advised
from gpt_trader.backtesting.report.thinning import Indices, display_indices
from gpt_trader.backtesting.result import BacktestResult
from gpt_trader.bars import Floats

_WIDTH, _LEFT, _RIGHT = 1000.0, 8.0, 70.0
_POINTS = 900
_KEY = Markup(
    '<text x="66" y="16"><tspan class="of-strategy">Strategy</tspan> '
    '<tspan class="of-benchmark">Buy &amp; hold</tspan></text>'
)


@dataclass(frozen=True)
class _Panel:
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


def sketch(result: BacktestResult) -> Markup:
    """Return one SVG element with equity against buy-and-hold, drawdown, and trades on the price.

    Colors are classes in the page's style.
    """
    shown = display_indices((result.equity, result.benchmark_equity, result.drawdown, result.close), _POINTS)
    log = log_advised(result)
    both = np.concatenate((result.equity, result.benchmark_equity))
    equity = _Panel("Equity", 24, 230, both.min(), both.max(), log, money)
    falls = _Panel("Drawdown", 290, 90, min(float(result.drawdown.min()), -0.01), 0.0, False, _whole_percent)
    price_log = log and bool(result.close.min() > 0)
    low, high = result.close.min(), result.close.max()
    title = "Price and trades" if len(result.trades) <= MARKED_TRADES else "Price (too many trades to mark)"
    price = _Panel(title, 416, 170, low, high, price_log, quantity)
    x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (np.arange(len(result.time)) / max(1, len(result.time) - 1))
    parts = [
        _time_axis(result, x),
        _KEY,
        *(_frame(panel) for panel in (equity, falls, price)),
        _line(x, equity.y(result.benchmark_equity), shown, "benchmark"),
        _line(x, equity.y(result.equity), shown, "strategy"),
        _line(x, falls.y(result.drawdown), shown, "fall"),
        _line(x, price.y(result.close), shown, "price"),
        _trades(result, x, price),
    ]
    alternative = f"{result.strategy} on {result.symbol}: equity, drawdown and trades"
    return Markup('<svg class="sketch" viewBox="0 0 1000 616" role="img" aria-label="{}">{}</svg>').format(
        alternative, Markup("").join(parts)
    )


def _whole_percent(value: float) -> str:
    return percent(value, 0)


def _frame(panel: _Panel) -> Markup:
    lines = [
        Markup('<text class="title" x="{:g}" y="{:g}">{}</text>').format(_LEFT, panel.top - 8, panel.title)
    ]
    ticks = round_ticks(panel.low, panel.high, log=panel.log)
    for tick, y in zip(ticks, panel.y(np.array(ticks)), strict=True):
        lines.append(
            Markup(
                '<path class="grid" d="M{0:g} {2:.1f}H{1:g}"/><text class="label" x="{3:g}" y="{4:.1f}">{5}</text>'
            ).format(_LEFT, _WIDTH - _RIGHT, y, _WIDTH - _RIGHT + 6, y + 4, panel.written(tick))
        )
    return Markup("").join(lines)


def _line(x: Floats, y: Floats, shown: Indices, name: str) -> Markup:
    points = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x[shown], y[shown], strict=True))
    return Markup('<path class="{}" d="M{}"/>').format(name, points)


def _trades(result: BacktestResult, x: Floats, price: _Panel) -> Markup:
    """Return entries as triangles up (short: down) and exits as dots, colored by what they made."""

    def place(time: np.datetime64, value: float) -> tuple[float, float]:
        index = max(0, int(np.searchsorted(result.time, time, side="right")) - 1)
        return float(x[index]), float(price.y(np.array([min(max(value, price.low), price.high)]))[0])

    if len(result.trades) > MARKED_TRADES:
        return Markup("")
    half = 3.0 if len(result.trades) <= MARKED_TRADES / 4 else 1.5
    marks: dict[str, list[str]] = {
        "held gain": [], "held loss": [], "entry": [], "exit gain": [], "exit loss": [],
    }  # fmt: skip
    for trade in result.trades:
        made = "gain" if trade.pnl > 0 else "loss"
        a, b = place(trade.entry_time, trade.entry_price)
        end, level = place(result.time[-1] if trade.exit_time is None else trade.exit_time, trade.exit_price)
        marks[f"held {made}"].append(f"M{a:.1f} {price.top:g}H{end:.1f}v{price.height:g}H{a:.1f}z")
        marks["entry"].append(f"M{a:.1f} {b:.1f}l{-half:g} {2 * half * trade.side:g}h{2 * half:g}z")
        if trade.exit_time is not None:
            marks[f"exit {made}"].append(f"M{end:.1f} {level:.1f}h0")
    return Markup("").join(
        Markup('<path class="{}" stroke-width="{:g}" d="{}"/>').format(name, 1.7 * half, "".join(paths))
        for name, paths in marks.items()
        if paths
    )


def _time_axis(result: BacktestResult, x: Floats) -> Markup:
    daily = is_daily(result.time)
    places: Iterable[int] = np.unique(np.linspace(0, len(x) - 1, 6).astype(np.int64))
    labels = [
        Markup('<text class="label" text-anchor="{}" x="{:.1f}" y="608">{}</text>').format(
            "start" if index == 0 else "end" if index == len(x) - 1 else "middle",
            x[index],
            moment(result.time[index], daily=daily),
        )
        for index in places
    ]
    return Markup("").join(labels)
