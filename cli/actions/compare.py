"""What `strategy compare` does: runs side by side, those of strategies that are named being made first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.actions.files import write_whole
from cli.client.connect import connect
from cli.runs.prepare import Prepared, prepare
from cli.runs.submit import finish, start
from cli.terminal.compared import compared, run_rows
from cli.terminal.options import say
from cli.terminal.render import emit, short_strategy
from gpt_trader.errors import Problem, Refused
from gpt_trader.requests import BacktestRequest
from gpt_trader.slices import SLICES

if TYPE_CHECKING:
    from cli.client.api import Client

_RUN_ID: Final = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
FEWEST: Final = 2
MOST: Final = 20
#: Field of a request → its option, where that has another name.
_OPTIONS: Final = {"snapshot": "as-of", "report": "no-report"}


def compare(words: Sequence[str], values: Mapping[str, Any], *, sort: str | None, report: str | None) -> None:
    """Compare runs, given by id, and strategies, given by name; write the page where a file is named.

    Each strategy is backtested first with `values` (fields of the request; None: not given), all on one snapshot. Every
    request is checked before the first is sent.
    """
    if not FEWEST <= len(words) <= MOST:
        message = "is one run" if len(words) == 1 else f"are {len(words)} runs"
        raise Refused.of(Problem("run", ", ".join(words), message, allowed=f"{FEWEST} to {MOST} runs"))
    prepared = {
        word: prepare(BacktestRequest, {**values, "strategy": word}) for word in _names(words, values)
    }
    with connect() as client:
        made = _backtested(client, prepared)
        run_ids = [made.get(word, word) for word in words]
        found = client.compare(run_ids, sort)
        page = client.comparison_page(run_ids, sort) if report else b""
    if report:
        say(f"report: {write_whole(Path(report), page)}")
    emit(found, table=lambda: compared(found), rows=lambda: run_rows(found))


def _names(words: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """Return the words that are strategies; raise Refused where their terms are missing, or given for nothing."""
    names = [word for word in words if not _RUN_ID.fullmatch(word)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Refused.of(Problem("run", twice, "is given twice"))
    if names and values.get("symbol") is None:
        message = f"{names[0]!r} is no run's id: a strategy is run first, on --symbol"
        raise Refused.of(Problem("symbol", None, message))
    given = [name for name, value in values.items() if value is not None]
    if given and not names:
        option = _OPTIONS.get(given[0], given[0].replace("_", "-"))
        message = "is for strategies by name: runs keep the terms that they had"
        raise Refused.of(Problem(option, values[given[0]], message))
    return names


def _backtested(client: Client, prepared: Mapping[str, Prepared]) -> dict[str, str]:
    """Run the backtests, one after the other, and return their ids; the first one's snapshot is everybody's."""
    made: dict[str, str] = {}
    pinned: dict[str, Any] = {}
    for name, each in prepared.items():
        asked = replace(each, request=each.request.model_copy(update=pinned))
        started = start(asked, lambda server, body: server.submit(SLICES["backtest"].route, body), client)
        result = finish(client, started, short_strategy(name))
        made[name] = started.run_id
        pinned = {"snapshot": result["snapshot_id"]} if result.get("snapshot_id") else {}
    return made
