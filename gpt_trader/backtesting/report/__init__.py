"""The report of a backtest: one self-contained HTML page (`render_html`) and one picture (`render_png`).

Both only present what `gpt_trader.backtesting.result.BacktestResult` says; no metric is computed here. The two
renderers are imported on first use, as Jinja and matplotlib are slow to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt_trader.backtesting.result import BacktestResult

__all__ = ["render_html", "render_png"]


def render_html(result: BacktestResult, *, run_id: str, created_at: str) -> str:
    """Return the interactive report as one HTML page that needs no other file and makes no request.

    `created_at` is shown as given (ISO 8601). Every text of the result is escaped: symbol, strategy and
    parameters are untrusted. The page can be encoded as UTF-8.

    Raises:
        ValueError: a series of the result is not finite.
    """
    from gpt_trader.backtesting.report.page import render

    return render(result, run_id=run_id, created_at=created_at)


def render_png(result: BacktestResult, *, run_id: str) -> bytes:
    """Return the report's picture as a PNG of 1440 × 960 pixels: equity, drawdown, trades on the price.

    Raises:
        ValueError: a series of the result is not finite.
    """
    from gpt_trader.backtesting.report.picture import draw

    return draw(result, run_id=run_id)
