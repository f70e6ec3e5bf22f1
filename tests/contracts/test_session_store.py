"""Ledgers in PostgreSQL: one writer at a time, all or nothing, found again whole or not at all (rows 7, 15, 16)."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import IntegrityError

from gpt_trader.crash_points import KILLED
from gpt_trader.errors import Conflict, GptTraderError, NotFound
from gpt_trader.trading.desk import Desk, status
from gpt_trader.trading.events import LedgerEvent
from gpt_trader.trading.feed import moments
from gpt_trader.trading.ledger import Ledger
from gpt_trader.trading.trader import Trader
from storage import sessions
from storage.events import EventLog
from storage.session_care import SessionCare
from storage.session_ledger import SessionJournal, load, save_snapshot
from storage.session_stream import TRADES, Account, Publisher, portfolio_channel, trades_channel
from storage.session_views import SessionViews
from storage.sessions import SessionStore
from tests.trading_samples import opening, paper_broker, random_session, traded, warm_of
from tests.waiting import eventually

CRASH_POINTS = (
    "session.before_send",
    "session.after_send",
    "session.before_close",
    "ledger.before_commit",
    "ledger.sent",
    "ledger.after_commit",
)
#: In the thread that tells the streams, beside the one that trades.
STREAM_CRASH_POINTS = ("events.before_commit", "events.before_announcement")
SEED = 4


@pytest.fixture
def store(engine: Engine) -> SessionStore:
    return SessionStore(engine)


def created(store: SessionStore, seed: int = SEED) -> UUID:
    """Write down the session of a seed."""
    request, _, bars = random_session(seed)
    session_id = uuid4()
    document = request.model_dump(mode="json")
    store.create(session_id, "somebody", "paper_trade", document, warm_of(bars), name="one", capital="10000")
    return session_id


def taken(store: SessionStore, session_id: UUID, seed: int = SEED, *, bars: int = 10**9) -> Ledger:
    """Trade a session's next bars here, to its end or so many."""
    request, strategies, series = random_session(seed)
    lease = store.lease(session_id, "here")
    ledger, snapshot = load(store.engine, session_id)
    journal = SessionJournal(store.engine, lease, ledger.seq, snapshot_at=snapshot)
    broker = paper_broker(request)
    trader = Trader(Desk(request, strategies), ledger, broker, journal)
    if not ledger.seq:
        trader.open(opening(request))
    broker.restore(trader.state)
    trader.resume()
    coming = [m for m in moments(series) if trader.state.time is None or m.time > trader.state.time]
    for moment in coming[:bars]:
        if not trader.state.over:
            trader.step(moment)
    if bars >= len(coming) and not trader.state.over:
        trader.finish("completed", "its range has ended")
    journal.close()
    store.release(lease)
    return ledger


def in_memory(seed: int = SEED) -> Ledger:
    """Return the ledger of a session that nothing happens to."""
    session = traded(*random_session(seed))
    if not session.trader.state.over:
        session.trader.finish("completed", "its range has ended")
    return session.trader.ledger


def worker(
    url: URL, session_id: UUID, holder: str, seed: int = SEED, gate: str = "", crash_at: str = ""
) -> subprocess.Popen[str]:
    arguments = [url.render_as_string(hide_password=False), str(session_id), holder, str(seed), gate]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.contracts.session_worker", *arguments],
        env={**os.environ, "GPT_TRADER_CRASH_AT": crash_at, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_stored_session_is_the_one_in_memory(store: SessionStore) -> None:
    session_id = created(store)
    ledger = taken(store, session_id)
    assert ledger.hash == in_memory().hash
    row = store.get(session_id)
    assert (row.status, row.seq, row.ledger_hash) == ("completed", ledger.seq, ledger.hash)
    assert (row.cash, row.steps, row.fills) == (
        format(ledger.state.cash, "f"),
        ledger.state.steps,
        ledger.state.fills,
    )
    assert row.ended_at is not None
    assert (row.lease_holder, row.lease_until) == (None, None)
    found, _ = load(store.engine, session_id, snapshots=False)
    assert (found.state, found.hash) == (ledger.state, ledger.hash)


def test_taken_up_in_pieces_with_and_without_snapshots_it_is_the_same(store: SessionStore) -> None:
    session_id = created(store)
    while not store.get(session_id).ended_at:
        taken(store, session_id, bars=7)
        plain, begun = load(store.engine, session_id, snapshots=False)
        save_snapshot(store.engine, session_id, plain)
        assert begun == 0
        short, begun = load(store.engine, session_id)
        assert begun == plain.seq
        assert (short.state, short.hash, short.seq) == (plain.state, plain.hash, plain.seq)
        for symbol in plain.history.symbols:
            assert short.history.bars(symbol)[0].time.tolist() == plain.history.bars(symbol)[0].time.tolist()
    assert store.get(session_id).ledger_hash == in_memory().hash


def test_a_second_writer_is_refused_and_one_with_an_old_token_writes_nothing(store: SessionStore) -> None:
    session_id = created(store)
    first = store.lease(session_id, "run a")
    with pytest.raises(Conflict, match=r"is traded by run a until .* UTC: one at a time may"):
        store.lease(session_id, "run b")
    again = store.lease(session_id, "run a")  # the same run, tried again
    assert again.token == first.token + 1
    old, new = (SessionJournal(store.engine, lease, 0) for lease in (first, again))
    ledger, request = Ledger({}), random_session(SEED)[0]
    event = opening(request)
    ledger.take(event)
    with pytest.raises(Conflict, match="writes nothing"):
        old.commit([event], ledger)
    assert store.events(session_id) == ()
    new.commit([event], ledger)
    assert [each.type for each in store.events(session_id)] == ["opened"]
    behind = SessionJournal(store.engine, again, 0)  # right token, but it does not know of the event
    with pytest.raises(Conflict):
        behind.commit([LedgerEvent("command", {"n": 1})], ledger)
    with pytest.raises(Conflict):
        store.renew(first)
    store.renew(again)
    store.release(first)  # not its any more: nothing happens
    with pytest.raises(Conflict):
        store.lease(session_id, "run b")
    store.release(again)
    assert store.lease(session_id, "run b").token == again.token + 1
    for journal in (old, new, behind):
        journal.close()


def test_a_lease_that_ran_out_can_be_taken(store: SessionStore) -> None:
    session_id = created(store)
    store.lease(session_id, "run a", seconds=-1)
    care = SessionCare(store.engine)
    assert [each.session_id for each, _ in care.abandoned()] == [session_id]
    assert store.lease(session_id, "run b").holder == "run b"
    assert care.abandoned() == ()
    with pytest.raises(NotFound):
        store.lease(uuid4(), "run b")


def test_a_key_is_in_a_ledger_once_and_a_commit_is_all_or_nothing(store: SessionStore) -> None:
    session_id = created(store)
    ledger = taken(store, session_id, bars=3)
    lease = store.lease(session_id, "here")
    journal = SessionJournal(store.engine, lease, ledger.seq)
    before = store.get(session_id)
    fresh = LedgerEvent("command", {"command": "pause", "by": "me", "flatten": False}, key="command:1")
    with pytest.raises(IntegrityError, match="ledger_events_key_idx"):
        journal.commit([fresh, LedgerEvent("opened", {}, key="opened")], ledger)
    journal.close()
    after = store.get(session_id)
    assert (after.seq, after.ledger_hash) == (before.seq, before.ledger_hash)
    assert len(store.events(session_id)) == before.seq


TAMPERINGS = {
    "a fill's price": "UPDATE ledger_events SET data = (jsonb_set(data::jsonb, '{price}', '\"1\"'))::json "
    "WHERE type = 'fill' AND seq = (SELECT min(seq) FROM ledger_events WHERE type = 'fill')",
    "an event that is gone": "DELETE FROM ledger_events WHERE seq = (SELECT max(seq) FROM ledger_events)",
    "the hash": "UPDATE sessions SET ledger_hash = repeat('0', 64)",
    "a bar": "UPDATE ledger_events SET data = replace(data::text, '1000000.0', '1000001.0')::json "
    "WHERE type = 'bars' AND seq = (SELECT max(seq) FROM ledger_events WHERE type = 'bars')",
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_a_row_that_was_changed_is_found(store: SessionStore, what: str) -> None:
    session_id = created(store)
    taken(store, session_id)
    load(store.engine, session_id)
    with store.engine.begin() as connection:
        assert connection.execute(text(TAMPERINGS[what])).rowcount == 1
    with pytest.raises((GptTraderError, ValueError), match=r"damaged|does not add up|follow"):
        load(store.engine, session_id)


def test_a_damaged_snapshot_is_not_believed(store: SessionStore) -> None:
    session_id = created(store)
    ledger = taken(store, session_id)
    save_snapshot(store.engine, session_id, ledger)
    with store.engine.begin() as connection:
        connection.execute(
            text("UPDATE session_snapshots SET state = (jsonb_set(state::jsonb, '{cash}', '\"1e6\"'))::json")
        )
    found, begun = load(store.engine, session_id)
    assert (begun, found.state, found.hash) == (0, ledger.state, ledger.hash)


def test_reading_while_a_writer_makes_snapshots_is_no_damage(store: SessionStore) -> None:
    """The row, the snapshot and the events that are read are of one moment."""
    session_id = created(store)
    taken(store, session_id, bars=5)
    began = threading.Event()
    damages: list[str] = []

    def read() -> None:
        while not ended.is_set():
            try:
                load(store.engine, session_id)
            except GptTraderError as error:
                damages.append(error.detail)
                return
            began.set()

    ended = threading.Event()
    reader = threading.Thread(target=read)
    reader.start()
    began.wait(30)
    while not store.get(session_id).ended_at and not damages:
        save_snapshot(store.engine, session_id, taken(store, session_id, bars=1))
    ended.set()
    reader.join()
    assert damages == []


def test_all_open_sessions_are_read_however_many(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    views, owner = SessionViews(store.engine), f"owner of {uuid4()}"
    request = random_session(SEED)[0].model_dump(mode="json")
    ids = [uuid4() for _ in range(7)]
    for session_id in ids:
        store.create(session_id, owner, "paper_trade", request, {}, name="one", capital="10000")
    monkeypatch.setattr(sessions, "OPEN_PAGE", 3)
    assert [each.session_id for each in views.open_sessions(owner)] == ids[::-1]
    assert [UUID(each["session_id"]) for each in views.standings(owner)] == ids[::-1]


def test_accounts_that_are_read_together_are_those_that_are_read_alone(store: SessionStore) -> None:
    """With and without a snapshot, holding something or nothing, begun or not."""
    views = SessionViews(store.engine)
    ids = [created(store, seed) for seed in (SEED, 5, 6, 7)]
    for session_id, seed, bars in zip(ids, (SEED, 5, 6), (3, 20, 30), strict=False):
        taken(store, session_id, seed, bars=bars)
    states = {each.session_id: state for each, state in views.accounts("somebody")}
    assert [states[each] for each in ids if each in states] == [
        views.account(each) for each in ids if each in states
    ]
    assert sum(each in states for each in ids) >= 2


def test_commands_are_obeyed_once_each(store: SessionStore) -> None:
    session_id = created(store)
    ledger = taken(store, session_id, bars=3)
    asked = [store.command(session_id, name, "me") for name in ("pause", "resume", "pause")]
    assert [each.id for each in store.commands(session_id)] == asked
    request, strategies, _ = random_session(SEED)
    lease = store.lease(session_id, "here")
    journal = SessionJournal(store.engine, lease, ledger.seq)
    broker = paper_broker(request)
    broker.restore(ledger.state)
    trader = Trader(Desk(request, strategies), ledger, broker, journal)
    for command in store.commands(session_id):
        trader.command(command.command, command.by, key=f"command:{command.id}")
    assert store.commands(session_id) == ()
    assert store.get(session_id).status == "paused"
    done = store.events(session_id, types=["command"])
    assert [each.data["command"] for each in done] == ["pause", "resume", "pause"]
    trader.finish("stopped", "enough")
    with pytest.raises(Conflict, match="it takes no commands"):
        store.command(session_id, "pause", "me")
    journal.close()


def test_a_publisher_whose_database_is_away_ends_when_it_is_closed(store: SessionStore) -> None:
    from sqlalchemy import create_engine

    session_id = created(store)
    nowhere = create_engine(
        "postgresql+psycopg://nobody@127.0.0.1:9/none", connect_args={"connect_timeout": 1}
    )
    publisher = Publisher(SessionStore(nowhere), EventLog(nowhere), session_id, "somebody")
    publisher.start(0, 0)
    publisher.put(1, [status("paused", "x")], Account.of(Ledger({}).state))
    begun = time.monotonic()
    publisher.close(20)
    assert time.monotonic() - begun < 10
    assert not publisher._thread.is_alive()
    nowhere.dispose()


def test_a_holder_that_was_stopped_past_its_lease_writes_nothing(
    store: SessionStore, database: URL, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Row 16: SIGSTOP, its lease runs out, another trades the session to its end, SIGCONT: it is told so."""
    session_id = created(store)
    holder = worker(database, session_id, "run a", gate=str(tmp_path))
    eventually((tmp_path / "ready").exists, seconds=60, what="a session under way")
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(Conflict):
        store.lease(session_id, "run b")
    with store.engine.begin() as connection:  # what waiting for 15 s does
        late = "UPDATE sessions SET lease_until = clock_timestamp() - interval '1 s' WHERE session_id = :id"
        connection.execute(text(late), {"id": session_id})
    ended = answer(worker(database, session_id, "run b"))
    (tmp_path / "go").touch()
    holder.send_signal(signal.SIGCONT)
    late = answer(holder)
    assert "writes nothing" in late["conflict"]
    row = store.get(session_id)
    assert (row.ledger_hash, row.seq) == (ended["hash"], ended["seq"])
    assert ended["hash"] == in_memory().hash
    figure(f"a holder stopped past its lease: events written by it afterwards {row.seq - ended['seq']}")


class Nursery:
    """Forks workers, which may be killed; they trade in the database `url`."""

    url = ""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.contracts.session_worker"],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, session_id: UUID, seed: int, crash_at: str = "") -> int:
        """Have a session traded; return the pid of the process that does it."""
        assert self._process.stdin is not None
        self._process.stdin.write(
            json.dumps([self.url, str(session_id), "run", str(seed), "", crash_at]) + "\n"
        )
        self._process.stdin.flush()
        return self.said()

    def said(self) -> int:
        """Return the next number that is said: behind a pid the exit status (after a kill: -9)."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    one = Nursery()
    yield one
    one.close()


@pytest.fixture
def nursery_of_sessions(nursery: Nursery, database: URL) -> Nursery:
    nursery.url = database.render_as_string(hide_password=False)
    return nursery


def killed_sessions(store: SessionStore, nursery: Nursery, wanted: int) -> tuple[int, int]:
    """Kill so many sessions' processes after random numbers of events; return kills, and ledgers that are equal."""
    chance, seed, done, killed, equal = random.Random(15), 100, 0, 0, 0
    while killed < wanted:
        seed += 1
        session_id, whole = created(store, seed), in_memory(seed)
        kills, aims = 0, chance.randint(1, 2)
        while not store.get(session_id).ended_at:
            pid = nursery.begin(session_id, seed)
            if kills < aims:
                aim = chance.randint(store.get(session_id).seq, whole.seq - 1)

                def far_enough(aim: int = aim, session_id: UUID = session_id) -> bool:
                    row = store.get(session_id)
                    return row.seq >= aim or row.ended_at is not None

                eventually(far_enough, seconds=60, what="events")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            kills += nursery.said() != 0
        done += kills
        killed += kills > 0
        equal += kills > 0 and store.get(session_id).ledger_hash == whole.hash
    return done, equal


def test_a_stored_session_that_is_killed_has_the_same_ledger(
    store: SessionStore, nursery_of_sessions: Nursery
) -> None:
    _, equal = killed_sessions(store, nursery_of_sessions, 3)
    assert equal == 3


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_hundred_killed_sessions_have_the_same_ledgers(
    store: SessionStore, nursery_of_sessions: Nursery, figure: Callable[[str], None]
) -> None:
    """Row 15: SIGKILL after a random number of events; each next process takes the ledger up."""
    kills, equal = killed_sessions(store, nursery_of_sessions, 100)
    figure(f"100 stored sessions, killed {kills} times at random: same ledger hash {equal} / 100")
    assert equal == 100


def crash_everywhere(store: SessionStore, nursery: Nursery, places: list[str], seed: int) -> None:
    session_id = created(store, seed)
    for place in places:
        nursery.begin(session_id, seed, place)
        assert nursery.said() == KILLED, place
    nursery.begin(session_id, seed)
    assert nursery.said() == 0
    assert store.get(session_id).ledger_hash == in_memory(seed).hash
    orders = [event.data["id"] for event in store.events(session_id, types=["order"], limit=10_000)]
    assert len(orders) == len(set(orders))


def test_a_crash_at_any_named_place_sends_once(
    store: SessionStore, nursery_of_sessions: Nursery, figure: Callable[[str], None]
) -> None:
    """Row 7."""
    crashes = 0
    for seed in (SEED, 5):
        order = list(CRASH_POINTS) * 2
        random.Random(seed).shuffle(order)
        crash_everywhere(store, nursery_of_sessions, order, seed)
        crashes += len(order)
    figure(f"{crashes} crashes at {len(CRASH_POINTS)} places: orders per intent ≤ 1, same ledger hash 2 / 2")


def told(engine: Engine, session_id: UUID) -> list[str]:
    events = EventLog(engine).read(trades_channel("somebody"), limit=10_000)
    return [str(event.key) for event in events if event.data["session_id"] == str(session_id)]


@pytest.mark.parametrize("crash_at", ["session.after_send", *STREAM_CRASH_POINTS])
def test_streams_are_told_once_each_across_a_crash(
    store: SessionStore, nursery_of_sessions: Nursery, crash_at: str
) -> None:
    """Row 7 for those who watch: the process dies before it has told, or when it has told and does not know it."""
    session_id = created(store)
    nursery_of_sessions.begin(session_id, SEED, crash_at)
    assert nursery_of_sessions.said() == KILLED
    for _ in range(2):  # the second finds nothing to do
        nursery_of_sessions.begin(session_id, SEED)
        assert nursery_of_sessions.said() == 0
    row = store.get(session_id)
    assert row.ledger_hash == in_memory().hash
    events = store.events(session_id, types=sorted(TRADES), limit=10_000)
    assert told(store.engine, session_id) == [f"{session_id}:{event.seq}" for event in events]
    assert row.told == row.seq
    last = EventLog(store.engine).read(portfolio_channel("somebody"), limit=10_000)[-1]
    assert last.data["equity"] == row.equity


def test_no_crash_point_of_a_session_is_left_out() -> None:
    root = Path(__file__).parents[2]
    files = [*(root / "gpt_trader" / "trading").glob("*.py"), *(root / "storage").glob("session*.py")]
    named = {
        name
        for file in (*files, root / "storage" / "events.py")
        for name in re.findall(r'crash_point\("([^"]+)"\)', file.read_text(encoding="utf-8"))
    }
    assert named == {*CRASH_POINTS, *STREAM_CRASH_POINTS}


@pytest.mark.slow
def test_a_ledger_of_100_000_events_is_taken_up_within_two_seconds(
    store: SessionStore, figure: Callable[[str], None]
) -> None:
    """CPU time of this process: the machine is shared."""
    from benchmarks.sessions import long_session

    session_id = long_session(store, 100_000)
    seconds: dict[bool, float] = {}
    for snapshots in (True, False):
        begun = time.process_time()
        ledger, _ = load(store.engine, session_id, snapshots=snapshots)
        seconds[snapshots] = time.process_time() - begun
    figure(
        f"a ledger of {ledger.seq:,} events: taken up in {seconds[True]:.2f} s of CPU, folded from its first event in "
        f"{seconds[False]:.2f} s"
    )
    assert ledger.seq >= 100_000
    assert seconds[True] <= 2.0
