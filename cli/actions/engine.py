"""What `up`, `down` and `status` do and show."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli.engine.record import PARTS, EngineRecord
from cli.engine.running import running_record, stop_engine
from cli.engine.start_display import StartDisplay
from cli.engine.status import engine_status
from cli.terminal.options import say
from cli.terminal.render import emit, grid, pairs
from gpt_trader import __version__
from gpt_trader.errors import Conflict
from gpt_trader.settings import Home, Settings, home, load_settings

if TYPE_CHECKING:
    from rich.console import RenderableType

_INTERRUPTED = 130


def bring_up(options: Mapping[str, Any], only: Sequence[str], *, detach: bool) -> int:
    """Start the engine here or in the background, show where it answers, and return the exit code."""
    settings, engine_home = load_settings(options), home()
    record = running_record(engine_home)
    if record is not None and record.state == "running":
        _refuse_other_ports(options, record)
        say(f"the engine is already running (pid {record.supervisor.pid})")
        if record.version != __version__:
            say(
                f"it is version {record.version} and this is {__version__}: gpt-trader down, then up, renews it"
            )
        if not detach:
            show_status()
            return 0
    if detach:
        _in_background(settings, engine_home, only)
        return 0
    return _in_foreground(settings, engine_home, only)


def take_down() -> None:
    """Stop the engine and say so; one that is not running is as good."""
    was_running = stop_engine(home())
    text = "the engine is stopped" if was_running else "the engine was not running"
    emit({"state": "stopped", "was_running": was_running}, table=lambda: [text])


def show_status() -> None:
    """Show the engine's status on stdout."""
    status = engine_status(home())
    emit(
        status,
        table=lambda: _status_table(status),
        rows=lambda: [{"part": name} | part for name, part in status["parts"].items()],
    )


def _refuse_other_ports(options: Mapping[str, Any], record: EngineRecord) -> None:
    for field, url in (("api_port", record.api_url), ("prefect_port", record.prefect_url)):
        wanted = options.get(field)
        if wanted and url is not None and not url.endswith(f":{wanted}"):
            raise Conflict(
                f"{field} {wanted} was asked for, and the engine of this home runs at {url}: "
                "gpt-trader down stops it"
            )


def _in_background(settings: Settings, engine_home: Home, only: Sequence[str]) -> None:
    from cli.engine.start import start_engine

    start_engine(settings, engine_home, say=say, needs=only or PARTS, only=only)
    show_status()


def _in_foreground(settings: Settings, engine_home: Home, only: Sequence[str]) -> int:
    from cli.engine.plan import make_plan
    from cli.engine.supervisor import AlreadyRunning, supervise

    shown = False

    with StartDisplay(say) as display:

        def watch(record: EngineRecord) -> None:
            nonlocal shown
            display.show(record)
            settled = all(part.state in ("ready", "external", "failed") for part in record.parts.values())
            if settled and not shown and record.state == "running":
                shown = True
                show_status()
                say("Ctrl-C stops it")

        try:
            ended_by = supervise(
                engine_home, lambda: make_plan(settings, engine_home, only), display.say, watch=watch
            )
        except AlreadyRunning:
            say("the engine is already running: another `up` was faster")
            return 0
    return _INTERRUPTED if ended_by == signal.SIGINT else 0


def _status_table(status: Mapping[str, Any]) -> Iterable[RenderableType]:
    rows = [
        {**part, "part": name, "memory": _megabytes(part["memory_bytes"])}
        for name, part in status["parts"].items()
    ]
    columns = {"part": "part", "state": "state", "url": "url", "pid": "pid", "memory": "memory"}
    if any(part["message"] for part in status["parts"].values()):
        columns["message"] = "message"
    yield grid(rows, columns)
    yield pairs(
        {
            "engine": status["state"],
            "memory": _megabytes(status["memory_bytes"]) if status["memory_bytes"] else None,
            "Prefect UI": status["links"]["prefect_ui"],
            "API docs": status["links"]["api_docs"],
            "home": status["home"],
            "versions": ", ".join(f"{name} {number}" for name, number in status["versions"].items()),
        }
    )


def _megabytes(size: int | None) -> str | None:
    return None if size is None else f"{size / 1e6:,.0f} MB"
