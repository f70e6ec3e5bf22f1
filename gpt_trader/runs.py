"""What every part calls a run's things: its states, its tags in Prefect, its channel in the event log."""

from __future__ import annotations

from typing import Final
from uuid import UUID

#: States after which nothing follows.
FINAL_STATES: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})

#: Owner of runs that no principal asked for: cron, and the Prefect UI.
SYSTEM: Final = "system"

OWNER_TAG: Final = "owner:"
SLICE_TAG: Final = "slice:"


def channel_of(run_id: UUID | str) -> str:
    """Return the event log's channel of a run."""
    return f"runs.{run_id}"


def owner_of(tags: list[str]) -> str:
    """Return the owner that a run's tags name, `system` where none is named."""
    return next((tag.removeprefix(OWNER_TAG) for tag in tags if tag.startswith(OWNER_TAG)), SYSTEM)
