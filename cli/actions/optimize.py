"""The optimize command's way: check here, send, follow, show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from cli.client.connect import connect
from cli.runs.prepare import Prepared, prepare
from cli.runs.submit import finish, start
from cli.terminal.result import show_result
from gpt_trader.errors import Problem, Refused
from gpt_trader.requests import OptimizeRequest
from gpt_trader.slices import SLICES
from gpt_trader.validation import validated

if TYPE_CHECKING:
    from cli.client.api import Client

#: Field of a request → its option, where that has another name.
_OPTIONS: Final = {"params": "param", "snapshot": "as-of", "report": "no-report"}


def run_optimization(values: Mapping[str, Any], walk: Mapping[str, Any], *, walk_forward: bool) -> None:
    """Run an optimization of `values` (fields of the request; None: not given) and show what it found."""
    if values.get("symbol") is None:
        raise Refused.of(Problem("symbol", None, "is missing: give --symbol, e.g. --symbol AAPL"))
    how = {name: value for name, value in walk.items() if value is not None}
    if how and not walk_forward:
        option = next(iter(how))
        raise Refused.of(Problem(option, how[option], "is for walking forward: add --walk-forward"))
    prepared = prepare(OptimizeRequest, {**values, "walk_forward": how if walk_forward else None})
    with connect() as client:
        _run(client, prepared)


def resume_optimization(run_id: str, values: Mapping[str, Any]) -> None:
    """Start the request of an earlier run again, on the bars that it read, also where others came in meanwhile.

    The trials that it finished are kept, and not done anew.
    """
    given = [name for name, value in values.items() if value is not None]
    if given:
        option = _OPTIONS.get(given[0], given[0].replace("_", "-"))
        raise Refused.of(Problem(option, values[given[0]], "stands in the run that is resumed: leave it out"))
    with connect() as client:
        run = client.run(run_id)
        if run.get("flow") != "optimize":
            message = f"is a run of {run.get('flow')}"
            raise Refused.of(Problem("resume", run_id, message, allowed="the id of an optimize run"))
        read = {"snapshot": run["snapshot_id"]} if run.get("snapshot_id") else {}
        _run(client, Prepared(validated(OptimizeRequest, {**run["request"], **read})))


def _run(client: Client, prepared: Prepared) -> None:
    started = start(prepared, lambda server, body: server.submit(SLICES["optimize"].route, body), client)
    result = finish(client, started, "optimize")
    show_result(result, links=client.absolute(started.links))
