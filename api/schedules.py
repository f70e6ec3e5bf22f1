"""Schedules of the workflows, kept by Prefect: what is made here shows in its UI, and the reverse.

A scheduled run belongs to `system`, whoever made the schedule: it goes on when that user is gone.
"""

from __future__ import annotations

import asyncio
import re
from difflib import get_close_matches
from typing import Any, Final
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from api.admission import admitted
from api.context import Context
from api.prefect_server import Deployment, Schedule
from api.principals import Principal
from gpt_trader.errors import Conflict, EngineUnreachable, NotFound, Problem, Refused, UnknownName
from gpt_trader.slices import SLICES, Slice

#: The slug of the schedule that is meant where none is named.
DEFAULT_SLUG: Final = "default"

_FIELDS: Final = 5


class ScheduleRequest(BaseModel):
    """When a workflow shall run, and with which request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cron: str = Field(
        max_length=100,
        description="Minute, hour, day of month, month, day of week.",
        examples=["30 17 * * 1-5"],
    )
    timezone: str = Field(
        default="UTC", description="Zone of the cron's times.", examples=["America/New_York"]
    )
    request: dict[str, Any] = Field(
        default_factory=dict, description="The workflow's request, as to start a run of it."
    )
    active: bool = Field(default=True, description="Switched on at once.")
    slug: str = Field(
        default=DEFAULT_SLUG,
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
        description="Which of the workflow's schedules: one of this name is replaced.",
    )

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        if not re.fullmatch(r"[0-9A-Za-z*/,#?\- ]+", value) or len(value.split()) != _FIELDS:
            raise ValueError("is no cron expression: give five fields, e.g. 30 17 * * 1-5")
        return value

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in available_timezones():
            raise PydanticCustomError(
                "unknown_name",
                "is not a known time zone",
                {"allowed": "an IANA name, e.g. UTC, America/New_York", "nearest": _nearest(value)},
            )
        return value


class ScheduleItem(BaseModel):
    """One schedule of a workflow; those of the Prefect UI may have an interval or an rrule instead of a cron."""

    workflow: str
    slug: str | None
    active: bool
    cron: str | None = None
    interval_seconds: float | None = None
    rrule: str | None = None
    timezone: str | None = None
    request: dict[str, Any]


async def listed(context: Context) -> list[ScheduleItem]:
    """Return every schedule of every workflow, in the order of the workflows."""
    found = await context.launcher.deployments()
    return [_item(name, each) for name in SLICES if name in found for each in found[name].schedules]


async def put(context: Context, row: Slice, wanted: ScheduleRequest, caller: Principal) -> ScheduleItem:
    """Make a schedule, or replace the one of its slug; return it as it stands.

    Raises:
        Refused: the cron or the request is wrong.
        EngineUnreachable: Prefect does not answer, or the workflow is not deployed.
    """
    request = await asyncio.to_thread(
        admitted,
        row,
        wanted.request,
        caller,
        lake=context.lake,
        home=context.home,
        settings=context.settings,
    )
    deployment = await _deployment(context, row)
    body = {
        "schedule": {"cron": wanted.cron, "timezone": wanted.timezone},
        "active": wanted.active,
        "parameters": {"request": request.model_dump(mode="json", exclude_unset=True)},
        "slug": wanted.slug,
    }
    earlier = next((each for each in deployment.schedules if each.slug == wanted.slug), None)
    try:
        if earlier is None:
            await context.prefect.create_schedule(deployment.id, body)
        else:
            await context.prefect.update_schedule(deployment.id, earlier.id, body)
    except Conflict as refusal:
        raise Refused.of(Problem("cron", wanted.cron, refusal.detail, allowed="e.g. 30 17 * * 1-5")) from None
    now = await _deployment(context, row)
    return next(_item(row.name, each) for each in now.schedules if each.slug == wanted.slug)


async def switch(context: Context, row: Slice, slug: str | None, *, active: bool) -> list[ScheduleItem]:
    """Switch one schedule of a workflow, or all of them, on or off; return those as they stand."""
    deployment = await _deployment(context, row)
    for each in _named(deployment, row, slug):
        # Prefect empties the parameters of a schedule that is changed without them.
        changed = {"active": active, "parameters": each.parameters}
        await context.prefect.update_schedule(deployment.id, each.id, changed)
    return [_item(row.name, each) for each in _named(await _deployment(context, row), row, slug)]


async def remove(context: Context, row: Slice, slug: str) -> None:
    """Remove a schedule; what it has scheduled already and not begun goes with it."""
    deployment = await _deployment(context, row)
    for each in _named(deployment, row, slug):
        await context.prefect.delete_schedule(deployment.id, each.id)


async def _deployment(context: Context, row: Slice) -> Deployment:
    found = (await context.launcher.deployments()).get(row.name)
    if found is None:
        raise EngineUnreachable(f"workflow {row.name} is not deployed: `gpt-trader up` deploys it")
    return found


def _named(deployment: Deployment, row: Slice, slug: str | None) -> list[Schedule]:
    """Return the schedule of this slug, or all; raise NotFound where there is none."""
    found = [each for each in deployment.schedules if slug in (None, each.slug)]
    if not found:
        slugs = [each.slug for each in deployment.schedules if each.slug]
        if slug is None:
            raise NotFound(
                f"workflow {row.name} has no schedule: PUT /api/v1/workflows/{row.name}/schedule makes one"
            )
        unknown = UnknownName.among("slug", slug, slugs)
        raise NotFound(unknown.detail, problems=unknown.problems)
    return found


def _item(workflow: str, kept: Schedule) -> ScheduleItem:
    when = kept.schedule
    request = kept.parameters.get("request")
    return ScheduleItem(
        workflow=workflow,
        slug=kept.slug,
        active=kept.active,
        cron=when.get("cron"),
        interval_seconds=when.get("interval"),
        rrule=when.get("rrule"),
        timezone=when.get("timezone"),
        request=request if isinstance(request, dict) else {},
    )


def _nearest(name: str) -> str | None:
    return next(iter(get_close_matches(name, sorted(available_timezones()), n=1, cutoff=0.5)), None)
