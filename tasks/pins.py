"""Keeps a run's snapshot in the lake while the run is under way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from gpt_trader.requests import TradingRequest
from tasks.run import CurrentRun
from tasks.stores import stores

Reading = TypeVar("Reading", bound=TradingRequest)


@contextmanager
def pinned_snapshot(request: Reading) -> Iterator[Reading]:
    """Give the request with its snapshot resolved to an id that no collection removes within the block.

    A time means another snapshot once bars come in: everything that a run reads must be asked of this one request.
    Leave the block when the saved result names the snapshot: from then on that keeps it. What was asked stays as it
    was in the run's record, and the snapshot is no part of the result's hash.

    Raises NotFound or Refused for a snapshot that there is not.
    """
    with stores().lake.pinned(request.snapshot) as snapshot:
        yield request.model_copy(update={"snapshot": snapshot.id if snapshot else None})


@contextmanager
def first_snapshot(run: CurrentRun, request: Reading) -> Iterator[Reading]:
    """As `pinned_snapshot`, and written down with the run: tried again, it reads what its first try read.

    A run may be killed and resumed after bars came in; its trials, and so its result, would be others.
    """
    runs = stores().runs
    known = runs.get(run.id).snapshot_id
    with pinned_snapshot(
        request if known is None else request.model_copy(update={"snapshot": known})
    ) as pinned:
        if pinned.snapshot is not None:
            runs.note_snapshot(run.id, pinned.snapshot)
        yield pinned
