"""The keeper: what it goes on with, leaves, and tells. Runs are real in Prefect; the tests play the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, text

from api.deadman import Deadman
from api.keeper import MOST_DEATHS, Keeper
from api.launcher import Launcher
from api.prefect_server import PrefectServer
from api.run_states import RunStates
from api.session_runs import SessionRuns
from gpt_trader.alerts import AlertRules
from gpt_trader.settings import Home
from storage.alerts import AlertStore, StoredAlert
from storage.cluster import Cluster
from storage.events import Event
from storage.session_care import SessionCare
from storage.session_cases import SessionCases
from storage.session_rows import Lease, Session
from storage.sessions import SessionStore
from storage.tables import LEDGER_EVENTS
from tests.api.account_samples import account_settings
from tests.api.conftest import Engine, Prefect, serving
from tests.api.session_samples import end, expire_lease, written_down


@pytest.fixture(scope="module")
def quiet(prefect: Prefect, postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An API on a database of its own whose own keeper rests: the tests say when one looks."""
    settings, home = account_settings(postgres), Home(tmp_path_factory.mktemp("keeper") / "home")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("api.keeper.EVERY_SECONDS", 3600)
        with serving(settings, home, prefect.url) as engine:
            yield engine


class Kept:
    """One session that a run traded, and a keeper that looks when it is told to."""

    def __init__(self, engine: Engine, prefect: Prefect, session: Session) -> None:
        self.engine, self.prefect, self.id = engine, prefect, session.session_id
        self.store = SessionStore(engine.context.database)
        self.lease: Lease | None = None

    def traded_by(self, run_id: str) -> None:
        """Have a run take the lease, and let it run out."""
        self.prefect.set_state(run_id, "RUNNING")
        self.lease = self.store.lease(self.id, f"run {run_id}", seconds=60)
        expire_lease(self.engine, str(self.id))

    def runs(self) -> list[str]:
        """Return the runs that were started for the session, the newest first."""
        wanted = {"flow_runs": {"tags": {"all_": ["slice:paper_trade"]}}, "sort": "START_TIME_DESC"}
        found = self.prefect.http.post("/flow_runs/filter", json=wanted).raise_for_status().json()
        mine = [each for each in found if each["parameters"]["request"].get("session") == str(self.id)]
        return [each["id"] for each in sorted(mine, key=lambda each: each["created"], reverse=True)]

    def state(self, run_id: str) -> str:
        return str(self.prefect.http.get(f"/flow_runs/{run_id}").json()["state"]["type"])

    def told(self, kind: str) -> list[Event]:
        events = self.engine.events.read("system.events")
        return [each for each in events if each.type == kind and each.data["session_id"] == str(self.id)]

    def alerts(self, rule: str) -> list[StoredAlert]:
        found = AlertStore(self.engine.context.database).list(limit=500)
        return [each for each in found if each.rule == rule and each.about == f"session:{self.id}"]


@pytest.fixture
def kept(quiet: Engine, prefect: Prefect) -> Iterator[Kept]:
    found = Kept(quiet, prefect, written_down(quiet))
    yield found
    end(quiet, found.id)


def looking(kept: Kept, script: Callable[[Keeper], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run a script with a keeper of its own, as another API process would have."""

    async def main() -> None:
        prefect = PrefectServer(kept.prefect.url)
        launcher, events = Launcher(prefect), kept.engine.events
        runs = SessionRuns(launcher, kept.engine.context.runs, RunStates(launcher, events))
        database = kept.engine.context.database
        care, cases, alerts = SessionCare(database), SessionCases(database), AlertStore(database)
        deadman = Deadman(AlertRules(), care, cases, alerts, events)
        try:
            await script(Keeper(care, cases, runs, prefect, deadman, **options))
        finally:
            await prefect.close()

    asyncio.run(main())


def started(kept: Kept, route: str = "/paper-trade/sessions", **request: Any) -> str:
    answer = kept.engine.http.post(route, json=request or {"symbol": "AAPL"})
    run_id: str = answer.json()["run_id"]
    return run_id


def test_an_abandoned_session_gets_one_run_however_many_keepers_look(kept: Kept) -> None:
    first = started(kept)
    kept.traded_by(first)

    async def look(keeper: Keeper) -> None:
        await keeper.look()
        await keeper.look()

    looking(kept, look)
    looking(kept, look)
    (run_id,) = kept.runs()
    assert kept.state(first) == "CRASHED"
    assert kept.engine.http.get(f"/workflows/runs/{run_id}").json()["owner"] == "local"


@pytest.mark.parametrize("keepers", [1, MOST_DEATHS + 3], ids=["one keeper", "a keeper that dies each time"])
def test_a_session_that_keeps_dying_is_left_and_told_once(kept: Kept, keepers: int) -> None:
    """Deaths are counted whoever has seen them: a keeper that begins anew knows of those before."""
    kept.traded_by(started(kept))
    deaths = iter(range(MOST_DEATHS + 3))

    async def die(keeper: Keeper) -> None:
        for _ in range((MOST_DEATHS + 3) // keepers):
            death = next(deaths)
            await keeper.look()
            if death < MOST_DEATHS:
                (newest, *_) = kept.runs()
                if death % 2:  # it dies while it trades; else before it has begun
                    kept.traded_by(newest)
                kept.prefect.set_state(newest, "CRASHED")

    for _ in range(keepers):
        looking(kept, die, first_pause=0.0)
    assert len(kept.runs()) == MOST_DEATHS
    (dead,) = kept.told("session.dead")
    assert dead.data["deaths"] == MOST_DEATHS
    (alert,) = kept.alerts("session_dead")
    assert (alert.severity, alert.owner, alert.data["deaths"]) == ("critical", "local", MOST_DEATHS)


def test_deaths_with_progress_between_them_do_not_count(kept: Kept) -> None:
    kept.traded_by(started(kept))

    async def die(keeper: Keeper) -> None:
        for _ in range(MOST_DEATHS + 2):
            await keeper.look()
            (newest, *_) = kept.runs()
            kept.traded_by(newest)
            kept.prefect.set_state(newest, "CRASHED")
            _grow(kept)

    looking(kept, die, first_pause=0.0)
    assert kept.told("session.dead") == []
    assert len(kept.runs()) == MOST_DEATHS + 2


def test_it_waits_longer_each_time(kept: Kept) -> None:
    kept.traded_by(started(kept))

    async def die(keeper: Keeper) -> None:
        for _ in range(3):
            await keeper.look()
            (newest, *_) = kept.runs()
            kept.prefect.set_state(newest, "CRASHED")

    looking(kept, die, first_pause=3600.0)
    assert len(kept.runs()) == 1


def test_a_session_whose_run_was_cancelled_is_left_until_something_is_asked_of_it(kept: Kept) -> None:
    first = started(kept)
    kept.traded_by(first)
    kept.prefect.set_state(first, "CANCELLED")

    async def look(keeper: Keeper) -> None:
        await keeper.look()

    looking(kept, look)
    long_ago(kept)
    looking(kept, look)
    assert kept.runs() == []
    assert (kept.told("session.dead"), kept.alerts("session_dead")) == ([], [])
    answer = kept.engine.http.post(f"/paper-trade/sessions/{kept.id}/resume").json()
    assert kept.runs() == [answer["run"]["run_id"]]


def test_a_command_that_nobody_has_heard_gets_a_run(kept: Kept) -> None:
    lease = kept.store.lease(kept.id, "run of nobody", seconds=60)
    answer = kept.engine.http.post(f"/paper-trade/sessions/{kept.id}/pause").json()
    assert answer["run"] is None, "somebody trades it"
    kept.store.release(lease)
    with kept.engine.context.database.begin() as connection:
        connection.execute(text("UPDATE session_commands SET at = at - interval '1 min'"))

    async def look(keeper: Keeper) -> None:
        await keeper.look()

    looking(kept, look)
    assert len(kept.runs()) == 1
    care = SessionCare(kept.engine.context.database)
    assert kept.id in {each.session_id for each in care.waiting(timedelta(0))}
    with kept.engine.context.database.begin() as connection:
        done = {"session_id": kept.id, "seq": 1, "type": "command", "data": {}}
        key = f"command:{answer['command_id']}"
        connection.execute(insert(LEDGER_EVENTS).values({**done, "key": key}))
    assert kept.id not in {each.session_id for each in care.waiting(timedelta(0))}


def test_a_run_that_trades_many_sessions_is_not_said_to_have_crashed(kept: Kept) -> None:
    daily = started(kept, "/paper-trade/daily", refresh=False)
    kept.traded_by(daily)

    async def look(keeper: Keeper) -> None:
        await keeper.look()

    looking(kept, look)
    assert len(kept.runs()) == 1
    assert kept.state(daily) == "RUNNING"


def test_a_session_that_nobody_takes_up_is_told_though_prefect_is_away(kept: Kept) -> None:
    """The worker is dead, or the server of the runs: the deadman asks the database alone."""
    kept.traded_by(started(kept))
    long_ago(kept)

    async def look(keeper: Keeper) -> None:
        await keeper._prefect.close()
        keeper._prefect = keeper._runs._launcher._prefect = PrefectServer("http://127.0.0.1:9/api")
        await keeper.look()
        await keeper._prefect.close()

    looking(kept, look)
    looking(kept, look)
    (dead,) = kept.told("session.dead")
    assert dead.data["silent_seconds"] >= 120
    (alert,) = kept.alerts("session_dead")
    assert alert.count == 2, "each of the two keepers raised it: it is one"
    assert kept.runs() == []


def test_a_session_by_schedule_whose_run_died_is_gone_on_with(quiet: Engine, prefect: Prefect) -> None:
    kept = Kept(quiet, prefect, written_down(quiet, feed="schedule"))
    kept.traded_by(started(kept))

    async def look(keeper: Keeper) -> None:
        await keeper.look()

    looking(kept, look)
    assert len(kept.runs()) == 1
    end(quiet, kept.id)


def test_silence_is_told_once(kept: Kept) -> None:
    kept.store.lease(kept.id, "run of a test", seconds=600)
    with kept.engine.context.database.begin() as connection:
        old = "UPDATE sessions SET updated_at = updated_at - interval '2 min' WHERE session_id = :id"
        connection.execute(text(old), {"id": kept.id})

    async def look(keeper: Keeper) -> None:
        await keeper.look()
        await keeper.look()

    looking(kept, look)
    looking(kept, look)
    (silent,) = kept.told("session.silent")
    assert silent.data["silent_seconds"] >= 120
    assert [each.severity for each in kept.alerts("session_silent")] == ["error"]
    assert UUID(silent.data["session_id"]) == kept.id
    assert kept.runs() == []


def long_ago(kept: Kept) -> None:
    with kept.engine.context.database.begin() as connection:
        gone = "UPDATE sessions SET lease_until = lease_until - interval '2 min' WHERE session_id = :id"
        connection.execute(text(gone), {"id": kept.id})


def _grow(kept: Kept) -> None:
    with kept.engine.context.database.begin() as connection:
        grown = "UPDATE sessions SET seq = seq + 1 WHERE session_id = :id"
        connection.execute(text(grown), {"id": kept.id})
