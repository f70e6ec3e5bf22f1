"""A portfolio's report: the backtest's, with the weights over time, a row a symbol, and trades at average cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpt_trader.portfolio.result import PortfolioResult
    from gpt_trader.portfolio.trades import SymbolTrade

#: Trades that a page lists.
LISTED: Final = 1_000


def render_html(result: PortfolioResult, *, run_id: str, created_at: str) -> str:
    """Return the report as one HTML page; as `gpt_trader.backtesting.report.render_html`."""
    from gpt_trader.backtesting.report.page import render
    from gpt_trader.portfolio.pictures import POINTS, SHOWN, weights_over_time

    more = {
        "schedule": schedule(result.request),
        "weights": weights_over_time(result),
        "weight_points": min(POINTS, len(result.time)),
        "drawn": SHOWN,
        "holdings": sorted(result.holdings, key=lambda holding: -holding.pnl),
        "listed": _listed(result),
    }
    return render(result, run_id=run_id, created_at=created_at, template="portfolio", more=more)


def render_png(result: PortfolioResult, *, run_id: str) -> bytes:
    """Return the report's picture: equity, drawdown, weights; as `gpt_trader.backtesting.report.render_png`."""
    from gpt_trader.backtesting.report.picture import draw
    from gpt_trader.portfolio.pictures import draw_weights

    return draw(result, run_id=run_id, lowest=lambda axes, shown: draw_weights(axes, result, shown))


def schedule(request: Mapping[str, Any]) -> str:
    """Return in words when a portfolio is traded back to its weights."""
    parts = [
        "" if request["rebalance"] == "none" else f"every {request['rebalance']}",
        "" if request["drift"] is None else f"at a drift of {request['drift']:.2%}",
    ]
    return "rebalanced " + (" and ".join(filter(None, parts)) or "never again")


def _listed(result: PortfolioResult) -> list[SymbolTrade]:
    """Return the trades to list, in order: all, or those that made or lost most."""
    if len(result.trades) <= LISTED:
        return list(result.trades)
    by_size = sorted(range(len(result.trades)), key=lambda place: -abs(result.trades[place].pnl))
    return [result.trades[place] for place in sorted(by_size[:LISTED])]
