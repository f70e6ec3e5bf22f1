"""What may be done with a run that has stopped: try it again, let it go on, or end it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api import runs
from api.dependencies import IdempotencyKey, Known, Parts, Trader
from api.errors import declared
from api.models import RunAccepted

router = APIRouter(prefix=runs.ROOT, tags=["runs"])


class Approval(BaseModel):
    """What a run asked for before it goes on."""

    model_config = ConfigDict(extra="forbid")

    input: dict[str, Any] | None = Field(default=None, description="The fields that the run waits for.")


@router.post(
    "/{run_id}/retry",
    status_code=202,
    summary="Try once more what a run did not complete",
    responses=declared(400, 401, 403, 404, 409, 413, 422, 500, 503),
)
async def retry_run(
    run_id: UUID, context: Parts, caller: Known, response: Response, key: IdempotencyKey = None
) -> RunAccepted:
    """Start a new run with the request of one that failed, crashed or was cancelled."""
    accepted = await runs.retry(context, run_id, caller, key)
    response.headers["Location"] = accepted.links.self
    return accepted


@router.post(
    "/{run_id}/approve",
    status_code=202,
    summary="Let a run that waits go on",
    responses=declared(400, 401, 403, 404, 409, 413, 422, 500, 503),
)
async def approve_run(
    run_id: UUID, context: Parts, caller: Trader, approval: Approval | None = None
) -> RunAccepted:
    """Resume a paused run, with the input that it asked for; 409 for one that does not wait."""
    run = await context.launcher.approve(run_id, caller, approval.input if approval else None)
    context.run_states.nudge(run_id)
    return runs.accepted(context, run)


@router.post(
    "/{run_id}/reject",
    status_code=202,
    summary="End a run that waits",
    responses=declared(401, 403, 404, 409, 422, 500, 503),
)
async def reject_run(run_id: UUID, context: Parts, caller: Trader) -> RunAccepted:
    """Cancel a paused run, saying who rejected it; 409 for one that does not wait."""
    run = await context.launcher.reject(run_id, caller)
    context.run_states.nudge(run_id)
    return runs.accepted(context, run)
