"""A database that is away while a run keeps its result: it refuses everybody, as one that is starting does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from optuna.trial import create_trial
from psycopg import sql
from sqlalchemy import URL, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from gpt_trader.errors import NotFound
from gpt_trader.settings import Home
from storage import outages
from storage.cluster import SUPERUSER, Cluster
from storage.runs import RunOutput, RunStore
from storage.studies import StudyStore

OUTPUT = RunOutput("hash", {"metrics": {"sharpe": 1.0}})


class Door:
    """Opens and shuts a database to all connections."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster, self._name = cluster, name

    def set(self, *, open_: bool) -> None:
        allowed = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        with psycopg.connect(self._cluster.url("postgres", role=SUPERUSER), autocommit=True) as admin:
            admin.execute(allowed.format(sql.Identifier(self._name), sql.Literal(open_)))
            if not open_:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self._name]
                )

    @contextmanager
    def shut(self) -> Iterator[None]:
        self.set(open_=False)
        yield
        self.set(open_=True)


@pytest.fixture
def door(postgres: Cluster, database: URL) -> Iterator[Door]:
    made = Door(postgres, str(database.database))
    yield made
    made.set(open_=True)


@pytest.fixture
def tries(door: Door, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made; the database is back in the third."""
    made: list[float] = []

    def pause(seconds: float) -> None:
        made.append(seconds)
        if len(made) == 3:
            door.set(open_=True)

    monkeypatch.setattr(outages, "_sleep", pause)
    return made


def test_a_store_with_patience_keeps_a_result_when_the_database_is_back(
    door: Door, engine: Engine, tmp_path: Path, tries: list[float]
) -> None:
    store = RunStore(engine, Home(tmp_path), patience=60)
    run_id = uuid4()
    store.register(run_id, "backtest", "alice", {"symbol": "AAPL"})
    door.set(open_=False)
    store.save_result(run_id, OUTPUT)
    assert len(tries) == 3
    assert store.get(run_id).result_hash == "hash"


def test_the_trials_of_a_search_wait_too(door: Door, engine: Engine, tries: list[float]) -> None:
    trials = [create_trial(value=1.0)]
    studies = StudyStore(engine, patience=60)
    assert studies.add("one", trials, 0) == 1
    door.set(open_=False)
    assert studies.add("two", trials, 0) == 1
    assert len(tries) == 3
    assert studies.names() == ["one", "two"]


def test_patience_ends(door: Door, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr(outages, "_now", lambda: float(next(now)))
    monkeypatch.setattr(outages, "_sleep", lambda _: None)
    store = RunStore(engine, Home(tmp_path), patience=5)
    with door.shut(), pytest.raises(OperationalError):
        store.get(uuid4())
    assert next(now) == 6


def test_without_patience_the_first_answer_counts(door: Door, engine: Engine, tmp_path: Path) -> None:
    store = RunStore(engine, Home(tmp_path))
    with door.shut(), pytest.raises(OperationalError):
        store.get(uuid4())
    with pytest.raises(NotFound):
        store.get(uuid4())


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (OperationalError("", {}, psycopg.OperationalError("server closed the connection")), True),
        (OperationalError("", {}, psycopg.errors.AdminShutdown()), True),
        (OperationalError("", {}, psycopg.errors.CannotConnectNow()), True),
        (InterfaceError("", {}, psycopg.InterfaceError("the connection is closed")), True),
        (OperationalError("", {}, psycopg.errors.DiskFull()), False),
        (OperationalError("", {}, psycopg.errors.QueryCanceled()), False),
        (OperationalError("", {}, psycopg.errors.DeadlockDetected()), False),
        (IntegrityError("", {}, psycopg.errors.UniqueViolation()), False),
    ],
)
def test_being_away_is_told_from_other_errors(error: DBAPIError, away: bool) -> None:
    assert outages.is_away(error) is away
