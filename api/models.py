"""What the routes answer with: lists, accepted work, runs, workflows."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field

Item = TypeVar("Item")

StateName = Literal[
    "SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED"
]


class Listing(BaseModel, Generic[Item]):
    """Some items, and where the next page begins (null: this was the last)."""

    items: list[Item]
    next_cursor: str | None = None


class RunLinks(BaseModel):
    """Where a run's parts are."""

    self: str
    events: str
    result: str
    report: str
    logs: str
    cancel: str
    prefect: str = Field(description="The run's page in the Prefect UI.")


class RunAccepted(BaseModel):
    """The work is under way: follow `links.events`, then read `links.result`."""

    run_id: UUID
    flow: str
    state: StateName
    links: RunLinks
    session_id: UUID | None = Field(default=None, description="The session that the run trades, if it does.")


class RunItem(BaseModel):
    """One run in a list: what was asked, and where it stands."""

    run_id: UUID
    name: str
    flow: str
    state: StateName
    state_name: str | None = None
    message: str | None = None
    owner: str
    tags: list[str]
    request: dict[str, Any]
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    duration_seconds: float = Field(description="Seconds spent running.")
    links: RunLinks


class RunView(RunItem):
    """One run, with what came out of it once it is finished."""

    result_hash: str | None = None
    snapshot_id: str | None = None
    artifacts: list[str] = []


class LogEntry(BaseModel):
    """One line that a run logged."""

    at: datetime
    level: str
    message: str


class ScheduleView(BaseModel):
    """One schedule of a workflow, as Prefect describes it."""

    active: bool
    schedule: dict[str, Any]


class Workflow(BaseModel):
    """One kind of work that can be started."""

    name: str
    summary: str
    route: str
    command: str
    deployment: str
    deployed: bool
    paused: bool
    schedules: list[ScheduleView]
    request_schema: dict[str, Any] = Field(description="JSON schema of the body that starts a run.")
