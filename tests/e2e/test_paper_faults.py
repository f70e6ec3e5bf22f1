"""A paper session in a whole house whose parts die in turn: nobody but the house goes on with it (faults row 17)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from storage.session_rows import Session
from storage.sessions import SessionStore
from tests.e2e.house import House
from tests.flows.conftest import kill
from tests.session_checks import check_against_the_backtest
from tests.waiting import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the engine's processes in /proc"),
]

#: A bar is a third of a second: some 60 bars and what is between them.
REQUEST = {
    "legs": [{"symbol": "AAPL", "strategy": "ma_crossover", "params": {"fast": 3, "slow": 8}}],
    "start": "2010-01-04",
    "end": "2010-12-30",
    "speed": 86_400 * 3.0,
}


@pytest.fixture
def ledgers(house: House) -> Iterator[Engine]:
    with house.database() as engine:
        yield engine


def test_prefect_api_and_worker_killed_in_turn_leave_a_session_whole(
    house: House, ledgers: Engine, figure: Callable[[str], None]
) -> None:
    """At last worker, run and API at once: whatever comes back first, nothing hides that the session is abandoned."""
    run_id = house.json("workflow", "run", "paper_trade", *parameters())["run_id"]
    store = SessionStore(ledgers)

    def session() -> Session | None:
        return next((each for each in store.list(limit=20) if str(each.session_id) == run_id), None)

    def passes(bars: int) -> None:
        before = session()
        wanted = (before.steps if before else 0) + bars
        eventually(lambda: (now := session()) and now.steps >= wanted, seconds=120, what=f"{bars} more bars")

    passes(3)
    told = []
    for part in ("prefect", "api"):
        before = session()
        assert before is not None
        house.kill_part(part)
        passes(3)
        now = session()
        assert now is not None
        assert now.lease_token == before.lease_token, "its run was not to notice"
        told.append(f"{part} killed: {now.steps - before.steps} bars further on under the same lease")
    worker, api = house.pid("worker"), house.pid("api")
    run = house.child_of(run_id)[1]
    for pid in (worker, run, api):
        kill(pid)
    at = store.get(UUID(run_id))
    with ledgers.begin() as connection:  # from here on as fast as it goes
        faster = "UPDATE sessions SET request = (jsonb_set(request::jsonb, '{speed}', '\"max\"'))::json"
        connection.execute(text(f"{faster} WHERE session_id = CAST(:id AS uuid)"), {"id": run_id})
    ended = eventually(
        lambda: now if (now := session()) and now.ended_at else None, seconds=300, what="the session's end"
    )
    house.await_part_after("api", api)
    house.await_state(run_id, {"CRASHED"})
    (holder,) = {each["run_id"] for each in runs_of(house, run_id)}
    house.await_state(holder, {"COMPLETED"})
    certificate = store.get(UUID(run_id)).certificate
    check_against_the_backtest(ledgers, UUID(run_id))
    figure(
        f"a session beside parts that are killed: {', '.join(told)}; its worker, run and the API killed at bar "
        f"{at.steps}, gone on with by itself to bar {ended.steps} in 1 run: same ledger hash 1 / 1, certificate "
        f"{certificate and certificate['verdict']}, stuck runs 0"
    )
    assert at.steps < ended.steps
    assert ended.status == "completed"
    assert certificate is not None
    assert certificate["verdict"] == "equal"


def parameters() -> list[str]:
    """Return the request as the command line takes it."""
    written = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in REQUEST.items()
    }
    return [part for name, value in written.items() for part in ("--param", f"{name}={value}")]


def runs_of(house: House, session_id: str) -> list[dict[str, object]]:
    """Return the runs that went on with a session."""
    items = house.api("GET", "/workflows/runs", params={"name": "paper_trade", "limit": 100}).json()["items"]
    return [each for each in items if each["request"].get("session") == session_id]
