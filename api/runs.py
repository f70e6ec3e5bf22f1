"""Runs as the API tells them: submitting, reading, results and artifacts, for their owner only."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

import orjson

from api import sessions
from api.admission import admitted
from api.context import Context
from api.launcher import no_run
from api.models import RunAccepted, RunItem, RunLinks, RunView, StateName
from api.prefect_server import FlowRun
from api.principals import Principal
from api.reproduction import ReproductionView, comparison, require_data
from gpt_trader.errors import Conflict, NotFound
from gpt_trader.reproduction import reads_snapshot, tag_of
from gpt_trader.requests import Request
from gpt_trader.runs import FINAL_STATES, RETRY_TAG, owner_of
from gpt_trader.slices import SLICES, Slice
from storage.runs import Run, RunStore

ROOT: Final = "/api/v1/workflows/runs"


@dataclass(frozen=True)
class _Claim:
    """An owner's idempotency key for one body; without a key nothing is claimed."""

    owner: str
    key: str | None
    body_hash: str

    def of(self, store: RunStore, run_id: UUID | None = None) -> UUID | None:
        """Claim the key (for a run, once it is known) and return the run that has it; errors as `claim_key`."""
        return store.claim_key(self.owner, self.key, self.body_hash, run_id) if self.key else None


async def submit(
    context: Context,
    row: Slice,
    body: Mapping[str, Any],
    caller: Principal,
    key: str | None,
    *,
    tags: Sequence[str] = (),
) -> RunAccepted:
    """Check the request, start its run and write down whose it is; the same key gives the same run.

    Raises:
        Denied: the caller lacks the slice's scope.
        Refused: the request is wrong (with its subclasses).
        Conflict: the key was used with another request.
        EngineUnreachable: Prefect or the database does not answer, or nothing is deployed.
    """
    caller.must(row.scope)
    request = await asyncio.to_thread(
        admitted,
        row,
        body,
        caller,
        lake=context.lake,
        home=context.home,
        settings=context.settings,
    )
    await sessions.must_see_all(context, request, caller)
    claim = _Claim(caller.id, key, _body_hash(row, request, tags))
    earlier = await asyncio.to_thread(claim.of, context.runs)
    if earlier is not None:
        return _submitted(context, await context.launcher.run(earlier, caller), row, request)
    run = await context.launcher.start(row, request, caller.id, key, tags=tags)
    await asyncio.to_thread(_record, context.runs, run.id, row, request, claim)
    if run.state is not None:
        await context.run_states.tell(run.id, run.state)
    return _submitted(context, run, row, request)


async def reproduce(context: Context, run_id: UUID, caller: Principal, key: str | None) -> RunAccepted:
    """Start a new run with the recorded request, pinned to the recorded snapshot.

    Raises:
        Conflict: the run has no result that could be reproduced, or its slice has none.
        NotFound, CorruptLake: the data that it saw is not there any more; the message says how to bring it back.
    """
    kept = await finished_run(context, run_id, caller)
    row = SLICES[kept.slice]
    if not reads_snapshot(row):
        raise Conflict(f"a run of {kept.slice} changes the lake: it cannot be reproduced, only started again")
    await asyncio.to_thread(require_data, context.lake, kept)
    body = {**kept.request, "snapshot": kept.snapshot_id}
    return await submit(context, row, body, caller, key, tags=(tag_of(run_id),))


async def retry(context: Context, run_id: UUID, caller: Principal, key: str | None) -> RunAccepted:
    """Start a new run with the request of one that failed, crashed or was cancelled.

    A run's record is immutable, so this is a run of its own; what the earlier one kept (an optimization's finished
    trials, bars that were ingested) is not done again. One that wrote down its snapshot is done again on that.

    Raises:
        Conflict: the run has not ended yet, or has completed.
    """
    run = await context.launcher.run(run_id, caller)
    state = _state(run)
    row = SLICES.get(context.launcher.slice_of(run))
    request = run.parameters.get("request")
    if state not in FINAL_STATES or state == "COMPLETED" or row is None or not isinstance(request, dict):
        raise Conflict(
            f"run {run_id} is {state}: only a run that failed, crashed or was cancelled is retried"
        )
    try:
        snapshot = (await asyncio.to_thread(context.runs.get, run_id)).snapshot_id
    except NotFound:  # it was started elsewhere and never registered itself
        snapshot = None
    body = {**request, "snapshot": snapshot} if snapshot and reads_snapshot(row) else request
    return await submit(context, row, body, caller, key, tags=(f"{RETRY_TAG}{run_id}",))


async def reproduction(context: Context, run_id: UUID, caller: Principal) -> ReproductionView:
    """Return how a finished run compares with the one that it reproduces.

    Errors as `finished_run`; NotFound as well where it reproduces none.
    """
    kept = await finished_run(context, run_id, caller)
    tags = (await context.launcher.run(run_id, caller)).tags
    found = await asyncio.to_thread(comparison, context.runs, kept, tags, caller)
    if found is None:
        raise NotFound(
            f"run {run_id} reproduces no other: POST {ROOT}/{run_id}/reproduce starts one that does"
        )
    return found


async def must_see(context: Context, run_id: UUID, caller: Principal) -> None:
    """Raise NotFound if there is no such run or it is another owner's. Prefect is asked only where we do not know."""
    try:
        kept = await asyncio.to_thread(context.runs.get, run_id)
    except NotFound:
        await context.launcher.run(run_id, caller)
        return
    if not caller.may_see(kept.owner):
        raise no_run(run_id)


async def finished_run(context: Context, run_id: UUID, caller: Principal) -> Run:
    """Return a run's row with its result.

    Raises:
        NotFound: there is no such run, or it is another owner's.
        Conflict: it has no result (yet); the message says where it stands.
    """
    try:
        kept = await asyncio.to_thread(context.runs.get, run_id)
    except NotFound:
        kept = None
    if kept is not None and not caller.may_see(kept.owner):
        raise no_run(run_id)
    if kept is not None and kept.summary is not None:
        return kept
    run = await context.launcher.run(run_id, caller)
    state = run.state.type if run.state else "SCHEDULED"
    message = f": {run.state.message}" if run.state and run.state.message else ""
    raise Conflict(f"run {run_id} has no result: it is {state}{message}")


async def result(context: Context, run_id: UUID, caller: Principal) -> dict[str, Any]:
    """Return the summary that the run saved, its state, its files on the engine's machine and its links.

    That of a run which reproduces another one has the comparison as `reproduction`. Errors as `finished_run`.
    """
    kept = await finished_run(context, run_id, caller)
    state: StateName = "COMPLETED"
    compared = None
    try:
        run = await context.launcher.run(run_id, caller)
    except NotFound:
        pass  # Prefect has forgotten the run; its result stands
    else:
        state = _state(run)
        compared = await asyncio.to_thread(comparison, context.runs, kept, run.tags, caller)
    files = {name: str(context.runs.artifact_path(run_id, name)) for name in kept.artifacts}
    return {
        "run_id": str(run_id),
        "flow": kept.slice,
        "state": state,
        **{name: value for name, value in (kept.summary or {}).items() if name not in {"run_id", "flow"}},
        **({"reproduction": compared.model_dump(mode="json")} if compared else {}),
        "artifacts": files,
        "links": links(context, run_id).model_dump(),
    }


async def artifact(context: Context, run_id: UUID, name: str, caller: Principal) -> Path:
    """Return the file of a finished run's artifact; errors as `finished_run`, NotFound for one it lacks."""
    await finished_run(context, run_id, caller)
    return await asyncio.to_thread(context.runs.artifact, run_id, name)


async def view(context: Context, run_id: UUID, caller: Principal) -> RunView:
    """Return where the run stands and, once it is finished, what came out."""
    run = await context.launcher.run(run_id, caller)
    try:
        kept = await asyncio.to_thread(context.runs.get, run_id)
    except NotFound:  # it was started elsewhere and has not registered itself yet
        return RunView(**_facts(context, run))
    return RunView(
        **_facts(context, run),
        result_hash=kept.result_hash,
        snapshot_id=kept.snapshot_id,
        artifacts=sorted(kept.artifacts),
    )


def item(context: Context, run: FlowRun) -> RunItem:
    """Return the run as lists show it."""
    return RunItem(**_facts(context, run))


def accepted(context: Context, run: FlowRun) -> RunAccepted:
    """Return what the client needs to follow the run."""
    return RunAccepted(
        run_id=run.id, flow=context.launcher.slice_of(run), state=_state(run), links=links(context, run.id)
    )


def links(context: Context, run_id: UUID) -> RunLinks:
    """Return where the run's parts are."""
    here = f"{ROOT}/{run_id}"
    return RunLinks(
        self=here,
        events=f"{here}/events",
        result=f"{here}/result",
        report=f"{here}/report",
        logs=f"{here}/logs",
        cancel=f"{here}/cancel",
        prefect=f"{context.prefect.url.removesuffix('/api')}/runs/flow-run/{run_id}",
    )


def _facts(context: Context, run: FlowRun) -> dict[str, Any]:
    request = run.parameters.get("request")
    return {
        "run_id": run.id,
        "name": run.name,
        "flow": context.launcher.slice_of(run),
        "state": _state(run),
        "state_name": run.state.name if run.state else None,
        "message": run.state.message if run.state else None,
        "owner": owner_of(run.tags),
        "tags": run.tags,
        "request": request if isinstance(request, dict) else run.parameters,
        "created_at": run.created,
        "started_at": run.start_time,
        "ended_at": run.end_time,
        "duration_seconds": run.total_run_time,
        "links": links(context, run.id),
    }


def _state(run: FlowRun) -> StateName:
    return cast("StateName", run.state.type if run.state else "SCHEDULED")


def _submitted(context: Context, run: FlowRun, row: Slice, request: Request) -> RunAccepted:
    """Return what the client needs; with the session that the run begins, or goes on with, where it trades one."""
    found = accepted(context, run)
    if row.name == "paper_trade":
        found.session_id = getattr(request, "session", None) or run.id
    return found


def _record(store: RunStore, run_id: UUID, row: Slice, request: Request, claim: _Claim) -> None:
    store.register(run_id, row.name, claim.owner, request.model_dump(mode="json"))
    claim.of(store, run_id)


def _body_hash(row: Slice, request: Request, tags: Sequence[str]) -> str:
    content = [row.name, request.model_dump(mode="json"), list(tags)]
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
