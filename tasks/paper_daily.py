"""Tasks of the daily paper flow: which sessions are due, their bars, and what became of the day."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from prefect import get_run_logger

from gpt_trader.errors import GptTraderError, RunFailed
from gpt_trader.requests import DataRequest
from gpt_trader.runs import LOCAL, SYSTEM
from gpt_trader.trading.request import PaperDailyRequest
from storage.runs import RunOutput
from storage.session_rows import Session
from tasks.ingest import ingest
from tasks.passing import whole
from tasks.provenance import code_version, library_versions
from tasks.run import CurrentRun
from tasks.sessions import request_of, sessions
from tasks.stores import stores

#: Sessions by schedule that one run looks after.
_MOST: Final = 1_000


@dataclass
class Day:
    """What became of each session, in order."""

    outcomes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Those that could not be brought up to date."""
        return [each for each in self.outcomes if each["error"] is not None]

    @contextmanager
    def one(self, session: Session) -> Iterator[None]:
        """Bring one session up to date inside the block; what goes wrong is its own and ends no other."""
        error: str | None = None
        try:
            yield
        except GptTraderError as failed:
            error = failed.detail
            get_run_logger().error("session %s (%s): %s", session.session_id, session.name, error)
        now = sessions().get(session.session_id)
        self.outcomes.append(
            {
                "session_id": str(now.session_id),
                "name": now.name,
                "state": now.status,
                "bars": now.steps - session.steps,
                "fills": now.fills - session.fills,
                "equity": now.equity,
                "bar": now.bar,
                "ledger_hash": now.ledger_hash,
                "certificate": None if now.certificate is None else now.certificate["verdict"],
                "missed": None if now.certificate is None else now.certificate.get("missed", 0),
                "error": error,
            }
        )


def due_sessions(run: CurrentRun, request: PaperDailyRequest) -> list[Session]:
    """Return the open sessions by schedule that the run may trade: its owner's, or everybody's for cron."""
    owner = None if run.owner in (LOCAL, SYSTEM) else run.owner
    found = sessions().list(owner, slice_name="paper_trade", feed="schedule", ended=False, limit=_MOST)
    wanted: set[UUID] = set(request.sessions)
    return [each for each in reversed(found) if not wanted or each.session_id in wanted]


def refresh_bars(due: Sequence[Session]) -> None:
    """Bring the stored bars of these sessions' symbols up to date, each from its own source.

    What cannot be fetched is told and waits for the next day: sessions trade the bars that there are.
    """
    symbols = sorted({symbol for session in due for symbol in request_of(session).symbols})
    timeframes = {request_of(session).timeframe for session in due}
    if not symbols:
        return
    try:
        ingest(
            DataRequest(symbols=tuple(symbols), timeframes=tuple(timeframes), refresh=True),
            whole(_tell_nobody),
        )
    except GptTraderError as error:
        get_run_logger().warning("not all bars could be brought up to date: %s", error.detail)


def _tell_nobody(done: int, total: int, name: str) -> None:
    """The sessions are what progress is told of."""


def save_day(run: CurrentRun, day: Day) -> dict[str, Any]:
    """Keep what became of the sessions as the run's result; raise RunFailed where one was not brought up to date."""
    told = json.dumps([[each["session_id"], each["ledger_hash"]] for each in day.outcomes])
    shown: dict[str, Any] = {
        "schema_version": 1,
        "run_id": str(run.id),
        "flow": run.slice,
        "sessions": len(day.outcomes),
        "failed": len(day.failed),
        "each": day.outcomes,
        "result_hash": hashlib.sha256(f"gpt-trader paper day 1\n{told}".encode()).hexdigest(),
    }
    output = RunOutput(
        result_hash=shown["result_hash"],
        summary=shown,
        code_version=code_version(),
        libraries=library_versions(),
    )
    stores().runs.save_result(run.id, output)
    if day.failed:
        first = day.failed[0]
        raise RunFailed(
            f"{len(day.failed)} of {len(day.outcomes)} sessions were not brought up to date; the first is "
            f"{first['name']} ({first['session_id']}): {first['error']}"
        )
    return shown
