"""Shows what a run found: a backtest as a table of metrics beside buy-and-hold's, anything else as name and value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from cli.terminal.ingested import ingested
from cli.terminal.optimized import optimized, trial_rows
from cli.terminal.render import Row, emit, grid, pairs, short_strategy, shown

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Metric → (its words, how it is written). A metric that is not here is shown by its own name.
_METRICS: Final[Mapping[str, tuple[str, str]]] = {
    "total_return": ("total return", "percent"),
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
#: Said by the column of buy-and-hold, not by a row.
_SAID_ELSEWHERE: Final = frozenset({"benchmark_return"})


def show_result(result: Mapping[str, Any], *, links: Mapping[str, str] | None = None) -> None:
    """Write a result in the format that was asked for; JSON and YAML hold it as the API gave it."""
    if result.get("flow") == "data":
        emit(dict(result), table=lambda: ingested(result, links or {}), rows=lambda: result["series"])
        return
    if result.get("flow") == "optimize":
        emit(dict(result), table=lambda: optimized(result, links or {}), rows=lambda: trial_rows(result))
        return
    if "metrics" not in result:
        emit(dict(result), table=lambda: _facts(result), rows=lambda: _ingested(result))
        return
    emit(
        dict(result),
        table=lambda: _backtest(result, links or {}),
        rows=lambda: [{"metric": name, "value": value} for name, value in result["metrics"].items()],
    )


def _backtest(result: Mapping[str, Any], links: Mapping[str, str]) -> Iterable[RenderableType]:
    from rich.text import Text

    metrics: Mapping[str, Any] = result["metrics"]
    benchmark = _benchmark(result)
    title = Text(f"{result['symbol']}  {short_strategy(result['strategy'])}", style="bold")
    params = shown(result.get("params") or {})
    title.append(f"({params})" if params else "", style="not bold")
    yield title
    yield f"{_day(result.get('start'))} → {_day(result.get('end'))}, {result.get('bars')} bars"
    yield ""
    names = [name for name in [*_METRICS, *metrics] if name in metrics and name not in _SAID_ELSEWHERE]
    rows = [
        {
            "metric": _METRICS.get(name, (name.replace("_", " "), ""))[0],
            "strategy": _written(name, metrics[name]),
            "held": _written(name, benchmark[name]) if name in benchmark else "",
        }
        for name in dict.fromkeys(names)
    ]
    yield _right(rows, {"metric": "", "strategy": "strategy", "held": "buy and hold"})
    for said in result.get("warnings") or ():
        yield Text(f"⚠ {said}", style="yellow")
    yield ""
    artifacts: Mapping[str, Any] = result.get("artifacts") or {}
    yield pairs(
        {
            "run": result.get("run_id"),
            "snapshot": result.get("snapshot_id"),
            "result": result.get("result_hash"),
            "report": artifacts.get("report") or links.get("report"),
            "Prefect": links.get("prefect"),
        }
    )


def _right(rows: Iterable[Row], columns: Mapping[str, str]) -> RenderableType:
    from rich.table import Table

    table = grid(rows, columns)
    assert isinstance(table, Table)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _benchmark(result: Mapping[str, Any]) -> Mapping[str, Any]:
    found = result.get("benchmark")
    if isinstance(found, Mapping):
        # Trades of a strategy that never trades again say nothing.
        once = {
            "trades",
            "win_rate",
            "profit_factor",
            "expectancy",
            "average_trade",
            "best_trade",
            "worst_trade",
        }
        return {name: value for name, value in found.items() if name not in once}
    held = result["metrics"].get("benchmark_return")
    return {} if held is None else {"total_return": held}


def _written(name: str, value: object) -> str:
    kind = _METRICS.get(name, ("", ""))[1]
    if not isinstance(value, int | float) or isinstance(value, bool):
        return shown(value)
    if kind == "percent":
        return f"{value * 100:,.2f} %"
    if kind == "ratio":
        return f"{value:,.2f}"
    if kind == "money":
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else shown(value)


def _day(value: object) -> str:
    return str(value).partition("T")[0]


def _facts(result: Mapping[str, Any]) -> Iterable[RenderableType]:
    plain = {name: value for name, value in result.items() if not _is_table(value)}
    yield pairs({name.replace("_", " "): value for name, value in plain.items() if value != {}})
    for name, value in result.items():
        if _is_table(value):
            yield ""
            fields = dict.fromkeys(field for row in value for field in row)
            yield grid(value, {field: field.replace("_", " ") for field in fields})
            yield f"{len(value)} {name.replace('_', ' ')}"


def _ingested(result: Mapping[str, Any]) -> Iterable[Row]:
    """Return the list a result is about (the symbols of an ingest) or, without one, its fields."""
    for value in result.values():
        if _is_table(value):
            return list(value)
    return [{"field": name, "value": value} for name, value in result.items()]


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)
