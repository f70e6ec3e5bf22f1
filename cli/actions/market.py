"""What `data check`, `data instrument`, `data actions` and `data quote` do."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.actions.files import write_whole
from cli.client.api import Json
from cli.client.connect import connect
from cli.terminal.options import say
from cli.terminal.render import emit, grid, listing, pairs
from gpt_trader.errors import NotFound, Problem, Refused
from gpt_trader.instruments import valid_symbol

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Findings that a table shows of one series; JSON, YAML, CSV and the page show all.
_SHOWN: Final = 20
_CHECK_SECONDS: Final = 600
_ACTION_COLUMNS: Final = ("ex_date", "split", "dividend")


def check_bars(
    symbols: Sequence[str],
    timeframes: Sequence[str],
    *,
    start: str | None,
    end: str | None,
    as_of: str | None,
    html: str | None,
) -> None:
    """Show the verdicts on stored series, and write them as a page where a file is named."""
    query = {
        "symbol": [_checked(symbol) for symbol in symbols],
        "timeframe": list(timeframes),
        "start": start,
        "end": end,
        "as_of": as_of,
    }
    with connect() as client:
        client.patience(_CHECK_SECONDS)
        verdicts = client.quality(**query)
        page = client.quality_page(**query) if html else b""
    if html:
        path = write_whole(Path(html), page)
        say(f"page: {path}")
    emit(
        verdicts,
        table=lambda: _verdicts(verdicts) if verdicts else ["the lake has nothing to check"],
        rows=lambda: [_finding(verdict, each) for verdict in verdicts for each in verdict["findings"]],
    )


def show_instrument(
    symbol: str, given: Mapping[str, str], unset: Sequence[str], as_of: str | None = None
) -> None:
    """Show an instrument; first set the facts that are given, and take back those that are named."""
    both = sorted(given.keys() & set(unset))
    if both:
        raise Refused.of(Problem("unset", both[0], "is set by the same command"))
    changes: Json = {**given, **dict.fromkeys(unset)}
    if changes and as_of:
        raise Refused.of(Problem("as-of", as_of, "is for reading: facts are set in the newest version"))
    with connect() as client:
        name = _checked(symbol)
        found = client.edit_instrument(name, changes) if changes else client.instrument(name, as_of=as_of)
    facts = found["instrument"]
    by_hand = facts["edited"]
    columns = {
        "timeframe": "bar",
        "source": "source",
        "bars": "bars",
        "start": "first",
        "end": "last",
        "bytes": "bytes",
    }

    def table() -> Iterator[RenderableType]:
        yield pairs({name: value for name, value in facts.items() if name != "edited"})
        if by_hand:
            yield f"set by hand: {', '.join(by_hand)}"
        yield ""
        yield grid(found["series"], columns)

    emit(found, table=table, rows=lambda: found["series"])


def show_actions(symbol: str, file: str | None, as_of: str | None) -> None:
    """List splits and dividends; first replace them where a file is given."""
    checked = _checked(symbol)
    rows = _action_rows(Path(file)) if file else None
    with connect() as client:
        if rows is not None:
            client.replace_actions(checked, rows)
        items = client.actions(checked, as_of=as_of)
    listing(
        items,
        {"ex_date": "ex-date", "split": "new for one old", "dividend": "dividend"},
        empty=f"no split and no dividend of {checked} is known",
    )


def show_quote(symbol: str, source: str | None) -> None:
    """Show the newest prices of a symbol."""
    with connect() as client:
        found = client.quote(_checked(symbol), source=source)
    emit(found, table=lambda: [pairs(found)])


def remove_series(symbol: str, timeframe: str) -> None:
    """Take a series out of the lake."""
    with connect() as client:
        done = client.remove_series(_checked(symbol), timeframe)
    emit(done, table=lambda: [f"removed {symbol.upper()} {timeframe}; snapshot {done['snapshot_id']}"])


def _checked(symbol: str) -> str:
    try:
        return valid_symbol(symbol)
    except ValueError as error:
        raise Refused.of(Problem("symbol", symbol, str(error))) from None


def _verdicts(verdicts: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    columns = {
        "symbol": "symbol",
        "timeframe": "bar",
        "status": "verdict",
        "bars": "bars",
        "expected": "expected",
        "calendar": "calendar",
        "found": "findings",
    }
    yield grid([{**verdict, "found": _counts(verdict)} for verdict in verdicts], columns)
    for verdict in verdicts:
        yield from _details(verdict)


def _counts(verdict: Mapping[str, Any]) -> str:
    rules = [finding["rule"] for finding in verdict["findings"]]
    return ", ".join(f"{rule} {rules.count(rule)}" for rule in dict.fromkeys(rules)) or "none"


def _details(verdict: Mapping[str, Any]) -> Iterable[RenderableType]:
    findings = verdict["findings"]
    if not findings and not verdict["notes"]:
        return
    yield ""
    yield f"{verdict['symbol']} {verdict['timeframe']}"
    if findings:
        columns = {
            "rule": "rule",
            "severity": "severity",
            "first": "first",
            "last": "last",
            "count": "bars",
            "detail": "what",
        }
        yield grid(findings[:_SHOWN], columns)
    if len(findings) > _SHOWN:
        yield f"{len(findings) - _SHOWN} more: --output json, or --html FILE, shows all"
    for note in verdict["notes"]:
        yield f"note: {note}"


def _finding(verdict: Mapping[str, Any], finding: Mapping[str, Any]) -> Json:
    return {"symbol": verdict["symbol"], "timeframe": verdict["timeframe"], **finding}


def _action_rows(path: Path) -> list[Json]:
    """Read ex_date, split, dividend; a column that is not there, or an empty cell, says that there was none."""
    if not path.is_file():
        raise NotFound(f"file {path} does not exist")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or []
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise Refused(f"{path} is no CSV in UTF-8: {error}") from None
    if "ex_date" not in names or len(set(names)) < len(names) or not set(names) <= set(_ACTION_COLUMNS):
        allowed = ", ".join(_ACTION_COLUMNS)
        raise Refused.of(Problem("file", ",".join(names), "has other columns than expected", allowed=allowed))
    for number, row in enumerate(rows, 1):
        if None in row:
            raise Refused.of(
                Problem("file", ",".join(row[None]), f"row {number} has more cells than columns")
            )
    return [{name: value for name, value in row.items() if value} for row in rows]
