"""The charts as static SVG: what a reader sees without JavaScript, and on paper."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from gpt_trader.backtesting.report.formats import (
    MARKED_TRADES,
    is_daily,
    moment,
    money,
    percent,
    quantity,
)
from gpt_trader.backtesting.report.panel import Panel, across, frame, line, time_labels
from gpt_trader.backtesting.report.reported import Reported
from gpt_trader.backtesting.report.series import curves, log_advised
from gpt_trader.backtesting.report.thinning import Indices, display_indices
from gpt_trader.bars import Floats

_POINTS = 900
_KEY = Markup(
    '<text x="66" y="16"><tspan class="of-strategy">Strategy</tspan> '
    '<tspan class="of-benchmark">Buy &amp; hold</tspan></text>'
)


def sketch(result: Reported) -> Markup:
    """Return one SVG element with equity against buy-and-hold, drawdown, and trades on the price if there is one.

    Colors are classes in the page's style.
    """
    shown = display_indices(curves(result), _POINTS)
    log = log_advised(result)
    both = np.concatenate((result.equity, result.benchmark_equity))
    equity = Panel("Equity", 24, 230, both.min(), both.max(), log, money)
    falls = Panel("Drawdown", 290, 90, min(float(result.drawdown.min()), -0.01), 0.0, False, _whole_percent)
    x = across(len(result.time))
    height = 416 if result.close is None else 616
    parts = [
        _time_axis(result, x, height - 8),
        _KEY,
        *(frame(panel) for panel in (equity, falls)),
        line(x, equity.y(result.benchmark_equity), shown, "benchmark"),
        line(x, equity.y(result.equity), shown, "strategy"),
        line(x, falls.y(result.drawdown), shown, "fall"),
    ]
    if result.close is not None:
        parts += _price(result, result.close, x, shown, log=log)
    what = "equity and drawdown" if result.close is None else "equity, drawdown and trades"
    return Markup('<svg class="sketch" viewBox="0 0 1000 {}" role="img" aria-label="{}">{}</svg>').format(
        height, f"{result.strategy} on {result.symbol}: {what}", Markup("").join(parts)
    )


def _price(result: Reported, close: Floats, x: Floats, shown: Indices, *, log: bool) -> list[Markup]:
    """Return the panel of the price with the trades on it."""
    title = "Price and trades" if len(result.trades) <= MARKED_TRADES else "Price (too many trades to mark)"
    price = Panel(title, 416, 170, close.min(), close.max(), log and bool(close.min() > 0), quantity)
    return [frame(price), line(x, price.y(close), shown, "price"), _trades(result, x, price)]


def _whole_percent(value: float) -> str:
    return percent(value, 0)


def _trades(result: Reported, x: Floats, price: Panel) -> Markup:
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


def _time_axis(result: Reported, x: Floats, y: float) -> Markup:
    daily = is_daily(result.time)
    return time_labels(x, y, lambda index: moment(result.time[index], daily=daily))
