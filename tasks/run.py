"""The run that this process is: its id, owner and record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prefect import runtime

from gpt_trader.requests import Request
from tasks.stores import stores

#: Owner of runs that no principal asked for: cron, and the Prefect UI.
SYSTEM: Final = "system"

OWNER_TAG: Final = "owner:"


@dataclass(frozen=True)
class Run:
    """One flow run; its id is the run id on every face."""

    id: UUID
    slice: str
    owner: str


def begin_run(slice_name: str, request: Request) -> Run:
    """Return the current flow run, recorded with its request (the API has recorded those that it started)."""
    run = Run(UUID(str(runtime.flow_run.id)), slice_name, _owner(list(runtime.flow_run.tags)))
    stores().runs.register(run.id, run.slice, run.owner, request.model_dump(mode="json"))
    return run


def _owner(tags: list[str]) -> str:
    return next((tag.removeprefix(OWNER_TAG) for tag in tags if tag.startswith(OWNER_TAG)), SYSTEM)
