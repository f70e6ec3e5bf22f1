"""Runs that go on with a session which nobody trades: started for its owner, each at most once."""

from __future__ import annotations

import asyncio
import itertools

from api.launcher import Launcher
from api.prefect_server import FlowRun
from api.run_states import RunStates
from gpt_trader.runs import FINAL_STATES
from gpt_trader.slices import SLICES
from gpt_trader.trading.request import PaperTradeRequest
from storage.runs import RunStore
from storage.session_rows import Session


class SessionRuns:
    """Starts them. Whoever asks, and however often: until a session's lease is taken anew it is the same run."""

    def __init__(self, launcher: Launcher, runs: RunStore, run_states: RunStates) -> None:
        self._launcher = launcher
        self._runs = runs
        self._run_states = run_states

    async def resume(self, session: Session) -> FlowRun:
        """Return the run that goes on with a session: one that was started for this and has not ended, or a new one.

        The session's own row is what was read last: its lease's token is part of the key. Raises EngineUnreachable.
        """
        row, request = SLICES[session.slice], PaperTradeRequest(session=session.session_id)
        for attempt in itertools.count():
            key = f"session:{session.session_id}:{session.lease_token}:{attempt}"
            run = await self._launcher.start(row, request, session.owner, key)
            if run.state is None or run.state.type not in FINAL_STATES:
                break
        body = request.model_dump(mode="json")
        await asyncio.to_thread(self._runs.register, run.id, row.name, session.owner, body)
        if run.state is not None:
            await self._run_states.tell(run.id, run.state)
        return run
