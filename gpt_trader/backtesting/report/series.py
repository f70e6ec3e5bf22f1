"""The numbers behind the page's charts, as compact JSON that is safe inside a script element."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from gpt_trader.backtesting.report.formats import is_daily, price_digits
from gpt_trader.backtesting.report.reported import Reported
from gpt_trader.backtesting.report.thinning import Indices
from gpt_trader.bars import Floats, Times


def chart_series(result: Reported, shown: Indices) -> dict[str, Any]:
    """Return the payload of `assets/report.js` for the bars `shown` (ascending indices into the range).

    Times are seconds since 1970 in UTC as a first value, a unit and steps in units. Values are rounded to 7
    significant digits. A trade is [entry, exit or null, side, entry price, exit price, return], its bars as
    positions in the shown ones.
    """
    seconds = result.time[shown].astype("datetime64[s]").astype(np.int64)
    steps = np.diff(seconds)
    unit = int(np.gcd.reduce(steps)) if len(steps) else 1
    return {
        "start": int(seconds[0]),
        "unit": unit,
        "steps": (steps // unit).tolist(),
        "equity": _rounded(result.equity[shown]),
        "benchmark": _rounded(result.benchmark_equity[shown]),
        "drawdown": _rounded(result.drawdown[shown]),
        # Without a price of its own there is no pane for one, and no place to mark trades at.
        "close": None if result.close is None else _rounded(result.close[shown]),
        "trades": [] if result.close is None else _trade_points(result, result.time[shown]),
        "daily": is_daily(result.time),
        "priceDigits": 2 if result.close is None else price_digits(result.close),
        "log": log_advised(result),
        "logAllowed": log_allowed(result),
        "strategy": result.strategy,
        "symbol": result.symbol,
    }


def curves(result: Reported) -> tuple[Floats, ...]:
    """Return the series that are drawn: when bars are left out, the highest and the lowest of each must stay."""
    drawn = (result.equity, result.benchmark_equity, result.drawdown)
    return drawn if result.close is None else (*drawn, result.close)


def require_finite(result: Reported) -> None:
    """Raise ValueError, naming series and bar, where a series of the result is not finite: it cannot be drawn."""
    for name in ("close", "equity", "benchmark_equity", "drawdown"):
        values = getattr(result, name)
        if values is not None and len(bad := np.flatnonzero(~np.isfinite(values))):
            raise ValueError(f"{name} is not a finite number at bar {bad[0]} ({result.time[bad[0]]})")


def log_allowed(result: Reported) -> bool:
    """Return whether both equity curves stay positive, so that a log scale can show them."""
    return bool(min(result.equity.min(), result.benchmark_equity.min()) > 0)


def log_advised(result: Reported) -> bool:
    """Return whether equity spans so much (over threefold) that a log scale reads better."""
    if not log_allowed(result):
        return False
    highest = max(result.equity.max(), result.benchmark_equity.max())
    lowest = min(result.equity.min(), result.benchmark_equity.min())
    return bool(highest / lowest > 3)


def script_json(value: object) -> str:
    """Return JSON that no HTML parser can take for markup: `<`, `>`, `&` and all non-ASCII are escaped.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _rounded(values: Floats) -> list[float]:
    return [float(f"{value:.7g}") for value in values.tolist()]


def _trade_points(result: Reported, shown: Times) -> list[list[float | None]]:
    """Return the trades with their times as positions among the shown ones, at or before."""

    def place(time: np.datetime64) -> int:
        return max(0, int(np.searchsorted(shown, time, side="right")) - 1)

    return [
        [
            place(trade.entry_time),
            None if trade.exit_time is None else place(trade.exit_time),
            trade.side,
            *_rounded(np.array([trade.entry_price, trade.exit_price, trade.return_])),
        ]
        for trade in result.trades
    ]
