"""A ledger whose server loses its disk or its life in the middle of a commit (faults row 6).

Three ways to it, on a server of this test's own that does sync: the system call that syncs the write-ahead log fails
with EIO (injected by strace into the session's backend: PostgreSQL panics and recovers, as it must after a failed
fsync), that backend is killed, or the whole server is. What is proven: an event that was acknowledged is there
afterwards; nothing is sent of a commit that was not acknowledged; the session is taken up to the same ledger. Not: that
a disk which said it had synced has. Nothing but pulling a plug shows that.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from gpt_trader.settings import Home, Settings
from gpt_trader.simulation import kernel
from gpt_trader.trading.desk import Desk
from gpt_trader.trading.events import LedgerEvent
from gpt_trader.trading.feed import moments
from gpt_trader.trading.ledger import Journal, Ledger
from gpt_trader.trading.orders import Order
from gpt_trader.trading.paper_broker import PaperBroker
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.trading.trader import Trader
from storage import database as databases
from storage.cluster import SUPERUSER, Cluster, processes_in, running
from storage.ledger_commit import LedgerConnection
from storage.preparation import prepare
from storage.session_ledger import SessionJournal, load
from storage.sessions import SessionStore
from tests.trading_samples import opening, random_session, traded, warm_of
from tests.waiting import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the server's processes in /proc"),
]

STRACE = shutil.which("strace")
SEED = 6
FAULTS = 8


class Server:
    """A PostgreSQL of its own that syncs, started again whenever it is gone."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.cluster: Cluster = prepare(home)
        self._admin = self.cluster.url("postgres", role=SUPERUSER)
        self._log = (home.root / "postgres.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        self.hit = False
        self.ready()
        databases.ensure_databases(Settings(), home)
        self.engine: Engine = databases.engine_of_its_own(databases.app_url(Settings(), home))
        databases.migrate(self.engine)

    def ready(self, after: int = 0) -> None:
        """Wait until it answers, having become ready more often than `after` times."""
        environment = {**os.environ, "GPT_TRADER_HOME": str(self._home.root)}
        command = [sys.executable, "-P", "-m", "storage.postgres"]

        def answers() -> bool:
            # As the engine's supervisor does. The first one may find the killed one's pid not buried yet, and refuse.
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log)
            if self.lives <= after:
                return False
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self._admin):
                return True
            return False

        eventually(answers, seconds=60, what="a server that answers")

    def kill(self) -> None:
        """Kill all of it at once, the small process in front of it too."""
        assert self._process is not None
        found = running(self.cluster)
        for pid in (self._process.pid, *([found.pid] if found else []), *processes_in(self.cluster.data)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(30)
        eventually(lambda: not processes_in(self.cluster.data), what="the end of the server's processes")

    def close(self) -> None:
        assert self._process is not None
        self.engine.dispose()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self._log.close()

    @property
    def lives(self) -> int:
        """How often it has become ready, at its start or after a crash of one of its processes."""
        return self.log.count("database system is ready to accept connections")

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text(errors="replace")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(Home(tmp_path_factory.mktemp("sync") / "home"))
    yield one
    one.close()


class Sent(PaperBroker):
    """A paper broker that remembers what it was sent."""

    def __init__(self, request: PaperTradeRequest, ids: list[str]) -> None:
        super().__init__(kernel.costs_of(request), request.participation)
        self.ids = ids

    def submit(self, order: Order) -> None:
        self.ids.append(order.id)
        super().submit(order)


class Watched(Journal):
    """A journal that remembers what was acknowledged, and has something happen around its n-th commit."""

    def __init__(
        self, journal: SessionJournal, acknowledged: list[LedgerEvent], happens: Callable[[int], None]
    ) -> None:
        self._journal, self._acknowledged, self._happens = journal, acknowledged, happens
        self._commits = 0
        self._coming: list[LedgerEvent] = []

    def append(self, events: Sequence[LedgerEvent], ledger: Ledger) -> None:
        self.flush()
        self._commits += 1
        self._happens(self._commits)
        self._journal.append(events, ledger)
        self._coming = list(events)

    def flush(self) -> None:
        coming, self._coming = self._coming, []
        self._journal.flush()
        self._acknowledged += coming


def injected(pid: int, nth: int, tracing: list[subprocess.Popen[bytes]]) -> None:
    """Have the process's n-th sync from now on fail; return once it is so."""
    assert STRACE is not None
    what = ["-e", "trace=fsync,fdatasync", "-e", f"inject=fsync,fdatasync:error=EIO:when={nth}"]
    one = subprocess.Popen([STRACE, "-qq", *what, "-p", str(pid)], stderr=subprocess.DEVNULL)
    tracing.append(one)

    def traced() -> bool:
        if one.poll() is not None:
            pytest.skip("this user may not trace the server's processes")
        return f"TracerPid:\t{one.pid}\n" in Path(f"/proc/{pid}/status").read_text()

    eventually(traced, what="strace at the backend")


def fault(
    how: str, server: Server, journal: SessionJournal, chance: random.Random, helpers: list[Any]
) -> Callable[[int], None]:
    """Return what makes it happen around a commit that chance chooses."""
    connection = journal._connection = LedgerConnection(server.engine)
    pid = connection._connection.info.backend_pid
    nth = chance.randint(1, 12)
    if how == "EIO":
        injected(pid, nth, helpers)
        return lambda number: None

    def later() -> None:
        with contextlib.suppress(ProcessLookupError):
            server.kill() if how == "server killed" else os.kill(pid, signal.SIGKILL)
            server.hit = True

    def happens(number: int) -> None:
        if number == nth:
            timer = threading.Timer(chance.random() * 0.004, later)
            helpers.append(timer)
            timer.start()

    return happens


def trade_until_it_fails(
    server: Server, session_id: UUID, acknowledged: list[LedgerEvent], sent: list[str], happens: Any
) -> bool:
    """Trade on from what is stored; return whether the database failed before the session's end."""
    request, strategies, bars = random_session(SEED)
    store = SessionStore(server.engine)
    ledger, _ = load(server.engine, session_id)
    stored = [(e.type, dict(e.data)) for e in store.events(session_id, limit=10**6)]
    assert stored[: len(acknowledged)] == [(e.type, dict(e.data)) for e in acknowledged], (
        "acknowledged, and gone"
    )
    acknowledged[:] = [LedgerEvent(kind, data) for kind, data in stored]
    journal = SessionJournal(server.engine, store.lease(session_id, "here"), ledger.seq)
    broker = Sent(request, sent)
    trader = Trader(
        Desk(request, strategies), ledger, broker, Watched(journal, acknowledged, happens(journal))
    )
    try:
        if not ledger.seq:
            trader.open(opening(request))
        broker.restore(trader.state)
        trader.resume()
        for moment in moments(bars):
            if not trader.state.over and (trader.state.time is None or moment.time > trader.state.time):
                trader.step(moment)
        if not trader.state.over:
            trader.finish("completed", "its range has ended")
    except DBAPIError:
        return True
    finally:
        with contextlib.suppress(DBAPIError):
            journal.close()
    return False


@pytest.mark.parametrize("how", ["EIO", "backend killed", "server killed"])
def test_what_was_acknowledged_outlives_a_commit_that_failed(
    server: Server, how: str, figure: Callable[[str], None]
) -> None:
    if how == "EIO" and STRACE is None:
        pytest.skip("no strace on this machine")
    request, strategies, bars = random_session(SEED)
    store, session_id = SessionStore(server.engine), uuid4()
    document = request.model_dump(mode="json")
    store.create(session_id, "me", "paper_trade", document, warm_of(bars), name="one", capital="10000")
    chance, panics = random.Random(17), server.log.count("PANIC")
    acknowledged: list[LedgerEvent] = []
    sent: list[str] = []
    faults = 0
    while not store.get(session_id).ended_at:
        helpers: list[Any] = []
        quiet = faults >= FAULTS

        def happens(journal: SessionJournal, helpers: list[Any] = helpers, quiet: bool = quiet) -> Any:
            return (lambda number: None) if quiet else fault(how, server, journal, chance, helpers)

        lives, server.hit = server.lives, False
        failed = trade_until_it_fails(server, session_id, acknowledged, sent, happens)
        faults += failed
        orders = {each.data["id"] for each in acknowledged if each.type == "order"}
        assert set(sent) <= orders, "sent, and not acknowledged"
        for each in helpers:
            if isinstance(each, threading.Timer):
                each.join()
            else:
                each.terminate()
                each.wait(30)
        server.engine.dispose()
        server.ready(lives if failed or server.hit else 0)
    session = traded(request, strategies, bars)
    if not session.trader.state.over:
        session.trader.finish("completed", "its range has ended")
    assert store.get(session_id).ledger_hash == session.trader.ledger.hash
    if how == "EIO":
        assert server.log.count("PANIC") - panics >= faults
    figure(
        f"a commit's server fails ({how}) {faults} times: acknowledged and lost 0 of {len(acknowledged)} events, sent "
        "and not acknowledged 0, same ledger hash 1 / 1"
    )
    assert faults == FAULTS
