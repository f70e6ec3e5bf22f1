"""When workflows run by themselves."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from api import schedules
from api.dependencies import Administrator, Parts, Reader
from api.errors import declared
from api.models import Listing
from api.principals import Principal
from api.routes.slices import RequestBody
from api.routes.workflows import workflow_named
from api.schedules import DEFAULT_SLUG, ScheduleItem, ScheduleRequest
from gpt_trader.slices import Slice
from gpt_trader.validation import validated

router = APIRouter(prefix="/api/v1/workflows", tags=["workflows"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ScheduleRequest.model_json_schema()}},
    }
}

Slug = Annotated[str | None, Query(max_length=63, description="One of the schedules; default: all of them.")]


@router.get(
    "/schedules", summary="List the schedules of all workflows", responses=declared(401, 403, 500, 503)
)
async def list_schedules(context: Parts, _: Reader) -> Listing[ScheduleItem]:
    """Return every schedule, those that were made in the Prefect UI too."""
    return Listing(items=await schedules.listed(context))


@router.put(
    "/{name}/schedule",
    summary="Schedule a workflow",
    responses=declared(400, 401, 403, 404, 409, 413, 422, 500, 503),
    openapi_extra=_BODY,
)
async def put_schedule(name: str, body: RequestBody, context: Parts, caller: Administrator) -> ScheduleItem:
    """Make a schedule, or replace the one of the same slug; its runs belong to `system`."""
    return await schedules.put(context, _scheduled(name, caller), validated(ScheduleRequest, body), caller)


@router.post(
    "/{name}/schedule/pause",
    summary="Switch a workflow's schedules off",
    responses=declared(401, 403, 404, 422, 500, 503),
)
async def pause_schedule(
    name: str, context: Parts, caller: Administrator, slug: Slug = None
) -> Listing[ScheduleItem]:
    """Nothing is started by them until they are resumed; what runs goes on."""
    return Listing(items=await schedules.switch(context, _scheduled(name, caller), slug, active=False))


@router.post(
    "/{name}/schedule/resume",
    summary="Switch a workflow's schedules on",
    responses=declared(401, 403, 404, 422, 500, 503),
)
async def resume_schedule(
    name: str, context: Parts, caller: Administrator, slug: Slug = None
) -> Listing[ScheduleItem]:
    """They start runs from their next time on; times that were missed are not made up for."""
    return Listing(items=await schedules.switch(context, _scheduled(name, caller), slug, active=True))


@router.delete(
    "/{name}/schedule",
    status_code=204,
    summary="Remove a schedule",
    responses=declared(401, 403, 404, 422, 500, 503),
)
async def delete_schedule(
    name: str,
    context: Parts,
    caller: Administrator,
    slug: Annotated[str, Query(max_length=63, description="Which of the schedules.")] = DEFAULT_SLUG,
) -> None:
    """Remove it, and what it has scheduled and not begun."""
    await schedules.remove(context, _scheduled(name, caller), slug)


def _scheduled(name: str, caller: Principal) -> Slice:
    """Return the slice; raise NotFound for none, Denied where the caller may not start it either."""
    row = workflow_named(name)
    caller.must(row.scope)
    return row
