"""Paper sessions for tests of the API: begun over REST, traded by a real run in a process that tests may kill."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import text

from gpt_trader.runs import FINAL_STATES, channel_of
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.validation import validated
from storage.session_rows import Session
from storage.sessions import SessionStore
from tests.api.conftest import Engine, Prefect
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]

#: Trades every few bars of the saw that ACME's prices are.
ASKED = {
    "symbol": "ACME",
    "strategy": "ma_crossover",
    "params": {"fast": 2, "slow": 5},
    "start": "2020-02-01",
    "on_gaps": "warn",
}


def begin(engine: Engine, headers: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """Ask for a session; return the answer's body."""
    answer = engine.http.post("/paper-trade/sessions", json=ASKED | more, headers=headers)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


class Worker:
    """Runs flow runs, each in a process forked from one that has imported everything."""

    def __init__(self, engine: Engine, prefect: Prefect) -> None:
        database = engine.settings.database_url
        assert database is not None
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "GPT_TRADER_"))}
        environment = {
            **inherited,
            "GPT_TRADER_HOME": str(engine.home.root),
            "GPT_TRADER_DATABASE_URL": database.get_secret_value(),
            "PREFECT_API_URL": prefect.url,
            "PREFECT_HOME": str(engine.home.root / "prefect"),
            "PYTHONPATH": str(ROOT),
        }
        self._events = engine.events
        self._log = engine.home.root / "runs.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.api.flow_process"],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def begin(self, run_id: str) -> int:
        """Start a run; return its process's pid."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{run_id}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def run(self, run_id: str) -> None:
        """Run a run to its end, which must be a good one."""
        self.begin(run_id)

        def state() -> str:
            told = [
                each.data["state"] for each in self._events.read(channel_of(run_id)) if each.type == "state"
            ]
            return next((each for each in told if each in FINAL_STATES), "")

        ended = eventually(state, seconds=120, what="the run's end")
        assert ended == "COMPLETED", self._log.read_text()

    def close(self) -> None:
        """End it; runs under way are left to themselves."""
        self._process.communicate(timeout=30)


def run_of(engine: Engine, session_id: str, *, other_than: set[str] = frozenset()) -> str:
    """Wait for a run that goes on with a session; return its id."""

    def found() -> str | None:
        params: dict[str, Any] = {"name": "paper_trade", "limit": 150}
        items = engine.http.get("/workflows/runs", params=params).raise_for_status().json()["items"]
        mine = [each["run_id"] for each in items if each["request"].get("session") == session_id]
        return next((each for each in mine if each not in other_than), None)

    return str(eventually(found, seconds=30, what="a run that goes on with the session"))


def expire_lease(engine: Engine, session_id: str) -> None:
    """Let the time pass that a lease lasts."""
    with engine.context.database.begin() as connection:
        connection.execute(
            text(
                "UPDATE sessions SET lease_until = clock_timestamp() - interval '1 s' WHERE session_id = :id"
            ),
            {"id": UUID(session_id)},
        )


def written_down(
    engine: Engine, owner: str = "local", *, feed: str = "replay", snapshot_id: str | None = None
) -> Session:
    """Write a session down that nobody has traded."""
    store, session_id = SessionStore(engine.context.database), uuid4()
    request = validated(PaperTradeRequest, ASKED | {"feed": feed}).model_dump(mode="json")
    store.create(
        session_id,
        owner,
        "paper_trade",
        request,
        {},
        name="written",
        capital="10000",
        snapshot_id=snapshot_id,
    )
    return store.get(session_id)


def end(engine: Engine, session_id: UUID) -> None:
    """End a session that nobody trades: keepers look after it no more."""
    with engine.context.database.begin() as connection:
        ended = "UPDATE sessions SET ended_at = clock_timestamp(), status = 'stopped' WHERE session_id = :id"
        connection.execute(text(ended), {"id": session_id})


def shown(engine: Engine, session_id: str, part: str = "", **params: Any) -> Any:
    """GET a session, or a part of it."""
    path = f"/paper-trade/sessions/{session_id}" + (f"/{part}" if part else "")
    answer: httpx.Response = engine.http.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()
