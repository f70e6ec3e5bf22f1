"""What `data snapshots` and `data collect` do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from cli.client.api import Json
from cli.client.connect import connect
from cli.terminal.render import emit, grid, to_the_second
from gpt_trader.errors import NotFound

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cli.client.api import Client

#: Series that a table names one by one; of more it says how many.
_NAMED: Final = 3
#: Seconds a collection may take: it waits for an ingest that holds the lake, and removes many files.
_COLLECTION_SECONDS: Final = 600


def show_snapshots(limit: int) -> None:
    """List up to `limit` snapshots, newest first, with what each changed."""
    with connect() as client:
        # From the newest on: each one's parent comes next, and the server has just read it.
        details = [*_details(client, client.snapshots()[:limit])]
    columns = {"id": "snapshot", "created": "created", "changes": "changes"}
    emit(
        details,
        rows=lambda: [_row(each) for each in details],
        table=lambda: [
            grid(map(_row, details), columns)
            if details
            else "the lake is empty: gpt-trader data ingest --symbol AAPL"
        ],
    )


def collect_snapshots(older_than_days: float | None, *, dry_run: bool) -> None:
    """Remove old snapshots, or with `dry_run` only say which would go."""
    with connect() as client:
        client.patience(_COLLECTION_SECONDS)
        done = client.collect(older_than_days=older_than_days, dry_run=dry_run)
    emit(
        done, table=lambda: _collected(done), rows=lambda: [{"snapshot": name} for name in done["snapshots"]]
    )


def _details(client: Client, listed: Sequence[Mapping[str, Any]]) -> Iterator[Json]:
    """Ask for each snapshot; one that has been collected meanwhile is left out."""
    for each in listed:
        try:
            yield client.snapshot(str(each["id"]))
        except NotFound:
            continue


def _row(snapshot: Mapping[str, Any]) -> Json:
    return {
        "id": snapshot["id"],
        "created": to_the_second(snapshot["created_at"]),
        "changes": _in_words(snapshot["changes"]),
        "series": snapshot["series"],
        "bytes": snapshot["bytes"],
    }


def _in_words(changes: Mapping[str, Any]) -> str:
    said = [*_series("added", changes["added"]), *_series("changed", changes["changed"])]
    said += _series("removed", changes["removed"])
    said += [
        f"{what} of {_names(changes[field])}"
        for field, what in (("instruments", "facts"), ("actions", "corporate actions"))
        if changes[field]
    ]
    return "; ".join(said) or "nothing"


def _series(verb: str, series: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if len(series) > _NAMED:
        bars = sum(each["rows"] or each["rows_before"] for each in series)
        return [f"{verb} {len(series)} series ({bars:,} bars)"]
    return [f"{verb} {each['symbol']} {each['timeframe']} ({_bars(each)})" for each in series]


def _bars(change: Mapping[str, Any]) -> str:
    before, now = change["rows_before"], change["rows"]
    if before is None or now is None:
        return f"{before or now:,} bars"
    return f"{now:,} bars, as many as before" if before == now else f"{before:,} → {now:,} bars"


def _names(symbols: Sequence[str]) -> str:
    return ", ".join(symbols) if len(symbols) <= _NAMED else f"{len(symbols)} symbols"


def _collected(done: Mapping[str, Any]) -> Iterable[RenderableType]:
    gone: Sequence[str] = done["snapshots"]
    verb = "would remove" if done["dry_run"] else "removed"
    yield (
        f"{verb} {len(gone)} snapshots and {done['files']} files, {done['bytes'] / 1e6:,.1f} MB; "
        f"{done['kept']} snapshots stay"
    )
    yield from gone
    studies: Sequence[str] = done.get("studies", ())
    if studies:
        yield f"{verb} {len(studies)} Optuna studies"
        yield from studies
