"""A full disk under the ledger: nothing is acknowledged that is not there, and what was is (faults row 6)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import OperationalError

from gpt_trader.trading.desk import Desk
from gpt_trader.trading.feed import moments
from gpt_trader.trading.trader import Trader
from storage.cluster import SUPERUSER, Cluster
from storage.session_ledger import SessionJournal, load
from storage.sessions import SessionStore
from tests.trading_samples import opening, paper_broker, random_session, traded, warm_of


@pytest.fixture
def small_disk(postgres: Cluster) -> Iterator[Path]:
    """Give a file system of 640 kB that the server may write to."""
    place = Path(tempfile.mkdtemp(prefix="gt-disk-"))
    owner = postgres.data.stat()
    options = f"size=640k,uid={owner.st_uid},gid={owner.st_gid},mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        place.rmdir()
        pytest.skip("this user may not mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", place], check=True)
    place.rmdir()


@pytest.fixture
def on_small_disk(small_disk: Path, postgres: Cluster, database: URL) -> Iterator[Path]:
    """Have the ledgers of the test's database on that disk."""
    name = f"small_{os.getpid()}"
    with psycopg.connect(postgres.url("postgres", role=SUPERUSER), autocommit=True) as admin:
        admin.execute(f"CREATE TABLESPACE {name} LOCATION '{small_disk}'".encode())
    of_database = postgres.url(str(database.database), role=SUPERUSER)
    with psycopg.connect(of_database, autocommit=True) as admin:
        for index in ("ledger_events_pkey", "ledger_events_key_idx", "ledger_events_type_idx"):
            admin.execute(f"ALTER INDEX {index} SET TABLESPACE {name}".encode())
        admin.execute(f"ALTER TABLE ledger_events SET TABLESPACE {name}".encode())
    yield small_disk
    with psycopg.connect(of_database, autocommit=True) as admin:
        admin.execute("DROP TABLE ledger_events CASCADE")
    with psycopg.connect(postgres.url("postgres", role=SUPERUSER), autocommit=True) as admin:
        admin.execute(f"DROP TABLESPACE {name}".encode())


def test_a_full_disk_ends_a_session_and_loses_nothing_that_was_acknowledged(
    on_small_disk: Path, engine: Engine, figure: Callable[[str], None]
) -> None:
    request, strategies, bars = random_session(4)
    store, session_id, warm = SessionStore(engine), uuid4(), warm_of(bars)
    document = request.model_dump(mode="json")
    store.create(session_id, "me", "paper_trade", document, warm, name="one", capital="10000")
    ballast = on_small_disk / "ballast"
    said: list[str] = []
    acknowledged = 0
    while not store.get(session_id).ended_at:
        ledger, _ = load(engine, session_id)
        assert ledger.seq >= acknowledged, "an event that was acknowledged is gone"
        lease = store.lease(session_id, "here")
        journal = SessionJournal(engine, lease, ledger.seq)
        broker = paper_broker(request)
        trader = Trader(Desk(request, strategies), ledger, broker, journal)
        try:
            if not ledger.seq:
                trader.open(opening(request))
            broker.restore(trader.state)
            trader.resume()
            if not ballast.exists() and len(said) < 3:
                ballast.write_bytes(bytes(shutil.disk_usage(on_small_disk).free // 4096 * 4096))
            for moment in moments(bars):
                if not trader.state.over and (trader.state.time is None or moment.time > trader.state.time):
                    trader.step(moment)
            if not trader.state.over:
                trader.finish("completed", "its range has ended")
        except OperationalError as error:
            said.append(str(error))
            ballast.unlink()
        finally:
            acknowledged = journal.seq
            journal.close()
            store.release(lease)
    session = traded(request, strategies, bars)
    if not session.trader.state.over:
        session.trader.finish("completed", "its range has ended")
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT count(*) FROM ledger_events")).scalar()
    figure(
        f"disk full under a ledger {len(said)} times: acknowledged and lost 0, {stored} events, hash equal to an "
        "uninterrupted session's"
    )
    assert len(said) >= 2
    assert all("No space left on device" in each for each in said)
    assert store.get(session_id).ledger_hash == session.trader.ledger.hash
    assert stored == session.trader.ledger.seq
