"""Shows what is a portfolio's alone of its result: what it was asked, and a row a symbol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from cli.terminal.metrics import right_aligned
from cli.terminal.render import Row, short_strategy, shown

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Symbols that a table shows, those that mattered most.
_SHOWN: Final = 20


def portfolio_heading(result: Mapping[str, Any]) -> Iterable[RenderableType]:
    """Yield what the portfolio was, and how often it was traded."""
    from rich.text import Text

    symbols: list[str] = result["symbols"]
    named = ", ".join(symbols) if len(symbols) <= 5 else f"{len(symbols)} symbols"
    how = (
        short_strategy(result["strategy"])
        if result["strategy"]
        else f"{result['weights'].replace('_', ' ')} weights"
    )
    title = Text(f"{named}  {how}", style="bold")
    params = shown(result.get("params") or {})
    title.append(f"({params})" if params else "", style="not bold")
    yield title
    schedule = "" if result["rebalance"] == "none" else f"every {result['rebalance']}"
    drift = "" if result["drift"] is None else f"at a drift of {result['drift'] * 100:g} %"
    when = " and ".join(filter(None, (schedule, drift))) or "never again"
    yield f"{result['start']} → {result['end']}, {result['bars']} bars"
    yield f"rebalanced {when}: {result['rebalances']:,} times, {result['fills']:,} fills"


def holdings(result: Mapping[str, Any]) -> Iterable[RenderableType]:
    """Yield the table of the symbols, those first that made or lost most."""
    found = sorted(result["holdings"], key=lambda each: -abs(each["pnl"]))
    yield right_aligned(
        [_written(each) for each in found[:_SHOWN]],
        {
            "symbol": "symbol",
            "average_weight": "average weight",
            "weight": "last weight",
            "pnl": "profit",
            "costs": "costs",
            "fills": "fills",
        },
    )
    if len(found) > _SHOWN:
        yield f"and {len(found) - _SHOWN} more, in the report and in --output json"


def _written(holding: Mapping[str, Any]) -> Row:
    return {
        "symbol": holding["symbol"],
        "average_weight": f"{holding['average_weight'] * 100:.2f} %",
        "weight": f"{holding['weight'] * 100:.2f} %",
        "pnl": f"{holding['pnl']:,.2f}",
        "costs": f"{holding['costs']:,.2f}",
        "fills": f"{holding['fills']:,}",
    }
