"""What `workflow retry`, `approve`, `reject` and the schedule commands do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cli.client.api import Json
from cli.client.connect import connect
from cli.runs.live import follow_live
from cli.runs.prepare import prepare_flat
from cli.runs.submit import finish
from cli.terminal.options import say
from cli.terminal.render import emit, listing
from cli.terminal.result import show_result
from gpt_trader.errors import Problem, Refused, UnknownName
from gpt_trader.slices import SLICES, Slice

_COLUMNS: Final = {
    "workflow": "workflow",
    "slug": "schedule",
    "when": "when",
    "timezone": "zone",
    "active": "on",
    "request": "request",
}


def retry_run(run_id: str, *, follow: bool) -> None:
    """Start a new run with the request of one that did not complete; with `follow`, wait for its result."""
    with connect() as client:
        started = client.retry(run_id)
        if not follow:
            emit(started.as_dict(), table=lambda: [f"run {started.run_id} tries again what {run_id} did"])
            return
        result = finish(client, started, started.flow, follow_live)
        show_result(result, links=client.absolute(started.links))


def approve_run(run_id: str, given: Mapping[str, Any] | None) -> None:
    """Let a run that waits go on, with the fields that it asked for."""
    with connect() as client:
        _say_state(client.approve(run_id, given))


def reject_run(run_id: str) -> None:
    """End a run that waits."""
    with connect() as client:
        _say_state(client.reject(run_id))


def _say_state(run: Json) -> None:
    emit(run, table=lambda: [f"run {run['run_id']}: {run['state']}"])


def schedule_workflow(
    name: str, *, cron: str | None, timezone: str, given: Mapping[str, str], slug: str, active: bool
) -> None:
    """Make a schedule of a workflow, or replace the one of its slug; the request is checked as for a run."""
    if cron is None:
        raise Refused.of(Problem("cron", None, 'is missing: give --cron, e.g. --cron "30 17 * * 1-5"'))
    row = _row(name)
    request = prepare_flat(row.request_type(), given).request.model_dump(mode="json", exclude_unset=True)
    wanted = {"cron": cron, "timezone": timezone, "request": request, "slug": slug, "active": active}
    with connect() as client:
        _list([client.put_schedule(row.name, wanted)])


def show_schedules() -> None:
    """List all schedules."""
    with connect() as client:
        _list(client.schedules())


def switch_schedules(name: str, slug: str | None, *, active: bool) -> None:
    """Switch one schedule of a workflow, or all, on or off."""
    with connect() as client:
        _list(client.switch_schedules(_row(name).name, slug, active=active))


def remove_schedule(name: str, slug: str) -> None:
    """Remove a schedule."""
    with connect() as client:
        client.remove_schedule(_row(name).name, slug)
    say(f"schedule {slug} of {name} is removed")


def _list(items: list[Json]) -> None:
    rows = [{**item, "when": _when(item)} for item in items]
    listing(rows, _COLUMNS, empty="no schedules", value=items)


def _when(item: Mapping[str, Any]) -> str:
    every = item["interval_seconds"]
    return str(item["cron"] or item["rrule"] or f"every {every:g} s")


def _row(name: str) -> Slice:
    row = SLICES.get(name.replace("-", "_"))
    if row is None:
        raise UnknownName.among("workflow", name, list(SLICES))
    return row
