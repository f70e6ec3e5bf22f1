"""A paper session in a whole house whose parts die in turn (faults row 17)."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from gpt_trader.settings import Settings
from gpt_trader.strategies import registry
from gpt_trader.trading.certificate import replay
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.validation import validated
from storage import database
from storage.session_ledger import load, warm_bars
from storage.sessions import SessionStore, ledger_event
from tests.e2e.house import FINAL, House
from tests.waiting import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the engine's processes in /proc"),
]

#: A bar is a third of a second: some 60 bars and what is between them.
REQUEST = {
    "legs": [{"symbol": "AAPL", "strategy": "ma_crossover", "params": {"fast": 3, "slow": 8}}],
    "start": "2010-01-04",
    "end": "2010-12-30",
    "speed": 86_400 * 3.0,
}


def uninterrupted(engine: Engine, session_id: str, store: SessionStore) -> str:
    """Return the hash that the session's inputs lead to when nothing happens."""
    session = store.get(store.list(limit=1)[0].session_id)
    assert str(session.session_id) == session_id
    events = [ledger_event(each) for each in store.events(session.session_id, limit=10**6)]
    request = validated(PaperTradeRequest, session.request)
    strategies = [
        registry.build(registry.strategy_type(leg.strategy), leg.params, request.direction)
        for leg in request.legs
    ]
    history = warm_bars(engine, session.session_id)
    warm = {symbol: history.bars(symbol)[0] for symbol in request.symbols}
    return replay(request, strategies, warm, events)[1]


def test_prefect_api_and_worker_killed_in_turn_leave_a_session_whole(
    house: House, figure: Callable[[str], None]
) -> None:
    run_id = start(house, REQUEST)
    engine = database.engine_for(database.app_url(Settings(), house.home))
    store = SessionStore(engine)

    def steps() -> int:
        found = store.list(limit=1)
        return found[0].steps if found and str(found[0].session_id) == run_id else 0

    def passes(bars: int) -> None:
        wanted = steps() + bars
        eventually(lambda: steps() >= wanted, seconds=120, what=f"{bars} more bars")

    passes(3)
    told = []
    for part in ("prefect", "api"):
        before = steps()
        house.kill_part(part)
        told.append(f"{part} back after {steps() - before} bars of the session")
        passes(3)
    house.kill_part("worker")
    eventually(
        lambda: house.prefect("GET", f"/flow_runs/{run_id}")["state"]["type"] in FINAL,
        seconds=60,
        what="the end of the run whose worker was killed",
    )
    at = steps()
    eventually(store.abandoned, seconds=60, what="a lease that has run out")
    # From here on as fast as it goes.
    database_speed(engine, run_id)
    again = start(house, {"session": run_id})
    eventually(
        lambda: house.prefect("GET", f"/flow_runs/{again}")["state"]["type"] in FINAL,
        seconds=180,
        what="the end of the session",
    )
    session = store.list(limit=1)[0]
    ledger, _ = load(engine, session.session_id, snapshots=False)
    equal = uninterrupted(engine, run_id, store) == ledger.hash == session.ledger_hash
    figure(
        f"a session beside parts that are killed: {', '.join(told)}; its worker killed at bar {at}, gone on with to "
        f"bar {session.steps}: same ledger hash {int(equal)} / 1, certificate {(session.certificate or {})['verdict']}"
    )
    assert equal
    assert session.status == "completed"
    assert (session.certificate or {})["verdict"] == "equal"
    engine.dispose()


def start(house: House, request: dict[str, object]) -> str:
    deployment = house.prefect("GET", "/deployments/name/paper_trade/paper_trade")
    made = house.prefect(
        "POST",
        f"/deployments/{deployment['id']}/create_flow_run",
        json={"parameters": {"request": request}, "state": {"type": "SCHEDULED"}},
    )
    return str(made["id"])


def database_speed(engine: Engine, run_id: str) -> None:
    from sqlalchemy import text

    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE sessions SET request = (jsonb_set(request::jsonb, '{speed}', '\"max\"'))::json "
                "WHERE session_id = CAST(:id AS uuid)"
            ),
            {"id": run_id},
        )
