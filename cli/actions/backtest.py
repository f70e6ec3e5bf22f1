"""The backtest command's way: check here, send, follow, show, open the report where that is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.client.connect import connect, is_remote
from cli.runs.prepare import Prepared, prepare
from cli.runs.submit import finish, start
from cli.terminal.options import current, say
from cli.terminal.result import show_result
from gpt_trader.errors import NotFound, Problem, Refused
from gpt_trader.requests import BacktestRequest
from gpt_trader.slices import SLICES

if TYPE_CHECKING:
    from cli.client.api import Client, Json


def run_backtest(values: Mapping[str, Any], *, in_process: bool, open_report: bool | None) -> None:
    """Run a backtest of `values` (fields of the request; None: not given) and show what it found."""
    if values.get("symbol") is None:
        raise Refused.of(Problem("symbol", None, "is missing: give --symbol, e.g. --symbol AAPL"))
    prepared = prepare(BacktestRequest, values)
    if in_process and is_remote():
        raise Refused(
            "--in-process runs on this machine's own engine: leave --server and GPT_TRADER_SERVER out"
        )
    with connect() as client:
        result, links = _in_process(prepared, client) if in_process else _by_the_api(prepared, client)
        show_result(result, links=client.absolute(links))
        if values.get("report") is not False and _wanted(open_report):
            _open(client, result)


def _by_the_api(prepared: Prepared, client: Client) -> tuple[Json, Mapping[str, str]]:
    route = SLICES["backtest"].route
    started = start(prepared, lambda server, body: server.submit(route, body), client)
    return finish(client, started, "backtest"), started.links


def _in_process(prepared: Prepared, client: Client) -> tuple[Json, Mapping[str, str]]:
    from cli.runs.in_process import run_in_process

    result = run_in_process("backtest", prepared, client)
    return result, client.run(str(result["run_id"])).get("links") or {}


def _wanted(open_report: bool | None) -> bool:
    if open_report is not None:
        return open_report
    if current().machine:
        return False
    from gpt_trader.settings import load_settings

    return load_settings().open_report


def _open(client: Client, result: Json) -> None:
    """Open the report in a browser: the local engine's own file, or a copy of a remote server's.

    Not the API's address: it wants a key that a browser does not have.
    """
    import webbrowser

    page = _copy(client, str(result["run_id"])) if is_remote() else _file(result)
    address = page.as_uri()
    opened = webbrowser.open(address)
    say(f"opened {address}" if opened else f"no browser could be started: open {address}")


def _file(result: Json) -> Path:
    named = (result.get("artifacts") or {}).get("report")
    if not named or not Path(named).is_file():
        raise NotFound(f"run {result['run_id']} has no report" + (f": {named} is gone" if named else ""))
    return Path(named).absolute()


def _copy(client: Client, run_id: str) -> Path:
    import tempfile

    page = client.report(run_id)
    with tempfile.NamedTemporaryFile(prefix=f"gpt-trader-{run_id}-", suffix=".html", delete=False) as copy:
        copy.write(page)
    return Path(copy.name)
