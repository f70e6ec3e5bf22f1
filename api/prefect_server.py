"""The few calls of Prefect's REST API that we need, typed.

Prefect's own client costs 2.5 s of import and some 100 MB, on a start-up that shares two cores with the
server's and the worker's; Prefect is pinned exactly, and these are its public routes. One connection pool
with keep-alive serves the whole process. A request outlives whoever asked for it: a client that leaves at the wrong
moment would take a place of the pool along.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter

from gpt_trader.errors import Conflict, EngineUnreachable, NotFound
from gpt_trader.runs import FINAL_STATES
from gpt_trader.shielded_tasks import ShieldedTasks

_ADVICE: Final = "`gpt-trader status` shows the parts, `gpt-trader up` starts them"

#: How long closing waits for requests under way.
_CLOSE_SECONDS: Final = 3.0


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RunState(_Reply):
    """One state of a flow run, as Prefect stores it."""

    id: UUID
    type: str
    name: str | None = None
    message: str | None = None
    timestamp: datetime

    @property
    def final(self) -> bool:
        """Whether nothing follows it."""
        return self.type in FINAL_STATES


class FlowRun(_Reply):
    """A flow run, as Prefect stores it."""

    id: UUID
    name: str
    flow_id: UUID
    deployment_id: UUID | None = None
    parameters: dict[str, Any] = {}
    tags: list[str] = []
    state: RunState | None = None
    created: datetime
    expected_start_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    total_run_time: float = 0.0


class Schedule(_Reply):
    """One schedule of a deployment: Prefect's own description of when, with what, and whether it is active."""

    id: UUID
    slug: str | None = None
    active: bool
    schedule: dict[str, Any]
    parameters: dict[str, Any] = {}


class Deployment(_Reply):
    """A deployment; its name is the slice's."""

    id: UUID
    name: str
    paused: bool = False
    schedules: list[Schedule] = []


class LogLine(_Reply):
    """One line that a run logged; `level` is Python's number."""

    level: int
    message: str
    timestamp: datetime


class Orchestration(_Reply):
    """What Prefect made of a proposed state."""

    status: str
    details: dict[str, Any] = {}


_RUNS: Final = TypeAdapter(list[FlowRun])
_STATES: Final = TypeAdapter(list[RunState])
_DEPLOYMENTS: Final = TypeAdapter(list[Deployment])
_LOGS: Final = TypeAdapter(list[LogLine])


class PrefectServer:
    """A connection pool to one Prefect server. Every method raises EngineUnreachable when it does not answer."""

    def __init__(self, url: str, auth: str | None = None) -> None:
        """Connect to the API at `url` (`http://host:port/api`); `auth` is `user:password` or None."""
        self.url = url.rstrip("/")
        user, _, password = (auth or "").partition(":")
        host = urlsplit(url).hostname or ""
        self._requests = ShieldedTasks()
        self._http = httpx.AsyncClient(
            base_url=self.url,
            auth=httpx.BasicAuth(user, password) if auth else None,
            timeout=httpx.Timeout(10.0, connect=2.0),
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=30),
            # A proxy of the environment is for the outside, never for our own part on loopback.
            trust_env=host not in {"127.0.0.1", "localhost", "::1"},
        )

    async def close(self) -> None:
        """Close the pool, when what is under way has ended or taken too long."""
        await self._requests.close(_CLOSE_SECONDS)
        await self._http.aclose()

    async def healthy(self) -> bool:
        """Return whether the server says that it is well."""
        try:
            asked = self._requests.run(self._http.get("/health", timeout=2.0))
            return (await asked).status_code == 200
        except httpx.HTTPError:
            return False

    async def workers(self, pool: str) -> list[str]:
        """Return the names of the workers of a pool that Prefect hears of."""
        try:
            reply = await self._post(
                f"/work_pools/{pool}/workers/filter", {"workers": {"status": {"any_": ["ONLINE"]}}}
            )
        except NotFound:  # no worker has made the pool yet
            return []
        return [str(worker["name"]) for worker in orjson.loads(reply)]

    async def deployments(self, names: list[str]) -> list[Deployment]:
        """Return the deployments of these names, where flow and deployment bear the same name."""
        filters = {"flows": {"name": {"any_": names}}, "deployments": {"name": {"any_": names}}}
        return _DEPLOYMENTS.validate_json(await self._post("/deployments/filter", filters))

    async def create_run(self, deployment: UUID, body: Mapping[str, Any]) -> FlowRun:
        """Create a flow run of a deployment; raise NotFound if the deployment is gone."""
        return FlowRun.model_validate_json(
            await self._post(f"/deployments/{deployment}/create_flow_run", body)
        )

    async def run(self, run_id: UUID) -> FlowRun:
        """Return a flow run; raise NotFound if there is none."""
        return FlowRun.model_validate_json(await self._send("GET", f"/flow_runs/{run_id}"))

    async def runs(self, filters: Mapping[str, Any], limit: int) -> list[FlowRun]:
        """Return the flow runs that match, newest expected start first."""
        body = {**filters, "sort": "EXPECTED_START_TIME_DESC", "limit": limit}
        return _RUNS.validate_json(await self._post("/flow_runs/filter", body))

    async def states(self, run_id: UUID) -> list[RunState]:
        """Return all states a run has had, oldest first ([] for a run that is not known)."""
        reply = await self._send("GET", "/flow_run_states/", params={"flow_run_id": str(run_id)})
        return sorted(_STATES.validate_json(reply), key=lambda state: state.timestamp)

    async def propose_state(self, run_id: UUID, state: Mapping[str, Any]) -> Orchestration:
        """Propose a state; Prefect's rules decide what becomes of it."""
        reply = await self._post(f"/flow_runs/{run_id}/set_state", {"state": state, "force": False})
        return Orchestration.model_validate_json(reply)

    async def resume(self, run_id: UUID, given: Mapping[str, Any] | None) -> Orchestration:
        """Let a paused run go on, with the input that it waits for, if any."""
        return Orchestration.model_validate_json(
            await self._post(f"/flow_runs/{run_id}/resume", {"run_input": given})
        )

    async def create_schedule(self, deployment: UUID, body: Mapping[str, Any]) -> None:
        """Give a deployment one more schedule; raise Conflict where Prefect cannot read it."""
        await self._send("POST", f"/deployments/{deployment}/schedules", content=orjson.dumps([body]))

    async def update_schedule(self, deployment: UUID, schedule: UUID, changes: Mapping[str, Any]) -> None:
        """Change the given fields of a schedule; what it has scheduled is scheduled anew."""
        path = f"/deployments/{deployment}/schedules/{schedule}"
        await self._send("PATCH", path, content=orjson.dumps(changes))

    async def delete_schedule(self, deployment: UUID, schedule: UUID) -> None:
        """Remove a schedule and what it has scheduled."""
        await self._send("DELETE", f"/deployments/{deployment}/schedules/{schedule}")

    async def logs(self, run_id: UUID, limit: int, offset: int) -> list[LogLine]:
        """Return what a run logged, oldest first."""
        logs = {"flow_run_id": {"any_": [str(run_id)]}}
        body = {"logs": logs, "limit": limit, "offset": offset, "sort": "TIMESTAMP_ASC"}
        return _LOGS.validate_json(await self._post("/logs/filter", body))

    async def _post(self, path: str, body: Mapping[str, Any]) -> bytes:
        return await self._send("POST", path, content=orjson.dumps(body))

    async def _send(
        self, method: str, path: str, *, content: bytes | None = None, params: Mapping[str, str] | None = None
    ) -> bytes:
        """Send one request, which goes on should the caller be cancelled; return the body of the answer."""
        return await self._requests.run(self._sent(method, path, content, params))

    async def _sent(
        self, method: str, path: str, content: bytes | None, params: Mapping[str, str] | None
    ) -> bytes:
        """Send one request, once more where a kept connection turned out to be dead.

        Sending twice is safe: what creates a run carries an idempotency key, the rest changes nothing twice.
        """
        headers = {"Content-Type": "application/json"} if content is not None else None
        for attempt in (1, 2):
            try:
                reply = await self._http.request(
                    method, path, content=content, params=params, headers=headers
                )
                break
            except httpx.TransportError as error:
                if attempt == 2 or isinstance(error, httpx.TimeoutException):
                    raise EngineUnreachable(
                        f"the Prefect server at {self.url} (setting prefect_api_url) does not answer "
                        f"({type(error).__name__}); {_ADVICE}"
                    ) from None
        return self._content(reply)

    def _content(self, reply: httpx.Response) -> bytes:
        if reply.is_success:
            return reply.content
        if reply.status_code == 404:
            raise NotFound("Prefect does not know it (any more)")
        shown = reply.text[:300]
        if reply.status_code in {409, 422}:
            raise Conflict(f"Prefect refused: {shown}")
        raise EngineUnreachable(f"the Prefect server answered {reply.status_code}: {shown}; {_ADVICE}")
