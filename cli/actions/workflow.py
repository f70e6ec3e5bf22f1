"""What the `workflow` commands do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from cli.client.api import Client, Json
from cli.client.connect import connect, is_remote
from cli.runs.follow import cancel_and_wait, demand_completed
from cli.runs.live import follow_live
from cli.runs.parameters import literal
from cli.runs.prepare import prepare_flat
from cli.runs.submit import finish, start
from cli.terminal.options import current, say
from cli.terminal.render import emit, grid, listing, pairs, shown, write
from cli.terminal.result import show_result
from cli.terminal.run_rows import run_row
from gpt_trader.errors import Conflict, NotFound, Problem, Refused, RunFailed, UnknownName
from gpt_trader.reproduction import reads_snapshot
from gpt_trader.runs import FINAL_STATES
from gpt_trader.slices import SLICES, Slice

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cli.client.sse import Event

_RUN_ID: Final = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


def show_workflows() -> None:
    """List the server's workflows."""
    with connect() as client:
        items = client.workflows()
    listing(items, {"name": "workflow", "summary": "what it does"}, empty="no workflows")


def show_run_or_workflow(name: str) -> None:
    """Show a run by its id, or a workflow by its name."""
    with connect() as client:
        if _RUN_ID.fullmatch(name):
            run = client.run(name)
            emit(run, table=lambda: [pairs(_run_facts(run) | client.absolute(run.get("links") or {}))])
            return
        workflow = _workflow(client, name)
    fields = _fields(workflow)
    emit(workflow, table=lambda: _workflow_view(workflow, fields), rows=lambda: fields)


def run_workflow(name: str, given: Mapping[str, str], *, as_of: str | None, follow: bool) -> None:
    """Start a run of a workflow from flat parameters; with `follow`, wait for its result.

    `as_of` is the request's field `snapshot`; Refused where the workflow reads none.
    """
    row = SLICES.get(name.replace("-", "_"))
    if row is None and not is_remote():
        raise UnknownName.among("workflow", name, list(SLICES))
    version = {} if as_of is None else _version(row, given, as_of)
    prepared = prepare_flat(row.request_type(), {**given, **version}) if row else None
    with connect() as client:
        if prepared:
            started = start(prepared, lambda server, body: server.start_workflow(name, body), client)
        else:  # a remote server may know more workflows than we do: it checks what we cannot
            body = {field: literal(value) for field, value in given.items()} | version
            started = client.start_workflow(name, body)
        result = finish(client, started, name, follow_live) if follow else None
    if result is not None:
        show_result(result, links=client.absolute(started.links))
        return
    facts = started.as_dict()
    plain = {field: value for field, value in facts.items() if field != "links"}
    emit(facts, table=lambda: [pairs(plain | client.absolute(started.links))])


def show_runs(*, name: str | None, state: str | None, tag: str | None, limit: int) -> None:
    """List runs, newest first."""
    with connect() as client:
        items = client.runs(name=name, state=state.upper() if state else None, tag=tag, limit=limit)
    columns = {"run_id": "run", "flow": "workflow", "about": "about", "state": "state", "created": "created"}
    emit(
        items,
        rows=lambda: items,
        table=lambda: [grid(map(run_row, items), columns) if items else "no runs yet"],
    )


def show_logs(run_id: str, *, follow: bool) -> None:
    """Write a run's log, or with `follow` its lines as they come until it has ended."""
    with connect() as client:
        if follow:
            _follow_logs(client, run_id)
            return
        lines = client.logs(run_id)
    emit(lines, table=lambda: [_log_line(line) for line in lines] or ["the run has logged nothing"])


def _follow_logs(client: Client, run_id: str) -> None:
    machine = current().machine

    def show(event: Event) -> None:
        # A stream has no end to close a list with: with any machine format it is one JSON object a line.
        if event.type == "log":
            write((json.dumps(event.data, ensure_ascii=False) if machine else _log_line(event.data)) + "\n")

    final = follow_live(client, run_id, show)
    say(f"run {run_id} ended {final.get('state')}")


def cancel_run(run_id: str, *, wait: bool) -> None:
    """Cancel a run; with `wait`, until it has stopped.

    Raises:
        Conflict: it had ended already.
        RunFailed: it has not stopped in time, or ended otherwise meanwhile.
    """
    with connect() as client:
        state = cancel_and_wait(client, run_id) if wait else str(client.cancel(run_id).get("state"))
    emit({"run_id": run_id, "state": state}, table=lambda: [f"run {run_id}: {state}"])
    if wait and state != "CANCELLED":
        raise RunFailed(f"run {run_id} was not cancelled: it is {state}")


def show_run_result(run_id: str) -> None:
    """Write what a run found; raise RunFailed where it ended without a result, Conflict where it still goes on."""
    with connect() as client:
        run = client.run(run_id)
        state = str(run.get("state", ""))
        if state not in FINAL_STATES:
            hint = f"gpt-trader workflow logs {run_id} --follow"
            raise Conflict(f"run {run_id} is {state}: it has no result yet; {hint}")
        demand_completed(run_id, run)
        result = client.result(run_id)
    show_result(result, links=client.absolute(run.get("links") or {}))


def reproduce_run(run_id: str) -> None:
    """Run a run's request again on its snapshot and show what differs; raise RunFailed where the result does."""
    with connect() as client:
        started = client.reproduce(run_id)
        finish(client, started, "reproduce")
        found = client.reproduction(started.run_id)
    differences: list[Json] = found["differences"]
    emit(found, table=lambda: _reproduction(found), rows=lambda: differences)
    if not found["equal"]:
        raise RunFailed(f"run {started.run_id} has another result than run {run_id}, which it reproduces")


def _reproduction(found: Mapping[str, Any]) -> Iterable[RenderableType]:
    verdict = "the same result as" if found["equal"] else "another result than"
    yield f"run {found['run_id']} has {verdict} run {found['original_run_id']}"
    yield pairs({"snapshot": found["snapshot_id"], "result": found["result_hash"]})
    yield ""
    if found["differences"]:
        columns = {"what": "what differs", "original": "original", "now": "now"}
        yield grid(map(_exact, found["differences"]), columns)
    else:
        yield "nothing differs: code, libraries, platform and data are the same as well"


def _exact(difference: Mapping[str, Any]) -> Json:
    """Return a difference with numbers in full: it may be in the last digit."""
    return {name: repr(value) if isinstance(value, float) else value for name, value in difference.items()}


def _version(row: Slice | None, given: Mapping[str, str], as_of: str) -> dict[str, str]:
    """Return the field that pins a run of the workflow (None: one that only the server knows) to a snapshot."""
    if row is not None and not reads_snapshot(row):
        readers = ", ".join(name for name, each in SLICES.items() if reads_snapshot(each))
        raise Refused.of(
            Problem(
                "snapshot", as_of, f"{row.name} reads no snapshot: it changes the newest", allowed=readers
            )
        )
    if "snapshot" in given:
        raise Refused.of(
            Problem("snapshot", as_of, "is given twice: leave --as-of or --param snapshot=… out")
        )
    return {"snapshot": as_of}


def _workflow(client: Client, name: str) -> Json:
    try:
        return client.workflow(name)
    except NotFound:
        known = [str(item.get("name")) for item in client.workflows()]
        raise UnknownName.among("workflow", name, known, hint="a run is named by its whole id") from None


def _workflow_view(workflow: Mapping[str, Any], fields: list[Json]) -> Iterable[RenderableType]:
    yield f"{workflow.get('name')}: {workflow.get('summary') or ''}"
    yield ""
    yield grid(fields, {"field": "field", "type": "type", "default": "default", "description": "meaning"})


def _fields(workflow: Mapping[str, Any]) -> list[Json]:
    """Return the fields of a workflow's JSON schema as rows."""
    schema: Mapping[str, Any] = workflow.get("request_schema") or {}
    required = schema.get("required", [])
    return [
        {
            "field": name,
            "type": _type(facts),
            "default": "required" if name in required else shown(facts.get("default")),
            "description": facts.get("description", ""),
        }
        for name, facts in schema.get("properties", {}).items()
        if name != "schema_version"
    ]


def _type(facts: Mapping[str, Any]) -> str:
    if "enum" in facts:
        return "|".join(map(str, facts["enum"]))
    options = [_type(part) for part in facts.get("anyOf", []) if part.get("type") != "null"]
    return "|".join(options) or str(facts.get("format") or facts.get("type") or "")


def _run_facts(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's facts for a table; of its request, what was given."""
    given = {name: value for name, value in (run.get("request") or {}).items() if value not in (None, {}, [])}
    facts = {**run, "request": given}
    return {
        name.replace("_", " "): value
        for name, value in facts.items()
        if name != "links" and value not in (None, {}, [])
    }


def _log_line(line: Mapping[str, Any]) -> str:
    words = (line.get("at") or line.get("time"), line.get("level"), line.get("message"))
    return "  ".join(str(word) for word in words if word is not None)
