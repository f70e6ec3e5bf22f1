"""The words for a backtest's metrics, and how their values are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from cli.terminal.render import Row, grid, shown

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Metric → (its words, how it is written). A metric that is not here is shown by its own name.
METRICS: Final[Mapping[str, tuple[str, str]]] = {
    "total_return": ("total return", "percent"),
    "benchmark_return": ("buy and hold's return", "percent"),
    "annualized_return": ("annualized return", "percent"),
    "annualized_volatility": ("annualized volatility", "percent"),
    "sharpe": ("Sharpe", "ratio"),
    "sortino": ("Sortino", "ratio"),
    "calmar": ("Calmar", "ratio"),
    "max_drawdown": ("max drawdown", "percent"),
    "max_drawdown_bars": ("  its length, bars", "count"),
    "exposure": ("exposure", "percent"),
    "turnover": ("turnover a year", "ratio"),
    "trades": ("trades", "count"),
    "win_rate": ("win rate", "percent"),
    "profit_factor": ("profit factor", "ratio"),
    "expectancy": ("expectancy", "money"),
    "average_trade": ("average trade", "percent"),
    "best_trade": ("best trade", "percent"),
    "worst_trade": ("worst trade", "percent"),
    "costs": ("costs paid", "money"),
    "final_equity": ("final equity", "money"),
}

#: A fraction beyond which no digits are told that nobody reads.
_HUGE: Final = 1e6


def written(name: str, value: object) -> str:
    """Return a metric's value as a table shows it."""
    kind = METRICS.get(name, ("", ""))[1]
    if not isinstance(value, int | float) or isinstance(value, bool):
        return shown(value)
    if kind == "percent":  # a return of minutes, made a year's, may have dozens of digits
        return f"{value * 100:,.2f} %" if abs(value) < _HUGE else f"{value * 100:.2e} %"
    if kind == "ratio":
        return f"{value:,.2f}"
    if kind == "money":
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else shown(value)


def right_aligned(rows: Iterable[Row], columns: Mapping[str, str]) -> RenderableType:
    """Return a table with all columns but the first set to the right: they hold numbers, written already."""
    from rich.table import Table

    table = grid(rows, columns)
    assert isinstance(table, Table)
    for column in table.columns[1:]:
        column.justify = "right"
    return table
