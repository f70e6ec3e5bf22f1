"""Runs: list, read, follow, cancel, reproduce, and what they leave behind."""

from __future__ import annotations

import logging
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import AwareDatetime, StringConstraints
from starlette.responses import FileResponse

from api import runs
from api.dependencies import IdempotencyKey, Known, Parts, Reader, ReportReader, StreamReader
from api.errors import declared
from api.launcher import RunFilter
from api.models import Listing, LogEntry, RunAccepted, RunItem, RunView, StateName
from api.reproduction import ReproductionView
from api.routes.workflows import workflow_named
from api.series import MEDIA_TYPES, series_response
from api.streams import sse
from api.streams.identity import credential_of, end_of, ticket_of
from api.streams.run_events import frames, resume

router = APIRouter(prefix=runs.ROOT, tags=["runs"])

PAGE_LIMIT = 150

#: PostgreSQL has no NUL in text: Prefect's server would end in a 503.
Tag = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{1,200}$")]

#: A report is a page of its own with its scripts inside; it may show, but talk to nobody.
_REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'none'"
)


@router.get("", summary="List runs, newest first", responses=declared(401, 403, 404, 422, 500, 503))
async def list_runs(
    context: Parts,
    caller: Reader,
    *,
    name: Annotated[str | None, Query(description="Only this workflow's.")] = None,
    state: Annotated[list[StateName] | None, Query(description="Only in one of these states.")] = None,
    tag: Annotated[list[Tag] | None, Query(description="Only with all of these tags.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Planned start at or after.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Planned start at or before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description=f"A page holds at most {PAGE_LIMIT}.")] = 50,
    cursor: Annotated[str | None, Query(max_length=4000, description="A page's next_cursor.")] = None,
) -> Listing[RunItem]:
    """Return one's own runs; with the scope `admin` everybody's."""
    workflow = workflow_named(name).name if name else None
    wanted = RunFilter(workflow, tuple(state or ()), tuple(tag or ()), since, until)
    page = await context.launcher.runs(wanted, caller, min(limit, PAGE_LIMIT), cursor)
    return Listing(items=[runs.item(context, run) for run in page.runs], next_cursor=page.next_cursor)


@router.get("/{run_id}", summary="Show a run", responses=declared(401, 403, 404, 422, 500, 503))
async def show_run(run_id: UUID, context: Parts, caller: Reader) -> RunView:
    """Return where it stands and, once it is finished, its result hash."""
    return await runs.view(context, run_id, caller)


@router.get(
    "/{run_id}/result", summary="What a run found", responses=declared(401, 403, 404, 409, 422, 500, 503)
)
async def show_result(run_id: UUID, context: Parts, caller: Reader) -> dict[str, Any]:
    """Return the result as the run saved it, where it stands and its files; 409 while there is none."""
    return await runs.result(context, run_id, caller)


@router.get(
    "/{run_id}/reproduction",
    summary="Did a run reproduce its original?",
    responses=declared(401, 403, 404, 409, 422, 500, 503),
)
async def show_reproduction(run_id: UUID, context: Parts, caller: Reader) -> ReproductionView:
    """Return whether the result hashes are equal, and what differs; 404 for a run that reproduces none."""
    return await runs.reproduction(context, run_id, caller)


@router.get(
    "/{run_id}/report",
    summary="A run's report, a self-contained HTML page",
    response_class=FileResponse,
    responses={200: {"content": {"text/html": {}}}, **declared(401, 403, 404, 409, 422, 500, 503)},
)
async def show_report(run_id: UUID, context: Parts, caller: ReportReader) -> FileResponse:
    """Return the page; it opens offline."""
    path = await runs.artifact(context, run_id, "report", caller)
    headers = {"Content-Security-Policy": _REPORT_POLICY, "Cache-Control": "private, max-age=3600"}
    return FileResponse(path, media_type="text/html", headers=headers)


@router.get(
    "/{run_id}/report.png",
    summary="A run's report as a picture",
    response_class=FileResponse,
    responses={200: {"content": {"image/png": {}}}, **declared(401, 403, 404, 409, 422, 500, 503)},
)
async def show_picture(run_id: UUID, context: Parts, caller: Reader) -> FileResponse:
    """Return the PNG."""
    path = await runs.artifact(context, run_id, "picture", caller)
    return FileResponse(path, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


@router.get(
    "/{run_id}/artifacts/{name}",
    summary="A run's series: equity and trades, or trials",
    response_class=Response,
    responses={
        200: {"content": {media_type: {} for media_type in MEDIA_TYPES}},
        **declared(401, 403, 404, 406, 409, 422, 500, 503),
    },
)
async def show_series(
    run_id: UUID,
    name: Literal["equity", "trades", "fills", "weights", "trials"],
    context: Parts,
    caller: Reader,
    accept: Annotated[str | None, Header()] = None,
) -> Response:
    """Return Parquet, or CSV where the `Accept` header prefers it."""
    path = await runs.artifact(context, run_id, name, caller)
    return await series_response(path, f"{name}-{run_id}", accept)


@router.get("/{run_id}/logs", summary="A run's log", responses=declared(401, 403, 404, 422, 500, 503))
async def show_logs(
    run_id: UUID,
    context: Parts,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=200)] = 200,
    cursor: Annotated[str | None, Query(pattern=r"^\d{1,9}$", description="A page's next_cursor.")] = None,
) -> Listing[LogEntry]:
    """Return its lines, oldest first."""
    await runs.must_see(context, run_id, caller)
    offset = int(cursor or 0)
    lines = await context.launcher.logs(run_id, limit, offset)
    entries = [
        LogEntry(at=line.timestamp, level=logging.getLevelName(line.level), message=line.message)
        for line in lines
    ]
    return Listing(items=entries, next_cursor=str(offset + limit) if len(lines) == limit else None)


@router.get(
    "/{run_id}/events",
    summary="Follow a run (server-sent events)",
    response_class=Response,
    responses={
        200: {
            "content": {sse.MEDIA_TYPE: {}},
            "description": "`state`, `progress`, `log`, `result`, `reset`",
        },
        204: {"description": "The client has seen everything there will ever be"},
        **declared(401, 403, 404, 422, 500, 503),
    },
)
async def follow_run(
    run_id: UUID,
    context: Parts,
    caller: StreamReader,
    request: Request,
    *,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
    after: Annotated[
        str | None,
        Query(
            max_length=64,
            description="As `Last-Event-ID`, for a browser that opens a new EventSource with a new ticket.",
        ),
    ] = None,
) -> Response:
    """Stream from the first event or from behind `Last-Event-ID`; ends after the final state or with the credential."""
    await runs.must_see(context, run_id, caller)
    start = await resume(context, run_id, last_event_id or after)
    if start.nothing_left:
        return Response(status_code=204)
    credential = None if ticket_of(request.scope) else credential_of(request.scope)
    ended = partial(end_of, context, caller, credential)
    return sse.EventStream(frames(context, run_id, start), context.closing, ended=ended)


@router.post(
    "/{run_id}/cancel",
    status_code=202,
    summary="Cancel a run",
    responses=declared(401, 403, 404, 409, 422, 500, 503),
)
async def cancel_run(run_id: UUID, context: Parts, caller: Known) -> RunAccepted:
    """Ask for its end: CANCELLING, and CANCELLED a little later; 409 for a run that has ended."""
    run = await context.launcher.cancel(run_id, caller)
    context.run_states.nudge(run_id)
    return runs.accepted(context, run)


@router.post(
    "/{run_id}/reproduce",
    status_code=202,
    summary="Run once more what a run did",
    responses=declared(401, 403, 404, 409, 422, 500, 503),
)
async def reproduce_run(
    run_id: UUID, context: Parts, caller: Known, response: Response, key: IdempotencyKey = None
) -> RunAccepted:
    """Start a new run with the recorded request on the recorded snapshot; its `/reproduction` compares the two."""
    accepted = await runs.reproduce(context, run_id, caller, key)
    response.headers["Location"] = accepted.links.self
    return accepted
