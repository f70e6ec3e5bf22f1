"""The backtest command's way: check here, send, follow, show, open the report where that is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.connect import connect, is_remote
from cli.options import current, detail, say
from cli.prepare import Prepared, prepare
from cli.result_view import show_result
from cli.runs import finish, start
from gpt_trader.errors import Problem, Refused
from gpt_trader.requests import BacktestRequest
from gpt_trader.slices import SLICES

if TYPE_CHECKING:
    from cli.client import Json


def run_backtest(values: Mapping[str, Any], *, in_process: bool, open_report: bool | None) -> None:
    """Run a backtest of `values` (fields of the request; None: not given) and show what it found."""
    if values.get("symbol") is None:
        raise Refused.of(Problem("symbol", None, "is missing: give --symbol, e.g. --symbol AAPL"))
    prepared = prepare(BacktestRequest, values)
    result, link = _in_process(prepared) if in_process else _by_the_api(prepared)
    show_result(result, prefect_link=link)
    if _wanted(open_report, values):
        _open(result)


def _by_the_api(prepared: Prepared) -> tuple[Json, str | None]:
    route = SLICES["backtest"].route
    with connect() as client:
        started = start(prepared, lambda server, body: server.submit(route, body), client)
        return finish(client, started, "backtest"), started.links.get("prefect_ui")


def _in_process(prepared: Prepared) -> tuple[Json, str | None]:
    if is_remote():
        raise Refused(
            "--in-process runs on this machine's own engine: leave --server and GPT_TRADER_SERVER out"
        )
    from cli.in_process import run_in_process

    return run_in_process("backtest", prepared), None


def _wanted(open_report: bool | None, values: Mapping[str, Any]) -> bool:
    if values.get("report") is False or is_remote():
        return False
    if open_report is not None:
        return open_report
    if current().machine:
        return False
    from gpt_trader.settings import load_settings

    return load_settings().open_report


def _open(result: Mapping[str, Any]) -> None:
    report = (result.get("artifacts") or {}).get("report")
    if not report or not Path(str(report)).is_file():
        say("there is no report to open")
        return
    import webbrowser

    address = Path(str(report)).absolute().as_uri()
    if not webbrowser.open(address):
        say(f"no browser could be started: open {address}")
    else:
        detail(f"opened {address}")
