"""Looks after sessions: what nobody trades any more is gone on with; what cannot go on, or hangs, is told (`Deadman`).

It lives in the API because runs are started here, with keys that make two keepers one, and because it shares no fate
with the worker, whose death is what most often leaves sessions behind.

A session is abandoned once its lease has run out: its run's process was killed, or failed. A run that goes on with it
is started for its owner, after a pause that doubles while the ledger does not grow; after `MOST_DEATHS` runs without
progress it is left: it is dead. One whose run was cancelled is left as well: somebody wanted that. What was done is
kept (`storage.session_cases`), so that a keeper that begins anew goes on where the last one was.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from api.deadman import Deadman
from api.prefect_server import FlowRun, PrefectServer
from api.session_runs import SessionRuns
from gpt_trader.errors import GptTraderError, NotFound
from gpt_trader.runs import FINAL_STATES, SLICE_TAG
from storage.session_care import SessionCare
from storage.session_cases import SessionCases
from storage.session_rows import Session

#: How often sessions are looked for.
EVERY_SECONDS: Final = 1.0

#: Runs that may end one after the other without a single event more in the ledger.
MOST_DEATHS: Final = 5

#: The pause before another run for a ledger that has not grown: doubled each time, from the first to the longest.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0

#: How long a command waits for a run that is under way before another is started for it.
COMMAND_SECONDS: Final = timedelta(seconds=2)

_log = structlog.get_logger("api")


class Keeper:
    """Runs beside the routes for the API's whole life; one `look` is one round."""

    def __init__(
        self,
        care: SessionCare,
        cases: SessionCases,
        runs: SessionRuns,
        prefect: PrefectServer,
        deadman: Deadman,
        *,
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        self._care, self._cases = care, cases
        self._runs, self._prefect, self._deadman = runs, prefect, deadman
        self._first_pause = first_pause

    async def run(self) -> None:
        """Look again and again; what cannot be reached now is left to the next round."""
        while True:
            try:
                await self.look()
            except (GptTraderError, OperationalError, InterfaceError, NoConnection) as error:
                _log.warning("sessions cannot be looked after now", reason=type(error).__name__)
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Tell what is dead or hangs; go on with what is abandoned or waits for a command to be obeyed."""
        found = await asyncio.to_thread(self._care.abandoned)
        await asyncio.to_thread(self._deadman.look, found)
        abandoned = [each for each, _ in found]
        waiting = await asyncio.to_thread(self._care.waiting, COMMAND_SECONDS)
        asked = {each.session_id for each in waiting}
        for session in {each.session_id: each for each in (*abandoned, *waiting)}.values():
            try:
                await self._take_care(session, asked=session.session_id in asked)
            except GptTraderError as error:  # the others have their turn, and this one the next round
                _log.warning("a session waits", session_id=str(session.session_id), reason=error.detail)

    async def _take_care(self, session: Session, *, asked: bool) -> None:
        case = await asyncio.to_thread(self._cases.of, session)
        if case.left(session) or case.resting:
            return
        holder, deaths = await self._run(_holder(session)), case.deaths
        if not asked and holder is not None and _state(holder) in ("CANCELLED", "CANCELLING"):
            if _state(holder) == "CANCELLED":
                await asyncio.to_thread(self._cases.leave, session, case, "cancelled", deaths)
            return
        if case.run_id is not None:
            ours = await self._run(case.run_id)
            if ours is not None and _state(ours) not in FINAL_STATES and case.run_id != _holder(session):
                return  # it is on its way
            deaths += 1
        if deaths >= MOST_DEATHS:
            await asyncio.to_thread(self._cases.leave, session, case, "dead", deaths)
            return
        await self._settle(session, holder)
        run = await self._runs.resume(session)
        pause = min(self._first_pause * 2**deaths, LONGEST_PAUSE)
        await asyncio.to_thread(self._cases.started, session, case, run.id, deaths, pause)
        _log.info(
            "session gone on with", session_id=str(session.session_id), run_id=str(run.id), deaths=deaths
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


def _holder(session: Session) -> UUID | None:
    """Return the run that holds the lease, or held it last."""
    kind, _, run_id = (session.lease_holder or "").partition(" ")
    return UUID(run_id) if kind == "run" else None


def _state(run: FlowRun) -> str:
    return run.state.type if run.state else "SCHEDULED"
