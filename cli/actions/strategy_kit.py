"""What `strategy new` and `strategy check` do."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.client.connect import connect
from cli.runs.prepare import Prepared, prepare_check
from cli.runs.progress import waiting
from cli.runs.submit import finish, start
from cli.terminal.checked import checked
from cli.terminal.options import say
from cli.terminal.render import emit
from gpt_trader.errors import Conflict, NotFound, RunFailed, UnknownName
from gpt_trader.requests import DataRequest
from gpt_trader.slices import SLICES
from gpt_trader.strategies.scaffold import scaffold

if TYPE_CHECKING:
    from cli.client.api import Client, Json

#: Seconds a check is waited for: a little longer than the engine gives it.
_PATIENCE: Final = 75.0


def write_strategy(name: str, folder: str) -> None:
    """Write the files of a new strategy, both or none, and say what to do with them.

    Raises Refused for a bad name, Conflict where one of the files exists, NotFound where the folder is none.
    """
    made = scaffold(name)
    place = Path(folder).expanduser()
    if place.exists() and not place.is_dir():
        raise NotFound(f"{place} is a file, not a folder")
    place.mkdir(parents=True, exist_ok=True)
    path, test = place / made.file, place / made.test_file
    for each in (path, test):
        if each.exists() or each.is_symlink():
            raise Conflict(f"{each} exists already: nothing was written; choose another name or folder")
    _write(path, made.source)
    try:
        _write(test, made.test)
    except BaseException:
        path.unlink()
        raise
    shown = _as_argument(path)
    steps = {
        "check": f"gpt-trader strategy check {shown}",
        "backtest": f"gpt-trader backtest --strategy {shown} --symbol AAPL",
        "watch": f"gpt-trader backtest --strategy {shown} --symbol AAPL --watch",
        "test": f"{sys.executable} -m pytest {test}",
    }
    written = {"strategy": made.class_name, "file": str(path), "test_file": str(test), "next": steps}
    emit(written, table=lambda: _next_steps(written))


def check_strategy(name: str, values: Mapping[str, Any]) -> None:
    """Have a strategy checked with `values` (fields of the request; None: not given) and show what was found."""
    stored, prepared = prepare_check(name, values)
    with connect() as client:
        client.patience(_PATIENCE)
        prepared.register(client)
        found = _with_bars(client, stored, prepared)
    emit(found, table=lambda: checked(found), rows=lambda: found["findings"])


def _with_bars(client: Client, stored: str, prepared: Prepared) -> Json:
    """Return the outcome; what the lake lacks is ingested first, as a backtest does."""
    try:
        return _checked(client, stored, prepared)
    except UnknownName as unknown:
        lacking = any(problem.field in ("symbol", "timeframe") for problem in unknown.problems)
        if not lacking or prepared.body.get("snapshot"):
            raise
    request: Any = prepared.request
    say(f"{request.symbol} is not in the lake as {request.timeframe} bars: ingesting it first")
    _ingest(client, request.symbol, request.timeframe)
    return _checked(client, stored, prepared)


def _checked(client: Client, stored: str, prepared: Prepared) -> Json:
    with waiting("checking"):
        return client.check_strategy(stored, prepared.body)


def _ingest(client: Client, symbol: str, timeframe: str) -> None:
    wanted = Prepared(DataRequest(symbols=(symbol,), timeframes=(timeframe,)))
    started = start(wanted, lambda server, body: server.submit(SLICES["data"].route, body), client)
    result = finish(client, started, "data ingest")
    if result.get("failed"):
        raise RunFailed(f"{symbol} did not come in: gpt-trader workflow show {started.run_id}")


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Conflict(f"{path} exists already: choose another name or folder") from None
    except OSError as error:
        raise NotFound(f"{path} cannot be written: {error.strerror}") from None


def _as_argument(path: Path) -> str:
    """Return the path as the shell takes it, and as a path: not `mine.py` but `./mine.py`."""
    import shlex

    text = str(path)
    return shlex.quote(text if path.is_absolute() or path.parts[0] in (".", "..") else f"./{text}")


def _next_steps(written: Mapping[str, Any]) -> list[str]:
    steps: Mapping[str, str] = written["next"]
    hint = "" if find_spec("pytest") else "   (needs pytest: pip install pytest)"
    return [
        f"wrote {written['file']} (class {written['strategy']}) and {written['test_file']}",
        "",
        "next:",
        f"  {steps['check']}",
        f"  {steps['backtest']}",
        f"  {steps['watch']}",
        f"  {steps['test']}{hint}",
    ]
