"""A session's ledger in SQL: read by folding it, written under a lease, a commit of the session one of the database.

A commit is one statement (`storage.ledger_commit`): it moves the session's row on, if its lease and its length are as
the writer thinks, and appends the events. A writer whose lease was taken, or who missed an event, writes nothing and is
told so. It is on disk once it is flushed, whatever the server's defaults are. One commit is on its way at most, and the
next takes its place behind it or none: what a writer that dies leaves behind is a ledger without its last commit.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import pyarrow as pa
from sqlalchemy import Connection, Engine, select
from sqlalchemy.dialects.postgresql import insert as upsert

from gpt_trader.crash_points import crash_point
from gpt_trader.errors import GptTraderError, NotFound
from gpt_trader.trading.events import LedgerEvent
from gpt_trader.trading.history import History
from gpt_trader.trading.ledger import Journal, Ledger
from gpt_trader.trading.state import State
from storage.ledger_commit import LedgerConnection
from storage.session_bars import packed, unpacked
from storage.session_rows import Lease, lost
from storage.tables import LEDGER_EVENTS, SESSION_BARS, SESSION_SNAPSHOTS, SESSIONS

logger = logging.getLogger("gpt_trader.sessions")

#: A snapshot is made after so many events, and not before they are this fraction of all: it holds all bars so far.
SNAPSHOT_EVENTS: Final = 2_000
_SNAPSHOT_FRACTION: Final = 0.125


class SessionJournal(Journal):
    """Commits events to one session's ledger. One a writer; not among threads."""

    def __init__(self, engine: Engine, lease: Lease, seq: int, *, snapshot_at: int = 0) -> None:
        self._engine = engine
        self._lease = lease
        self._seq = seq
        self._snapshot_at = snapshot_at
        self._connection: LedgerConnection | None = None
        #: How many events are on their way; None: no commit is.
        self._sent: int | None = None

    def append(self, events: Sequence[LedgerEvent], ledger: Ledger) -> None:
        """Send the events and what they have come to, once those before are stored; raises what `flush` does."""
        self.flush()
        crash_point("ledger.before_commit")
        if self._connection is None:
            self._connection = LedgerConnection(self._engine)
        self._connection.send(self._lease, self._seq, events, ledger.hash, ledger.state)
        self._sent = len(events)
        crash_point("ledger.sent")
        seq = self._seq + self._sent
        wanted = max(SNAPSHOT_EVENTS, int(seq * _SNAPSHOT_FRACTION))
        if seq - self._snapshot_at >= wanted and ledger.state.current is None:
            self.flush()
            save_snapshot(self._engine, self._lease.session_id, ledger)
            self._snapshot_at = seq

    def flush(self) -> None:
        """Wait until the events that were sent are on disk.

        Raises:
            Conflict: The lease was taken by somebody else, or the ledger is longer than this writer knows.
            SQLAlchemyError: The database refuses or does not answer; whether the events are stored is then for a new
                writer to see.
        """
        if self._sent is None or self._connection is None:
            return
        sent, self._sent = self._sent, None
        done = self._connection.answer()
        crash_point("ledger.after_commit")
        if done != sent:
            raise lost(self._lease)
        self._seq += sent

    @property
    def seq(self) -> int:
        """How many events are known to be stored."""
        return self._seq

    def close(self) -> None:
        """Flush, and close the connection; raises what `flush` does."""
        try:
            self.flush()
        finally:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def load(engine: Engine, session_id: UUID, *, snapshots: bool = True) -> tuple[Ledger, int]:
    """Fold a session's ledger, from its last snapshot on (`snapshots`), and return it with that snapshot's number.

    Raises:
        NotFound: There is no such session.
        GptTraderError: What is stored is not what was: the hashes differ.
    """
    # One moment's view of all tables: a writer may commit, and make a snapshot, meanwhile.
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        row = connection.execute(
            select(SESSIONS.c.seq, SESSIONS.c.ledger_hash).where(SESSIONS.c.session_id == session_id)
        ).one_or_none()
        if row is None:
            raise NotFound(f"there is no session {session_id}: `gpt-trader paper list` lists them")
        ledger = (_snapshot(connection, session_id) if snapshots else None) or _warm(connection, session_id)
        begun = ledger.seq
        ledger.take_all(_events(connection, session_id, begun, row.seq))
    if (ledger.seq, ledger.hash) != (row.seq, row.ledger_hash):
        raise GptTraderError(
            f"the ledger of session {session_id} is damaged: its {ledger.seq} events hash to {ledger.hash[:12]}…, "
            f"written were {row.seq} with {row.ledger_hash[:12]}…; restore the database from a backup"
        )
    ledger.reconcile()
    return ledger, begun


def _events(connection: Connection, session_id: UUID, after: int, up_to: int) -> Iterator[LedgerEvent]:
    events = LEDGER_EVENTS.c
    wanted = (
        select(events.type, events.data, events.key)
        .where(events.session_id == session_id, events.seq > after, events.seq <= up_to)
        .order_by(events.seq)
        .execution_options(yield_per=2_000)
    )
    for row in connection.execute(wanted):
        yield LedgerEvent(row.type, row.data, row.key)


def _warm(connection: Connection, session_id: UUID) -> Ledger:
    rows = connection.execute(select(SESSION_BARS).where(SESSION_BARS.c.session_id == session_id)).all()
    return Ledger({row.symbol: unpacked(row.bars, row.instrument, row.timeframe) for row in rows})


def warm_bars(engine: Engine, session_id: UUID) -> History:
    """Return the bars that a session's strategies were warmed up with."""
    with engine.connect() as connection:
        return _warm(connection, session_id).history


def save_snapshot(engine: Engine, session_id: UUID, ledger: Ledger) -> None:
    """Keep a ledger's state and bars in place of its last snapshot."""
    document, seen = ledger.state.document(), _packed_history(ledger.history)
    row = {
        "session_id": session_id,
        "seq": ledger.seq,
        "ledger_hash": ledger.hash,
        "state": {**document, "sha256": _digest(document, seen)},
        "seen": seen,
    }
    statement = upsert(SESSION_SNAPSHOTS).values(row)
    newer = SESSION_SNAPSHOTS.c.seq < statement.excluded.seq
    with engine.begin() as connection:
        connection.execute(
            statement.on_conflict_do_update(index_elements=["session_id"], set_=row, where=newer)
        )


def _snapshot(connection: Connection, session_id: UUID) -> Ledger | None:
    row = connection.execute(
        select(SESSION_SNAPSHOTS).where(SESSION_SNAPSHOTS.c.session_id == session_id)
    ).one_or_none()
    if row is None:
        return None
    written = row.state.pop("sha256", None)
    if written != _digest(row.state, row.seen):
        logger.warning("session %s: its snapshot is damaged; its whole ledger is folded", session_id)
        return None
    return Ledger.resumed(State.of(row.state), _unpacked_history(row.seen), row.ledger_hash, row.seq)


def _digest(document: Mapping[str, Any], seen: bytes) -> str:
    content = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(content.encode() + b"\n" + seen).hexdigest()


def _packed_history(history: History) -> bytes:
    rows = []
    for symbol in history.symbols:
        bars, first = history.bars(symbol)
        instrument = bars.instrument.model_dump_json()
        rows.append(
            {
                "symbol": symbol,
                "first": first,
                "instrument": instrument,
                "timeframe": bars.timeframe,
                "bars": packed(bars),
            }
        )
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _unpacked_history(content: bytes) -> History:
    rows = pa.ipc.open_stream(content).read_all().to_pylist()
    warm = {
        row["symbol"]: unpacked(row["bars"], json.loads(row["instrument"]), row["timeframe"]) for row in rows
    }
    return History(warm, {row["symbol"]: row["first"] for row in rows})
