"""Brings a run's states from Prefect into the event log, for what a run cannot tell itself: crash and cancel.

A run's own hooks append most states the moment they happen. Here the rest is filled in: when a stream is
opened, whenever Prefect announces a state change, and once a second as a safety net, as long as anybody
follows an unfinished run. The key of a state's event is Prefect's state id, so both ways give one event.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import orjson
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from api.launcher import Launcher
from api.prefect_server import RunState
from gpt_trader.errors import EngineUnreachable
from gpt_trader.runs import channel_of
from storage.events import EventLog, NewEvent, Position

POLL_SECONDS: Final = 1.0

#: How long an end that the run can tell itself is left to it: told by us, the stream would close on its last lines.
LEFT_TO_THE_RUN: Final = timedelta(seconds=0.75)

_RESOURCE: Final = "prefect.flow-run."
_FILTER: Final = {"type": "filter", "backfill": False, "filter": {"event": {"prefix": [_RESOURCE]}}}
_log = structlog.get_logger("api")


@dataclass
class _Watch:
    """One run that somebody follows: how many do, what nudges the watch, and its task."""

    nudge: asyncio.Event = field(default_factory=asyncio.Event)
    followers: int = 0
    task: asyncio.Task[None] | None = None


class RunStates:
    """Keeps the event log's states of followed runs complete."""

    def __init__(self, launcher: Launcher, events: EventLog, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._launcher = launcher
        self._events = events
        self._poll_seconds = poll_seconds
        self._watched: dict[UUID, _Watch] = {}

    async def tell(self, run_id: UUID, state: RunState) -> None:
        """Append one state: the first event of a run's channel wakes the worker."""
        await asyncio.to_thread(self._events.append_many, channel_of(run_id), [_event(state)])

    async def sync(self, run_id: UUID, known: set[UUID] | None = None) -> bool:
        """Append the states that the log lacks, oldest first; return whether the run has ended.

        `known` holds the ids seen before, so that a poll that finds nothing new touches no database.
        """
        states = [state for state in await self._launcher.states(run_id) if not _left_to_the_run(state)]
        if known is None or any(state.id not in known for state in states):
            await asyncio.to_thread(self._append, run_id, states)
        if known is not None:
            known.update(state.id for state in states)
        return bool(states) and states[-1].final

    @asynccontextmanager
    async def watched(self, run_id: UUID) -> AsyncIterator[None]:
        """Keep the run's states complete inside the block; any number may watch the same run."""
        watch = self._watched.setdefault(run_id, _Watch())
        watch.followers += 1
        if watch.task is None:
            watch.task = asyncio.create_task(self._watch(run_id, watch))
        try:
            yield
        finally:
            watch.followers -= 1
            if watch.followers == 0:
                del self._watched[run_id]
                watch.task.cancel()
                await asyncio.gather(watch.task, return_exceptions=True)

    @property
    def watched_runs(self) -> frozenset[UUID]:
        """The runs that somebody follows now."""
        return frozenset(self._watched)

    def nudge(self, run_id: UUID) -> None:
        """Look for new states of a run now, if anybody follows it."""
        if run_id in self._watched:
            self._watched[run_id].nudge.set()

    def nudge_all(self) -> None:
        """Look for new states of every followed run now."""
        for watch in self._watched.values():
            watch.nudge.set()

    async def _watch(self, run_id: UUID, watch: _Watch) -> None:
        known: set[UUID] = set()
        while True:
            watch.nudge.clear()
            try:
                if await self.sync(run_id, known):
                    return
            except EngineUnreachable as error:
                _log.warning("states cannot be read now", run_id=str(run_id), reason=error.detail)
            try:
                await asyncio.wait_for(watch.nudge.wait(), self._poll_seconds)
            except TimeoutError:
                continue

    def _append(self, run_id: UUID, states: list[RunState]) -> None:
        """Append what follows the latest state that the log has: an earlier one would come out of order."""
        keys = self._logged(run_id)
        logged = [index for index, state in enumerate(states) if str(state.id) in keys]
        missing = states[logged[-1] + 1 :] if logged else states
        self._events.append_many(channel_of(run_id), [_event(state) for state in missing])

    def _logged(self, run_id: UUID) -> set[str | None]:
        """Return the keys of the states that the run's channel has."""
        keys: set[str | None] = set()
        after: Position | None = None
        while events := self._events.read(channel_of(run_id), after):
            keys.update(event.key for event in events if event.type == "state")
            after = events[-1].position
        return keys


def _left_to_the_run(state: RunState) -> bool:
    """Whether the run is about to tell this state itself, after the progress and log lines it still holds."""
    if state.type not in {"COMPLETED", "FAILED"}:
        return False
    return abs(datetime.now(UTC) - state.timestamp) < LEFT_TO_THE_RUN


def _event(state: RunState) -> NewEvent:
    values = {"state": state.type, "name": state.name, "message": state.message}
    return NewEvent("state", values, str(state.id))


async def listen(url: str, auth: str | None, states: RunStates) -> None:
    """Nudge the watches on every state change that Prefect announces; for ever, with its own backoff.

    Prefect's stream may lose messages under load and is down when the server is: it only makes us faster.
    """
    pause = 0.25
    while True:
        try:
            async with connect(
                _events_url(url), subprotocols=[Subprotocol("prefect")], proxy=None, open_timeout=5
            ) as socket:
                await _introduce(socket, auth)
                pause = 0.25
                states.nudge_all()  # what happened while we were not listening
                async for message in socket:
                    _pass_on(message, states.nudge)
        except (OSError, WebSocketException, TimeoutError, ValueError):
            pass  # not up, restarted, or closed on us: the poll carries on meanwhile
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 jitter needs no cryptography
        pause = min(pause * 2, 5.0)


async def _introduce(socket: ClientConnection, auth: str | None) -> None:
    """Log in to Prefect's event stream and say which events we want."""
    await socket.send(orjson.dumps({"type": "auth", "token": auth}).decode())
    reply: dict[str, Any] = orjson.loads(await asyncio.wait_for(socket.recv(), 5))
    if reply.get("type") != "auth_success":
        raise ValueError("Prefect's event stream refused us")
    await socket.send(orjson.dumps(_FILTER).decode())


def _pass_on(message: str | bytes, nudge: Callable[[UUID], None]) -> None:
    event: dict[str, Any] = orjson.loads(message).get("event") or {}
    resource = str(event.get("resource", {}).get("prefect.resource.id", ""))
    if resource.startswith(_RESOURCE):
        nudge(UUID(resource.removeprefix(_RESOURCE)))


def _events_url(url: str) -> str:
    parts = urlsplit(url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return urlunsplit((scheme, parts.netloc, f"{parts.path}/events/out", "", ""))
