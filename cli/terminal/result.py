"""Shows what a run found: a backtest as a table of metrics beside buy-and-hold's, anything else as name and value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from cli.terminal.allocated import holdings, portfolio_heading
from cli.terminal.ingested import ingested
from cli.terminal.metrics import METRICS, right_aligned, written
from cli.terminal.optimized import optimized, trial_rows
from cli.terminal.render import Row, emit, grid, pairs, short_strategy, shown
from cli.terminal.sessions import stepped, traded

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Said by the column of buy-and-hold, not by a row.
_SAID_ELSEWHERE: Final = frozenset({"benchmark_return"})


def show_result(
    result: Mapping[str, Any],
    *,
    links: Mapping[str, str] | None = None,
    previous: Mapping[str, Any] | None = None,
) -> None:
    """Write a result in the format that was asked for; JSON and YAML hold it as the API gave it.

    `previous`: the result of the backtest before, whose metrics a table shows beside.
    """
    if result.get("flow") == "data":
        emit(dict(result), table=lambda: ingested(result, links or {}), rows=lambda: result["series"])
        return
    if result.get("flow") == "optimize":
        emit(dict(result), table=lambda: optimized(result, links or {}), rows=lambda: trial_rows(result))
        return
    if result.get("flow") == "paper_daily":
        emit(dict(result), table=lambda: stepped(result), rows=lambda: result["each"])
        return
    if "certificate" in result:
        emit(dict(result), table=lambda: traded(result, links or {}))
        return
    if "metrics" not in result:
        emit(dict(result), table=lambda: _facts(result), rows=lambda: _ingested(result))
        return
    emit(
        dict(result),
        table=lambda: _backtest(result, links or {}, previous),
        rows=lambda: [{"metric": name, "value": value} for name, value in result["metrics"].items()],
    )


def _backtest(
    result: Mapping[str, Any], links: Mapping[str, str], previous: Mapping[str, Any] | None
) -> Iterable[RenderableType]:
    from rich.text import Text

    metrics: Mapping[str, Any] = result["metrics"]
    benchmark = _benchmark(result)
    before: Mapping[str, Any] = previous["metrics"] if previous else {}
    portfolio = result.get("flow") == "portfolio"
    yield from portfolio_heading(result) if portfolio else _heading(result)
    yield ""
    names = [name for name in [*METRICS, *metrics] if name in metrics and name not in _SAID_ELSEWHERE]
    rows = [
        {
            "metric": METRICS.get(name, (name.replace("_", " "), ""))[0],
            "strategy": written(name, metrics[name]),
            "held": written(name, benchmark[name]) if name in benchmark else "",
            "before": written(name, before[name]) if name in before else "",
        }
        for name in dict.fromkeys(names)
    ]
    beside = {"before": "run before"} if previous else {}
    columns = {
        "metric": "",
        "strategy": "portfolio" if portfolio else "strategy",
        **beside,
        "held": "buy and hold",
    }
    yield right_aligned(rows, columns)
    if portfolio:
        yield ""
        yield from holdings(result)
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


def _heading(result: Mapping[str, Any]) -> Iterable[RenderableType]:
    from rich.text import Text

    title = Text(f"{result['symbol']}  {short_strategy(result['strategy'])}", style="bold")
    params = shown(result.get("params") or {})
    title.append(f"({params})" if params else "", style="not bold")
    yield title
    yield f"{_day(result.get('start'))} → {_day(result.get('end'))}, {result.get('bars')} bars"


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
