"""A commit on the wire: stored as given or refused; and a schema that changes under an open session."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError

from gpt_trader.errors import Conflict
from gpt_trader.trading.desk import Desk, status
from gpt_trader.trading.events import LedgerEvent
from gpt_trader.trading.feed import moments
from gpt_trader.trading.ledger import Ledger
from gpt_trader.trading.trader import Trader
from storage import migrations
from storage.events import EventLog
from storage.session_ledger import SessionJournal, load
from storage.session_stream import Publisher, PublishingJournal
from storage.sessions import SessionStore
from tests.trading_samples import opening, paper_broker, random_session, traded, warm_of
from tests.waiting import eventually

SEED = 4

#: What an array, a JSON string and a text each have to carry through.
AWKWARD = 'a "quoted" \\back\\slash, {brace}, NULL, line\nbreak, ü€😀'


@pytest.fixture
def store(engine: Engine) -> SessionStore:
    return SessionStore(engine)


def created(store: SessionStore) -> UUID:
    request, _, bars = random_session(SEED)
    session_id = uuid4()
    document = request.model_dump(mode="json")
    store.create(session_id, "somebody", "paper_trade", document, warm_of(bars), name="one", capital="10000")
    return session_id


def under_way(store: SessionStore, session_id: UUID) -> tuple[Ledger, SessionJournal]:
    """Return a ledger with its first event, and the journal that it went to."""
    ledger = Ledger({})
    journal = SessionJournal(store.engine, store.lease(session_id, "here"), 0)
    first = opening(random_session(SEED)[0])
    ledger.take(first)
    journal.commit([first], ledger)
    return ledger, journal


def test_texts_are_stored_as_they_were_given(store: SessionStore) -> None:
    session_id = created(store)
    ledger, journal = under_way(store, session_id)
    events = [
        status("paused", AWKWARD),
        LedgerEvent("command", {"command": AWKWARD, "nul": "\0", "number": 0.1 + 0.2}, key=AWKWARD),
        LedgerEvent("command", {"b": 1, "a": 2}),
    ]
    ledger.take_all(events)
    journal.commit(events, ledger)
    journal.close()
    assert [(each.type, each.data) for each in store.events(session_id, after=1)] == [
        (each.type, each.data) for each in events
    ]
    assert list(store.events(session_id, after=3)[0].data) == ["b", "a"]
    assert store.get(session_id).reason == AWKWARD
    with store.engine.connect() as connection:
        keys = connection.execute(text("SELECT key FROM ledger_events ORDER BY seq")).scalars().all()
    assert keys == ["opened", None, AWKWARD, None]


@pytest.mark.parametrize(
    "bad", [status("paused", "a\0b"), LedgerEvent("command", {}, key="a\0b")], ids=["a text", "a key"]
)
def test_a_nul_is_refused_and_cuts_nothing_off(store: SessionStore, bad: LedgerEvent) -> None:
    session_id = created(store)
    ledger, journal = under_way(store, session_id)
    ledger.take(bad)
    with pytest.raises(DataError) as refused:
        journal.commit([bad], ledger)
    journal.close()
    assert "a\0b" not in str(refused.value)
    assert (store.get(session_id).seq, len(store.events(session_id))) == (1, 1)


def test_a_number_that_is_not_finite_is_refused(store: SessionStore) -> None:
    session_id = created(store)
    ledger, journal = under_way(store, session_id)
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.commit([LedgerEvent("command", {"by": float("nan")})], ledger)
    journal.close()
    assert store.get(session_id).seq == 1


def test_a_connection_that_ends_is_an_engine_s_error(store: SessionStore) -> None:
    session_id = created(store)
    ledger, journal = under_way(store, session_id)
    with store.engine.connect() as connection:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%WITH moved AS%'"
        ended = connection.execute(
            text(f"{others} AND pid <> pg_backend_pid() AND datname = current_database()")
        )
        assert ended.scalars().all() == [True]
    late = LedgerEvent("command", {"command": "pause"})
    ledger.take(late)
    with pytest.raises(OperationalError):
        journal.commit([late], ledger)
    journal.close()
    found, _ = load(store.engine, session_id)
    assert found.seq == 1
    again = SessionJournal(store.engine, store.lease(session_id, "here"), 1)
    found.take(late)
    again.commit([late], found)
    again.close()
    assert store.get(session_id).seq == 2


def test_a_statement_that_was_done_and_fails_as_it_is_committed_is_not_acknowledged(
    store: SessionStore,
) -> None:
    """As at a disk that fails: the server has told of the statement's success by then."""
    session_id = created(store)
    ledger, journal = under_way(store, session_id)
    with store.engine.begin() as connection:
        for statement in _REFUSING_AT_COMMIT:
            connection.execute(text(statement))
    late = LedgerEvent("command", {"command": "pause"})
    ledger.take(late)
    with pytest.raises(DBAPIError, match="not this time"):
        journal.commit([late], ledger)
    assert journal.seq == store.get(session_id).seq == 1
    journal.close()


_REFUSING_AT_COMMIT = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this time'; END $$",
    "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON ledger_events DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION refuse()",
)


def test_a_commit_that_is_on_its_way_holds_nobody_up_and_is_told_once_it_is_stored(
    store: SessionStore,
) -> None:
    session_id = created(store)
    ledger, journal = under_way(store, session_id)
    publisher = Publisher(store, EventLog(store.engine), session_id, "somebody")
    told: list[int] = []
    publisher.put = lambda first, events, account: told.append(first)  # type: ignore[method-assign]
    telling = PublishingJournal(journal, publisher)
    one, other = (LedgerEvent("command", {"command": each}) for each in ("pause", "resume"))
    with store.engine.begin() as connection:
        connection.execute(text("SELECT FROM sessions FOR UPDATE"))
        ledger.take(one)
        telling.append([one], ledger)  # the server waits for the lock, this thread does not
        assert (journal.seq, told) == (1, [])
    ledger.take(other)
    telling.append([other], ledger)
    assert (journal.seq, told) == (2, [2])
    telling.flush()
    assert (journal.seq, told, store.get(session_id).seq) == (3, [2, 3], 3)
    telling.close()


def test_what_a_commit_intended_is_not_told_where_the_lease_was_lost(store: SessionStore) -> None:
    session_id = created(store)
    ledger, journal = under_way(store, session_id)
    told: list[int] = []
    publisher = Publisher(store, EventLog(store.engine), session_id, "somebody")
    publisher.put = lambda first, events, account: told.append(first)  # type: ignore[method-assign]
    telling = PublishingJournal(journal, publisher)
    store.lease(session_id, "here")  # a newer token
    late = LedgerEvent("command", {"command": "pause"})
    ledger.take(late)
    telling.append([late], ledger)
    with pytest.raises(Conflict, match="writes nothing"):
        telling.append([late], ledger)
    telling.close()
    assert told == []
    assert store.get(session_id).seq == 1


def test_a_journal_s_connection_is_nobody_else_s_and_is_closed(store: SessionStore) -> None:
    _, journal = under_way(store, created(store))
    others = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    )
    # The only one of the pool; within a transaction its view of others would stand still.
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar() == 0
        assert connection.execute(others).scalar() == 1
        journal.close()
        eventually(lambda: not connection.execute(others).scalar(), what="the end of the journal's backend")


def test_a_session_with_a_ledger_is_not_removed_and_none_has_a_ledger_without_its_row(
    store: SessionStore,
) -> None:
    session_id = created(store)
    _, journal = under_way(store, session_id)
    journal.close()
    bare = uuid4()
    store.create(bare, "somebody", "paper_trade", {"feed": "replay"}, {}, name="two", capital="1")
    lease = store.lease(bare, "here")
    remove = text("DELETE FROM sessions WHERE session_id = :id")
    with store.engine.begin() as connection:
        connection.execute(text("DELETE FROM session_bars"))
        assert connection.execute(remove, {"id": bare}).rowcount == 1
    with (
        pytest.raises(IntegrityError, match=f"session {session_id} has a ledger"),
        store.engine.begin() as connection,
    ):
        connection.execute(remove, {"id": session_id})
    orphan = SessionJournal(store.engine, lease, 0)
    with pytest.raises(Conflict, match="writes nothing"):
        orphan.commit([LedgerEvent("command", {})], Ledger({}))
    orphan.close()
    assert store.events(bare) == ()


def test_the_schema_changes_under_a_session_that_goes_on(store: SessionStore) -> None:
    """0006: what was committed before it is carried over, the writer that is at work goes on with its connection."""
    _schema(store.engine, "0005")
    request, strategies, bars = random_session(SEED)
    session_id = created(store)
    ledger = Ledger(warm_of(bars))
    journal = SessionJournal(store.engine, store.lease(session_id, "here"), 0)
    broker = paper_broker(request)
    trader = Trader(Desk(request, strategies), ledger, broker, journal)
    trader.open(opening(request))
    broker.restore(trader.state)
    coming = list(moments(bars))
    for number, moment in enumerate(coming):
        if number == len(coming) // 2:
            trader.flush()
            before = store.events(session_id, limit=10_000)
            _schema(store.engine, "head")
            assert store.events(session_id, limit=10_000) == before
        if not trader.state.over:
            trader.step(moment)
    if not trader.state.over:
        trader.finish("completed", "its range has ended")
    journal.close()
    alone = traded(request, strategies, bars)
    if not alone.trader.state.over:
        alone.trader.finish("completed", "its range has ended")
    assert store.get(session_id).ledger_hash == alone.trader.ledger.hash
    assert load(store.engine, session_id)[0].state == ledger.state
    _schema(store.engine, "0005")  # and back
    assert load(store.engine, session_id)[0].hash == ledger.hash


def test_what_is_rare_is_found_by_its_type(store: SessionStore) -> None:
    """The index leaves bars, seen and closed out: queries for other types still use it, with values bound."""
    session_id = created(store)
    with store.engine.begin() as connection:
        connection.execute(_MANY, {"id": session_id})
        connection.execute(text("ANALYZE ledger_events"))
    asked: list[tuple[str, object]] = []

    def note(_c: Connection, _cursor: object, statement: str, values: object, *_: object) -> None:
        asked.append((statement, values))

    event.listen(store.engine, "before_cursor_execute", note)
    assert len(store.events(session_id, types=["fill", "order"])) == 20
    event.remove(store.engine, "before_cursor_execute", note)
    ((statement, values),) = asked
    with store.engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN {statement}", values).scalars().all()  # type: ignore[arg-type]
    assert any("ledger_events_type_idx" in line for line in plan), plan


_MANY = text(
    """
    INSERT INTO ledger_events (session_id, seq, type, data)
    SELECT :id, n, CASE WHEN n % 1000 = 0 THEN 'fill' ELSE (ARRAY['bars', 'seen', 'closed'])[1 + n % 3] END, '{}'
    FROM generate_series(1, 20000) AS n
    """
)


def _schema(engine: Engine, revision: str) -> None:
    """Bring the database to a revision."""
    settings = migrations.config()
    with engine.begin() as connection:
        settings.attributes["connection"] = connection
        if revision == "head":
            command.upgrade(settings, revision)
        else:
            command.downgrade(settings, revision)
