"""`backtest --watch`: run again whenever the strategy's file changes, and show what that changed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.client.connect import connect
from cli.runs.prepare import prepare
from cli.runs.submit import finish, start
from cli.terminal.failures import Interrupted, report
from cli.terminal.options import current, say
from cli.terminal.result import show_result
from gpt_trader.errors import Denied, EngineUnreachable, GptTraderError, Problem, Refused
from gpt_trader.requests import BacktestRequest
from gpt_trader.slices import SLICES
from gpt_trader.strategies import user
from gpt_trader.validation import validated

if TYPE_CHECKING:
    from cli.client.api import Client, Json

#: Seconds between two looks at the file.
_PAUSE: Final = 0.2


def watch_backtest(values: Mapping[str, Any], *, in_process: bool, open_report: bool | None) -> None:
    """Run a backtest of `values` (fields of the request) now and after each change of the strategy's file.

    Ctrl-C while waiting ends it; during a run it cancels the run, as ever. What is wrong with the file, or goes wrong
    in a run, is said, and the watch goes on.

    Raises Refused where there is no file to watch, or an option does not go with watching.
    """
    path = _watched(values, in_process=in_process, open_report=open_report)
    given = {**values, "report": False}  # nobody opens ten reports a minute
    previous: Json | None = None
    with connect() as client:
        content = path.read_bytes()
        while True:
            previous = _run(client, given, previous) or previous
            say(f"watching {path}: save it to run again, Ctrl-C to end")
            try:
                content = _changed(path, content)
            except KeyboardInterrupt:
                say("no longer watching")
                return


def _watched(values: Mapping[str, Any], *, in_process: bool, open_report: bool | None) -> Path:
    """Return the file to watch; raise Refused for what no change of it can mend."""
    name = values.get("strategy")
    if values.get("symbol") is None:
        raise Refused.of(Problem("symbol", None, "is missing: give --symbol, e.g. --symbol AAPL"))
    if name is None or not user.is_file_reference(str(name)):
        message = "is for a strategy file, which is what changes"
        raise Refused.of(Problem("watch", name, message, allowed="--strategy ./mine.py"))
    if current().machine:
        raise Refused.of(Problem("watch", current().output.value, "shows tables: leave --output out"))
    if in_process:
        raise Refused.of(Problem("watch", "--in-process", "runs in the warm worker: leave --in-process out"))
    if open_report:
        raise Refused.of(Problem("watch", "--open-report", "writes no reports: leave --open-report out"))
    # All but the strategy and its parameters, which are the file's.
    validated(BacktestRequest, {k: v for k, v in values.items() if v is not None and k != "params"})
    path, _ = user.split_reference(str(name)) if ".py:" in str(name) else (Path(str(name)), "")
    path = path.expanduser().absolute()
    if not path.is_file():
        raise Refused.of(Problem("strategy", name, f"there is no file {path}"))
    return path


def _run(client: Client, values: Mapping[str, Any], previous: Json | None) -> Json | None:
    """Run it once and show it; None where it is refused or fails, which is said."""
    try:
        prepared = prepare(BacktestRequest, values)
        started = start(prepared, lambda server, body: server.submit(SLICES["backtest"].route, body), client)
        result = finish(client, started, "backtest")
    except (Interrupted, EngineUnreachable, Denied):
        raise
    except GptTraderError as error:
        report(error)
        return None
    show_result(result, links=client.absolute(started.links), previous=previous)
    return result


def _changed(path: Path, content: bytes) -> bytes:
    """Wait until the file has another content, and has had it for a moment (an editor writes in steps); return it."""
    seen = None
    while True:
        time.sleep(_PAUSE)
        now = _stamp(path)
        if now is None or now == seen:  # an editor that replaces a file leaves none for a moment
            continue
        time.sleep(_PAUSE)
        if _stamp(path) == now:
            seen = now
            found = path.read_bytes()
            if found != content:
                return found


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino
