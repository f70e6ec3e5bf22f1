"""Starts, reads and cancels runs. The only module of the API that knows that runs are Prefect's flow runs.

The flow-run id is the run id. Who owns a run, which slice it is and what it is about stand in its tags:
`owner:<id>`, `slice:<name>`, `symbol:<symbol>`, `strategy:<name>`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import orjson

from api.prefect_server import Deployment, FlowRun, LogLine, PrefectServer, RunState
from api.principals import Principal
from gpt_trader.errors import Conflict, EngineUnreachable, NotFound, Problem, Refused
from gpt_trader.requests import Request
from gpt_trader.runs import OWNER_TAG, SLICE_TAG, owner_of, tags_of
from gpt_trader.slices import SLICES, Slice

#: Rows read beyond a page, so that runs of the very same microsecond are not lost at its edge.
_TIES: Final = 20


@dataclass(frozen=True)
class RunFilter:
    """Which runs a list shall show; None leaves a criterion out."""

    workflow: str | None = None
    states: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Page:
    """Some runs, newest first, and where the next page begins (None: this was the last)."""

    runs: tuple[FlowRun, ...]
    next_cursor: str | None


@dataclass
class Launcher:
    """Turns requests into flow runs of the slices' deployments, and reads them back for their owners."""

    prefect: PrefectServer
    _deployments: dict[str, UUID] = field(default_factory=dict)

    async def start(
        self, row: Slice, request: Request, owner: str, key: str | None, *, tags: Sequence[str] = ()
    ) -> FlowRun:
        """Create the run; the same `key` of the same owner and slice gives the same run again."""
        body = {
            "parameters": {"request": request.model_dump(mode="json")},
            "tags": [*tags_of(owner, row.name, request), *tags],
            "idempotency_key": f"{owner}:{key or uuid4().hex}",
        }
        known = row.name in self._deployments
        try:
            return await self.prefect.create_run(await self._deployment_id(row.name), body)
        except NotFound:
            self._deployments.pop(row.name, None)
            if not known:
                raise _not_deployed(row.name) from None
        try:  # it was deployed anew since we looked: once more with its new id
            return await self.prefect.create_run(await self._deployment_id(row.name), body)
        except NotFound:
            raise _not_deployed(row.name) from None

    async def run(self, run_id: UUID, caller: Principal) -> FlowRun:
        """Return a run; raise NotFound if there is none or it belongs to somebody else."""
        try:
            found = await self.prefect.run(run_id)
        except NotFound:
            raise no_run(run_id) from None
        if not caller.may_see(owner_of(found.tags)):
            raise no_run(run_id)
        return found

    async def runs(self, wanted: RunFilter, caller: Principal, limit: int, cursor: str | None) -> Page:
        """Return one page of the caller's runs that match, newest first.

        Raises:
            Refused: the cursor is not one that we gave out.
        """
        before, seen = _read_cursor(cursor) if cursor else (wanted.until, frozenset[UUID]())
        filters = _prefect_filter(wanted, caller, before)
        found = [r for r in await self.prefect.runs(filters, limit + 1 + _TIES) if r.id not in seen]
        page = tuple(found[:limit])
        more = len(found) > limit
        return Page(page, _cursor(page, seen) if more and page else None)

    async def cancel(self, run_id: UUID, caller: Principal) -> FlowRun:
        """Ask for the run's end and return it in its new state.

        Raises:
            Conflict: the run has ended already.
            Denied: the caller lacks the scope of the run's slice.
        """
        run = await self.run(run_id, caller)
        row = SLICES.get(self.slice_of(run))
        caller.must("research" if row is None else row.scope)
        if run.state is not None and run.state.final:
            raise Conflict(f"run {run_id} has ended already: it is {run.state.type}")
        message = f"cancelled by {caller.id}"
        verdict = await self.prefect.propose_state(
            run_id, {"type": "CANCELLING", "name": "Cancelling", "message": message}
        )
        now = await self.run(run_id, caller)
        accepted = verdict.status == "ACCEPT" or (now.state and now.state.type in {"CANCELLING", "CANCELLED"})
        if not accepted:
            reason = verdict.details.get("reason", verdict.status)
            raise Conflict(f"run {run_id} cannot be cancelled now: {reason}")
        return now

    async def approve(self, run_id: UUID, caller: Principal, given: Mapping[str, Any] | None) -> FlowRun:
        """Let a run that waits for an approval go on, with the input it asked for; return it in its new state.

        Raises:
            Conflict: the run does not wait, or does not take this input.
        """
        await self._waiting(run_id, caller)
        verdict = await self.prefect.resume(run_id, given)
        if verdict.status != "ACCEPT":
            reason = verdict.details.get("reason", verdict.status)
            raise Conflict(f"run {run_id} cannot go on: {reason}")
        return await self.run(run_id, caller)

    async def reject(self, run_id: UUID, caller: Principal) -> FlowRun:
        """End a run that waits for an approval; return it in its new state. Errors as `approve`."""
        await self._waiting(run_id, caller)
        message = f"rejected by {caller.id}"
        verdict = await self.prefect.propose_state(
            run_id, {"type": "CANCELLED", "name": "Rejected", "message": message}
        )
        if verdict.status != "ACCEPT":
            reason = verdict.details.get("reason", verdict.status)
            raise Conflict(f"run {run_id} cannot be rejected: {reason}")
        return await self.run(run_id, caller)

    async def _waiting(self, run_id: UUID, caller: Principal) -> None:
        run = await self.run(run_id, caller)
        state = run.state.type if run.state else "SCHEDULED"
        if state != "PAUSED":
            raise Conflict(f"run {run_id} does not wait for an approval: it is {state}")

    async def states(self, run_id: UUID) -> list[RunState]:
        """Return all states of a run, oldest first."""
        return await self.prefect.states(run_id)

    async def logs(self, run_id: UUID, limit: int, offset: int) -> list[LogLine]:
        """Return what the run logged, oldest first."""
        return await self.prefect.logs(run_id, limit, offset)

    async def deployments(self) -> dict[str, Deployment]:
        """Return the slices' deployments by name."""
        found = {deployment.name: deployment for deployment in await self.prefect.deployments(list(SLICES))}
        self._deployments = {name: deployment.id for name, deployment in found.items()}
        return found

    async def warm(self) -> None:
        """Open a connection and learn the deployments, as soon as Prefect answers: the first run is not slow."""
        while True:
            try:
                if await self.deployments():
                    return
            except EngineUnreachable:
                pass  # it is still starting; readiness says so
            await asyncio.sleep(0.5)

    def slice_of(self, run: FlowRun) -> str:
        """Return the slice's name: from the run's tags, else from its deployment; '' where neither says."""
        for tag in run.tags:
            if tag.startswith(SLICE_TAG):
                return tag.removeprefix(SLICE_TAG)
        return next((name for name, found in self._deployments.items() if found == run.deployment_id), "")

    async def _deployment_id(self, name: str) -> UUID:
        if name not in self._deployments:
            await self.deployments()
        if name not in self._deployments:
            raise _not_deployed(name)
        return self._deployments[name]


def _prefect_filter(wanted: RunFilter, caller: Principal, before: datetime | None) -> dict[str, Any]:
    runs: dict[str, Any] = {}
    tags = [*wanted.tags] if caller.owns_everything else [*wanted.tags, f"{OWNER_TAG}{caller.id}"]
    if tags:
        runs["tags"] = {"all_": tags}
    if wanted.states:
        runs["state"] = {"type": {"any_": list(wanted.states)}}
    times = {"after_": wanted.since, "before_": before}
    if any(times.values()):
        runs["expected_start_time"] = {name: at.isoformat() for name, at in times.items() if at}
    names = [wanted.workflow] if wanted.workflow else list(SLICES)
    return {"flow_runs": runs, "flows": {"name": {"any_": names}}}


def _cursor(page: Sequence[FlowRun], seen: frozenset[UUID]) -> str:
    """Name the last run's time and every run of that very time that has been given out."""
    last = page[-1].expected_start_time
    given = [str(run.id) for run in page if run.expected_start_time == last]
    if len(given) == len(page):
        given += [str(run_id) for run_id in seen]
    content = orjson.dumps([last, given])
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[datetime, frozenset[UUID]]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        before, given = orjson.loads(base64.urlsafe_b64decode(padded))
        return datetime.fromisoformat(before), frozenset(UUID(run_id) for run_id in given)
    except (binascii.Error, ValueError, TypeError, AttributeError):
        raise Refused.of(
            Problem("cursor", cursor, "is not a cursor of this API", allowed="the next_cursor of a list")
        ) from None


def no_run(run_id: UUID) -> NotFound:
    """Return the error for a run that is not there, or not for this caller."""
    return NotFound(f"no run {run_id}; `gpt-trader workflow runs` lists yours")


def _not_deployed(name: str) -> EngineUnreachable:
    return EngineUnreachable(
        f"the workflow {name!r} is not deployed yet: the worker deploys it when it starts; "
        "`gpt-trader status` shows whether it is up"
    )
