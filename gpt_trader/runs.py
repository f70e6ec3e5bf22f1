"""What every part calls a run's things: its states, its tags in Prefect, its channel in the event log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpt_trader.requests import Request

#: States after which nothing follows.
FINAL_STATES: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})

#: Owner of runs that no principal asked for: cron, and the Prefect UI.
SYSTEM: Final = "system"
#: Owner of runs that the machine's own user asked for: the local key's holder.
LOCAL: Final = "local"

OWNER_TAG: Final = "owner:"
SLICE_TAG: Final = "slice:"
RETRY_TAG: Final = "retry-of:"


def channel_of(run_id: UUID | str) -> str:
    """Return the event log's channel of a run."""
    return f"runs.{run_id}"


def owner_of(tags: list[str]) -> str:
    """Return the owner that a run's tags name, `system` where none is named."""
    return next((tag.removeprefix(OWNER_TAG) for tag in tags if tag.startswith(OWNER_TAG)), SYSTEM)


def tags_of(owner: str, slice_name: str, request: Request) -> list[str]:
    """Return a run's tags: its owner, its slice, and what it is about (those of these fields the request has)."""
    tags = [f"{OWNER_TAG}{owner}", f"{SLICE_TAG}{slice_name}"]
    tags += [f"{name}:{value}" for name in ("symbol", "strategy") if (value := getattr(request, name, None))]
    symbols: Sequence[str] = getattr(request, "symbols", ())
    return tags + [f"symbol:{symbol}" for symbol in symbols[:20]]
