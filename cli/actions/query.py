"""What `data sql` and `data export` do. Arrow is loaded for an export alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cli.actions.table_file import target, written
from cli.client.api import Client
from cli.client.connect import connect
from cli.terminal.options import detail, say
from cli.terminal.render import emit, grid, pairs
from gpt_trader.errors import EngineUnreachable, Problem, Refused, UnknownName
from gpt_trader.instruments import TIMEFRAMES, valid_symbol

if TYPE_CHECKING:
    import pyarrow as pa

#: Seconds that an answer may take beyond the query itself: waiting for a place, starting, encoding.
_BEYOND: Final = 30.0
#: Bars asked for at once: what the API gives at most.
_PAGE: Final = 100_000
#: Before every bar that the lake can hold.
_BEGINNING: Final = "1800-01-01T00:00:00Z"


def ask(statement: str, *, as_of: str | None, limit: int, timeout: float) -> None:
    """Show the answer to one SELECT; stdin holds it where `statement` is `-`."""
    sql = sys.stdin.read() if statement == "-" else statement
    with connect() as client:
        client.patience(timeout + _BEYOND)
        answer = client.query({"sql": sql, "as_of": as_of, "limit": limit, "timeout": timeout})
    names = list(answer["columns"])
    rows = [dict(zip(names, row, strict=True)) for row in zip(*answer["columns"].values(), strict=True)]
    if answer["truncated"]:
        say(f"only the first {limit} rows are shown: there are more (--limit)")
    emit(
        answer,
        rows=lambda: rows,
        table=lambda: [grid(rows, dict(zip(names, names, strict=True))) if rows else "no rows"],
    )


@dataclass(frozen=True)
class Wanted:
    """Which bars an export holds: those of the symbols from `start` to `end`, in one version and view."""

    symbols: tuple[str, ...]
    timeframe: str
    start: str | None
    end: str | None
    as_of: str | None
    adjust: str

    def checked(self) -> Wanted:
        """Return it with the symbols as ids, each once; raise Refused or UnknownName."""
        try:
            symbols = tuple(dict.fromkeys(valid_symbol(symbol) for symbol in self.symbols))
        except ValueError as error:
            raise Refused.of(Problem("symbol", ", ".join(self.symbols), str(error))) from None
        if self.timeframe not in TIMEFRAMES:
            raise UnknownName.among("timeframe", self.timeframe, list(TIMEFRAMES))
        return Wanted(symbols, self.timeframe, self.start, self.end, self.as_of, self.adjust)


def export_bars(wanted: Wanted, file: str, *, force: bool) -> None:
    """Write the bars into one file, whole or not at all, and say what is in it."""
    asked = wanted.checked()
    path = target(file, force=force)
    counted = dict.fromkeys(asked.symbols, 0)
    snapshot = asked.as_of  # the first answer names the version, and every other page is of the same one
    with connect() as client, written(path, force=force) as out:
        for symbol in asked.symbols:
            for table, found in _pages(client, symbol, asked, snapshot):
                out.write(table)
                counted[symbol] += table.num_rows
                snapshot = found
            detail(f"{symbol}: {counted[symbol]:,} bars")
    done = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "rows": sum(counted.values()),
        "symbols": counted,
        "timeframe": asked.timeframe,
        "adjust": asked.adjust,
        "snapshot_id": snapshot,
    }
    emit(done, table=lambda: [pairs(done)])


def _pages(
    client: Client, symbol: str, wanted: Wanted, snapshot: str | None
) -> Iterator[tuple[pa.Table, str]]:
    """Yield one symbol's bars as they are to be written, oldest first, and the snapshot they are from."""
    import pyarrow as pa

    after, full = _BEGINNING, True
    while full:
        content, snapshot = client.bars_page(
            symbol,
            timeframe=wanted.timeframe,
            start=wanted.start,
            end=wanted.end,
            as_of=snapshot,
            adjust=wanted.adjust,
            after=after,
            limit=_PAGE,
        )
        try:
            table = pa.ipc.open_stream(content).read_all()
        except pa.ArrowInvalid:
            raise EngineUnreachable(
                "the server's answer is no Arrow stream: is it an older version?"
            ) from None
        full = table.num_rows == _PAGE
        if table.num_rows:
            after = table.column("time")[-1].as_py().isoformat()
        yield table.add_column(0, "symbol", pa.repeat(symbol, table.num_rows)), snapshot
