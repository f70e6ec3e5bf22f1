"""Looks after sessions: what nobody trades any more is gone on with, what cannot go on or says nothing is told.

It lives in the API because runs are started here, with keys that make two keepers one, and because it shares no fate
with the worker, whose death is what most often leaves sessions behind.

A session is abandoned once its lease has run out: its run's process was killed, or failed. A run that goes on with it
is started for its owner, after a pause that doubles while the ledger does not grow; after `MOST_DEATHS` runs without
progress it is left, and told (`session.dead`). One whose run was cancelled is left as well: somebody wanted that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

from api.prefect_server import FlowRun, PrefectServer
from api.session_runs import SessionRuns
from gpt_trader.errors import GptTraderError, NotFound
from gpt_trader.instruments import TIMEFRAMES
from gpt_trader.runs import FINAL_STATES, SLICE_TAG
from storage.events import EventLog
from storage.market_stream import SYSTEM_CHANNEL
from storage.session_care import SessionCare
from storage.sessions import Session, SessionStore

#: How often sessions are looked for.
EVERY_SECONDS: Final = 1.0

#: Runs that may end one after the other without a single event more in the ledger.
MOST_DEATHS: Final = 5

#: The pause before another run for a ledger that has not grown: doubled each time, from the first to the longest.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0

#: How long a command waits for a run that is under way before another is started for it.
COMMAND_SECONDS: Final = timedelta(seconds=2)

#: A traded session that commits nothing for so long is told; one that replays slowly, after this many of its bars more.
SILENT: Final = timedelta(seconds=60)
SILENT_BARS: Final = 5

_log = structlog.get_logger("api")


@dataclass
class _Case:
    """One session that was found abandoned: its ledger's length then, and what was done about it."""

    seq: int
    run: UUID | None = None
    deaths: int = 0
    not_before: float = 0.0
    #: The lease's token at which it was left (None: it is not).
    left_at: int | None = None


class Keeper:
    """Runs beside the routes for the API's whole life; one `look` is one round."""

    def __init__(
        self,
        store: SessionStore,
        care: SessionCare,
        runs: SessionRuns,
        prefect: PrefectServer,
        events: EventLog,
        *,
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        self._store, self._care, self._runs = store, care, runs
        self._prefect, self._events = prefect, events
        self._first_pause = first_pause
        self._cases: dict[UUID, _Case] = {}
        self._silent: dict[UUID, int] = {}

    async def run(self) -> None:
        """Look again and again; what cannot be reached now is left to the next round."""
        while True:
            try:
                await self.look()
            except (GptTraderError, OperationalError, InterfaceError) as error:
                _log.warning("sessions cannot be looked after now", reason=type(error).__name__)
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Go on with what is abandoned or waits for a command to be obeyed; tell what is silent."""
        abandoned = await asyncio.to_thread(self._store.abandoned)
        waiting = await asyncio.to_thread(self._care.waiting, COMMAND_SECONDS)
        asked = {each.session_id for each in waiting}
        for session in {each.session_id: each for each in (*abandoned, *waiting)}.values():
            await self._take_care(session, asked=session.session_id in asked)
        await self._tell_silent(await asyncio.to_thread(self._care.silent, SILENT))

    async def _take_care(self, session: Session, *, asked: bool) -> None:
        case = self._cases.get(session.session_id)
        if case is None or case.seq != session.seq:
            case = self._cases[session.session_id] = _Case(session.seq)
        if case.left_at == session.lease_token or time.monotonic() < case.not_before:
            return
        holder = await self._run(_holder(session))
        if not asked and holder is not None and _state(holder) in ("CANCELLED", "CANCELLING"):
            case.left_at = session.lease_token if _state(holder) == "CANCELLED" else None
            return
        if case.run is not None:
            ours = await self._run(case.run)
            if ours is not None and _state(ours) not in FINAL_STATES and case.run != _holder(session):
                return  # it is on its way
            case.deaths += 1
        if case.deaths >= MOST_DEATHS:
            case.left_at = session.lease_token
            await self._tell_dead(session, case.deaths)
            return
        await self._settle(session, holder)
        run = await self._runs.resume(session)
        case.run = run.id
        case.not_before = time.monotonic() + min(self._first_pause * 2**case.deaths, LONGEST_PAUSE)
        _log.info(
            "session gone on with", session_id=str(session.session_id), run_id=str(run.id), deaths=case.deaths
        )

    async def _settle(self, session: Session, holder: FlowRun | None) -> None:
        """Say of the session's run that held the lease and still counts as running that it has crashed.

        Not of one that trades many sessions (`paper_daily`): it goes on to the next where one has failed.
        """
        if holder is None or _state(holder) != "RUNNING" or f"{SLICE_TAG}{session.slice}" not in holder.tags:
            return
        message = (
            f"the lease of session {session.session_id} ran out: its process is gone, or can write no more"
        )
        await self._prefect.propose_state(
            holder.id, {"type": "CRASHED", "name": "Crashed", "message": message}
        )

    async def _run(self, run_id: UUID | None) -> FlowRun | None:
        if run_id is None:
            return None
        try:
            return await self._prefect.run(run_id)
        except NotFound:
            return None

    async def _tell_dead(self, session: Session, deaths: int) -> None:
        _log.error("session is dead", session_id=str(session.session_id), deaths=deaths)
        await self._tell("session.dead", session, session.lease_token, deaths=deaths)

    async def _tell_silent(self, found: Sequence[tuple[Session, float]]) -> None:
        """Tell each silence once: until the ledger grows."""
        late = [(session, seconds) for session, seconds in found if seconds > _patience(session)]
        new = [(each, seconds) for each, seconds in late if self._silent.get(each.session_id) != each.seq]
        for session, seconds in new:
            _log.warning("session is silent", session_id=str(session.session_id), seconds=round(seconds))
            await self._tell("session.silent", session, session.seq, seconds=round(seconds, 1))
        self._silent = {session.session_id: session.seq for session, _ in late}

    async def _tell(self, kind: str, session: Session, nth: int, **more: Any) -> None:  # noqa: ANN401 - JSON
        data = {"schema_version": 1, "session_id": str(session.session_id), "status": session.status, **more}
        key = f"{kind}:{session.session_id}:{session.seq}:{nth}"
        await asyncio.to_thread(self._events.append, SYSTEM_CHANNEL, kind, data, key)


def _holder(session: Session) -> UUID | None:
    """Return the run that holds the lease, or held it last."""
    kind, _, run_id = (session.lease_holder or "").partition(" ")
    return UUID(run_id) if kind == "run" else None


def _state(run: FlowRun) -> str:
    return run.state.type if run.state else "SCHEDULED"


def _patience(session: Session) -> float:
    """Return how many seconds without a commit are no news: bars of a slow replay are far apart."""
    if session.feed == "stream":  # nights are silent; of the others its feed tells (`stale_data`)
        return float("inf")
    speed = session.request.get("speed", "max")
    bar = TIMEFRAMES.get(session.request.get("timeframe", ""), timedelta(0)).total_seconds()
    return SILENT.total_seconds() + (0.0 if speed == "max" else SILENT_BARS * bar / float(speed))
