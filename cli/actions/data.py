"""What the `data` commands do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cli.client.api import Json
from cli.client.connect import connect, is_remote
from cli.runs.prepare import prepare
from cli.runs.submit import finish, start
from cli.terminal.render import emit, grid, listing
from cli.terminal.result import show_result
from gpt_trader.errors import NotFound, Problem, Refused, RunFailed, UnknownName
from gpt_trader.instruments import TIMEFRAMES, valid_symbol
from gpt_trader.requests import DataRequest
from gpt_trader.slices import SLICES

_BAR_COLUMNS: Final = ("time", "open", "high", "low", "close", "volume")


def ingest_bars(values: Mapping[str, Any]) -> None:
    """Run the data workflow and show what came in. A file is named to the engine by its whole path."""
    given = dict(values)
    if given.get("file") and not is_remote():
        path = Path(str(given["file"])).expanduser().absolute()
        if not path.is_file():
            raise NotFound(f"file {path} does not exist")
        given["file"] = str(path)
    prepared = prepare(DataRequest, given)
    route = SLICES["data"].route
    with connect() as client:
        started = start(prepared, lambda server, body: server.submit(route, body), client)
        result = finish(client, started, "data ingest")
    show_result(result, links=client.absolute(started.links))
    if result.get("failed"):
        raise RunFailed(f"{result['failed']} of {len(result['series'])} series did not come in")


def show_symbols(as_of: str | None) -> None:
    """List the lake's symbols, then (of the newest version) those that the default source could bring."""
    with connect() as client:
        items = client.symbols(as_of=as_of)
    columns = {
        "symbol": "symbol",
        "timeframe": "bar",
        "stored": "in the lake",
        "bars": "bars",
        "start": "start",
        "end": "end",
        "source": "source",
        "name": "name",
    }
    listing(items, columns, empty="the lake is empty: gpt-trader data ingest --symbol AAPL")


def show_bars(
    symbol: str, *, timeframe: str, start: str | None, end: str | None, as_of: str | None, limit: int
) -> None:
    """Show bars of one symbol, oldest first."""
    try:
        checked = valid_symbol(symbol)
    except ValueError as error:
        raise Refused.of(Problem("symbol", symbol, str(error))) from None
    if timeframe not in TIMEFRAMES:
        raise UnknownName.among("timeframe", timeframe, list(TIMEFRAMES))
    with connect() as client:
        answer = client.bars(checked, timeframe=timeframe, start=start, end=end, as_of=as_of, limit=limit)
    rows = _rows(answer)
    headings: dict[str, str] = {name: name for name in _BAR_COLUMNS if rows and name in rows[0]}
    emit(answer, rows=lambda: rows, table=lambda: [grid(rows, headings) if rows else "no bars in this range"])


def _rows(answer: Mapping[str, Any]) -> list[Json]:
    columns: Mapping[str, Any] = answer["columns"]
    present = [name for name in _BAR_COLUMNS if isinstance(columns.get(name), list)]
    return [dict(zip(present, bar, strict=True)) for bar in zip(*(columns[n] for n in present), strict=True)]
