"""Paper sessions for tests of the API: begun over REST, traded by a real run in a process that tests may kill."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import text

from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.validation import validated
from storage.sessions import Session, SessionStore
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


@contextmanager
def running(engine: Engine, prefect: Prefect, run_id: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a flow run in a process of its own; whatever is left of it ends with the block."""
    database = engine.settings.database_url
    assert database is not None
    environment = {
        **{
            key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "GPT_TRADER_"))
        },
        "GPT_TRADER_HOME": str(engine.home.root),
        "GPT_TRADER_DATABASE_URL": database.get_secret_value(),
        "PREFECT_API_URL": prefect.url,
        "PREFECT_HOME": str(engine.home.root / "prefect"),
        "PYTHONPATH": str(ROOT),
    }
    log = (engine.home.root / f"run-{run_id}.log").open("wb")
    command = [sys.executable, "-P", "-m", "tests.api.flow_process", run_id]
    with log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            yield process
        finally:
            process.kill()


def run_to_its_end(engine: Engine, prefect: Prefect, run_id: str) -> None:
    """Run a flow run and wait until it has completed."""
    with running(engine, prefect, run_id) as process:
        code = process.wait(timeout=120)
    assert code == 0, (engine.home.root / f"run-{run_id}.log").read_text()


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
