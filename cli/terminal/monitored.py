"""What `monitor` shows of the engine: tables of runs, bars and events, and a line for each thing that happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from cli.terminal.render import grid, short_strategy

if TYPE_CHECKING:
    from rich.console import RenderableType

Row = Mapping[str, Any]

_BAR: Final = 12


def run_table(runs: Iterable[Row]) -> RenderableType:
    """Return runs, each with its progress."""
    columns = {"run": "run", "flow": "workflow", "about": "about", "state": "state", "progress": "progress"}
    return grid(map(_run_row, runs), {**columns, "message": "last said"})


def bar_table(bars: Iterable[Row]) -> RenderableType:
    """Return the newest bars."""
    wanted = ("symbol", "timeframe", "time", "open", "high", "low", "close", "volume")
    return grid(bars, {name: name for name in wanted})


def event_table(events: Iterable[Row]) -> RenderableType:
    """Return what the engine did."""
    return grid(map(_event_row, events), {"ts": "time", "event": "event", "what": "what"})


def line(message: Mapping[str, Any], named: Callable[[object], str] = str) -> str:
    """Return one publication as a line; `named` returns what a session is called."""
    name = str(message["channel"]) + (f" {message['key']}" if message.get("key") else "")
    facts = {each: value for each, value in (message.get("data") or {}).items() if each != "schema_version"}
    if "session_id" in facts:
        name += f" {named(facts.pop('session_id'))}"
    return f"{clock(message.get('ts'))}  {name}  {message.get('event', message['type'])}  {_said(facts)}".rstrip()


def alert_line(alert: Mapping[str, Any]) -> str:
    """Return an alert as a line."""
    return f"{clock(alert['last_at'])}  alert {alert['id']}  {alert['severity']}  {alert['message']}"


def _run_row(run: Row) -> Row:
    return {
        **run,
        "run": str(run["run_id"])[:8],
        "about": " ".join(short_strategy(word) for word in str(run["about"]).split()),
        "progress": _progress(run),
        "message": (run.get("message") or "").partition("\n")[0][:60],
    }


def _progress(run: Row) -> str:
    done, total = run.get("done"), run.get("total")
    if not total or done is None:
        return str(run.get("stage") or "")
    filled = round(_BAR * min(done / total, 1))
    return f"{'█' * filled}{'░' * (_BAR - filled)} {done}/{total} {run.get('stage') or ''}".rstrip()


def _event_row(event: Row) -> Row:
    rest = {name: value for name, value in event.items() if name not in ("ts", "event")}
    return {"ts": clock(event.get("ts")), "event": event.get("event"), "what": _said(rest)}


def _said(facts: Mapping[str, Any]) -> str:
    """Return facts as words; of bars, the newest."""
    shown = []
    for name, value in facts.items():
        if value in (None, "", [], {}):
            continue
        if name == "bars" and isinstance(value, list):
            shown.append(f"close={value[-1].get('close')} at {value[-1].get('time')}")
        elif name == "snapshot_id":
            shown.append(f"snapshot={str(value)[:12]}")
        elif isinstance(value, list):
            shown.append(f"{name}={','.join(map(str, value))}")
        else:
            shown.append(f"{name}={str(value).partition(chr(10))[0]}")
    return " ".join(shown)


def clock(ts: object) -> str:
    """Return a moment's time of day."""
    return str(ts or "").partition("T")[2][:8]
