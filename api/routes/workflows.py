"""What kinds of work there are, and starting a run of any of them by its general name."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter, Response

from api.context import Context
from api.dependencies import IdempotencyKey, Known, Parts, Reader
from api.errors import declared, missing
from api.models import Listing, RunAccepted, ScheduleView, Workflow
from api.prefect_server import Deployment
from api.routes.slices import REFUSALS, RequestBody, body_of
from api.runs import submit
from gpt_trader.errors import UnknownName
from gpt_trader.requests import Request
from gpt_trader.slices import SLICES, Slice

router = APIRouter(prefix="/api/v1/workflows", tags=["workflows"])


@router.get("", summary="List the workflows", responses=declared(401, 403, 500, 503))
async def list_workflows(context: Parts, _: Reader) -> Listing[Workflow]:
    """Return every slice with its request's JSON schema and its deployment in Prefect."""
    return Listing(items=await _workflows(context))


@router.get("/{name}", summary="Show one workflow", responses=declared(401, 403, 404, 422, 500, 503))
async def show_workflow(name: str, context: Parts, _: Reader) -> Workflow:
    """Return one slice, named in snake_case or kebab-case."""
    row = workflow_named(name)
    return _workflow(row, (await context.launcher.deployments()).get(row.name))


@router.post(
    "/{name}/runs",
    status_code=202,
    summary="Start a run of a workflow",
    responses=REFUSALS,
    openapi_extra=body_of(*SLICES.values()),
)
async def start_run(
    name: str,
    body: RequestBody,
    context: Parts,
    caller: Known,
    response: Response,
    *,
    key: IdempotencyKey = None,
) -> RunAccepted:
    """Answer 202 with the run; the body is the workflow's request; `Location` is the run itself."""
    accepted = await submit(context, workflow_named(name), body, caller, key)
    response.headers["Location"] = accepted.links.self
    return accepted


def workflow_named(name: str) -> Slice:
    """Return the slice; raise NotFound that lists them."""
    row = SLICES.get(name.replace("-", "_"))
    if row is None:
        raise missing(UnknownName.among("workflow", name, list(SLICES)))
    return row


async def _workflows(context: Context) -> list[Workflow]:
    deployments = await context.launcher.deployments()
    return [_workflow(row, deployments.get(row.name)) for row in SLICES.values()]


def _workflow(row: Slice, deployment: Deployment | None) -> Workflow:
    schedules = deployment.schedules if deployment else []
    return Workflow(
        name=row.name,
        summary=row.summary,
        route=row.route,
        command=row.command,
        deployment=row.deployment,
        deployed=deployment is not None,
        paused=deployment.paused if deployment else False,
        schedules=[ScheduleView(active=each.active, schedule=each.schedule) for each in schedules],
        request_schema=_schema_of(row.request_type()),
    )


@cache
def _schema_of(request: type[Request]) -> dict[str, Any]:
    """Return a request's JSON schema; made once, as it takes up to 6 ms, in which no stream gets anything."""
    return request.model_json_schema()
