"""Settles runs whose process is gone: at the worker's start for those of a life before, and after each run for its own.

What a run becomes depends on how far it had come (facts measured on Prefect 3.8: worker and child killed together leave
a run Running for ever):

========== =====================================================================================================
Cancelling Cancelled: it was asked to end, and it has ended.
Running    Crashed, with the reason; it had begun, so running it again is for somebody to decide.
Pending    Scheduled again: it had not begun, so nothing is lost or done twice. Others wait as Scheduled anyway.
Paused     left alone: it has no process by design.
========== =====================================================================================================

Only runs with a claim in this home are looked at (`flows.claims`), and of these only the ones whose processes are gone.
"""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed, Scheduled

from flows.claims import Claims

logger = logging.getLogger("gpt_trader.worker")


async def sweep(client: PrefectClient, claims: Claims) -> list[FlowRun]:
    """Settle every claimed run whose processes are gone; return the runs as they are now."""
    swept: list[FlowRun] = []
    for claim in claims:
        if claim.alive():
            continue
        run_id = UUID(claim.run_id)
        flow_run = await settle(
            client, run_id, "the worker and the run's process were gone when the engine started"
        )
        if flow_run is not None:
            swept.append(flow_run)
        claims.remove(run_id)
    return swept


async def settle(client: PrefectClient, run_id: UUID, reason: str) -> FlowRun | None:
    """Give a run without a process the state that is true; return the run, or None if it was deleted."""
    try:
        flow_run = await client.read_flow_run(run_id)
        state = _settled(flow_run.state, reason)
        if state is None:
            return flow_run
        logger.warning("Run %s was %s and %s: now %s", run_id, _name(flow_run.state), reason, state.name)
        await client.set_flow_run_state(run_id, state, force=True)
        return await client.read_flow_run(run_id)
    except ObjectNotFound:
        return None


def _settled(state: State[Any] | None, reason: str) -> State[Any] | None:
    if state is None:
        return None
    if state.is_cancelling():
        return Cancelled(message="Flow run was cancelled.")
    if state.is_running():
        return Crashed(message=f"Flow run did not finish: {reason}.")
    if state.is_pending():
        return Scheduled(message=f"Scheduled again: {reason} before it began.")
    return None


def _name(state: State[Any] | None) -> str:
    return "without a state" if state is None else str(state.name)
