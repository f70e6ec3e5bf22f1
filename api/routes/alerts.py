"""Alerts: what somebody should know, until it is acknowledged."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from api.context import Context
from api.dependencies import Parts, Reader, Researcher
from api.errors import declared
from api.models import Listing
from api.principals import Principal
from gpt_trader.alerts import Alert, Severity
from storage.alerts import StoredAlert, no_alert

router = APIRouter(prefix="/api/v1/system/alerts", tags=["system"])


class AlertView(BaseModel):
    """One alert, raised `count` times from `first_at` to `last_at`."""

    id: int
    rule: str = Field(examples=["drawdown", "daily_loss", "session_dead", "stale_data", "by_hand"])
    severity: Severity
    message: str
    data: dict[str, Any]
    count: int
    first_at: datetime
    last_at: datetime
    sent_at: datetime | None = Field(description="When it was last sent to the channels, or tried.")
    sending_error: str | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None


class NewAlert(BaseModel):
    """An alert by hand: for programs beside this one, and to try the channels."""

    model_config = ConfigDict(extra="forbid")

    message: str = Field(min_length=1, max_length=1000)
    severity: Severity = "warning"
    about: str = Field(
        default="", max_length=200, description="Alerts about the same thing are counted as one."
    )


AlertId = Annotated[int, Path(ge=1, le=2**63 - 1)]


@router.get("", summary="List alerts, newest first", responses=declared(401, 403, 422, 500))
async def list_alerts(
    context: Parts,
    caller: Reader,
    *,
    acknowledged: Annotated[bool, Query(description="Those that were acknowledged as well.")] = False,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(pattern=r"^\d{1,18}$", description="A page's next_cursor.")] = None,
) -> Listing[AlertView]:
    """Return the caller's alerts; this machine's own user and administrators see everybody's."""
    found = await asyncio.to_thread(
        context.alerts.list,
        _owner(caller),
        open_only=not acknowledged,
        limit=limit + 1,
        before=int(cursor) if cursor else None,
    )
    page = found[:limit]
    return Listing(
        items=[_view(alert) for alert in page],
        next_cursor=str(page[-1].id) if len(found) > limit else None,
    )


@router.post(
    "", status_code=201, summary="Raise an alert by hand", responses=declared(400, 401, 403, 413, 422, 500)
)
async def raise_alert(context: Parts, caller: Researcher, wanted: NewAlert) -> AlertView:
    """Keep an alert and have it sent; one like it that is open is counted instead."""
    alert = Alert(
        "by_hand", wanted.severity, caller.id, wanted.about or wanted.message[:200], wanted.message, {}
    )
    repeat = context.settings.alerts.repeat_seconds
    alert_id = await asyncio.to_thread(context.alerts.put, alert, repeat)
    return _view(await asyncio.to_thread(context.alerts.get, alert_id))


@router.delete("/{alert_id}", summary="Acknowledge an alert", responses=declared(401, 403, 404, 422, 500))
async def acknowledge_alert(context: Parts, caller: Researcher, alert_id: AlertId) -> AlertView:
    """Close an alert: it is sent no more, and the next one like it is new. It stays in the list of all."""
    await _seen(context, caller, alert_id)
    await asyncio.to_thread(context.alerts.acknowledge, alert_id, caller.id)
    return _view(await asyncio.to_thread(context.alerts.get, alert_id))


async def _seen(context: Context, caller: Principal, alert_id: int) -> StoredAlert:
    found = await asyncio.to_thread(context.alerts.get, alert_id)
    if not caller.may_see(found.owner):
        raise no_alert(alert_id)
    return found


def _owner(caller: Principal) -> str | None:
    """Return whose alerts the caller sees; None: everybody's."""
    return None if caller.owns_everything else caller.id


def _view(alert: StoredAlert) -> AlertView:
    return AlertView.model_validate(alert, from_attributes=True)
