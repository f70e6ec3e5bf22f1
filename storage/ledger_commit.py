"""A session's commit on the wire: one statement, prepared once on a connection of its own, its arrays in binary.

A session that replays commits a thousand times a second and more. Through SQLAlchemy's and psycopg's cursors the same
statement takes the client longer than the disk takes to keep it, and the server plans it again each time.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Sequence
from datetime import timedelta
from typing import Final

import psycopg
from psycopg.generators import fetch_many
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from gpt_trader.trading.events import LedgerEvent, document
from gpt_trader.trading.orders import plain
from gpt_trader.trading.state import State
from gpt_trader.trading.statuses import FINAL
from storage.database import libpq_arguments
from storage.session_rows import Lease
from storage.sessions import LEASE_SECONDS

#: Moves the session's row on, if its lease and its length are as the writer thinks, and appends the events: it inserts
#: nothing where it moved nothing. That is also why `ledger_events` needs no foreign key, whose check of each row took a
#: fifth of a commit.
_COMMIT: Final = """
    WITH moved AS (
        UPDATE sessions SET seq = seq + $4, ledger_hash = $5, status = $6, reason = $7, cash = $8, equity = $9,
            steps = $10, orders = $11, fills = $12, bar = $13, ended_at = CASE WHEN $14 THEN clock_timestamp() END,
            updated_at = clock_timestamp(), lease_until = clock_timestamp() + $15::interval
        WHERE session_id = $1 AND lease_token = $2 AND seq = $3
        RETURNING session_id
    )
    INSERT INTO ledger_events (session_id, seq, type, data, key)
    SELECT moved.session_id, $3 + row.number, row.type, row.data, row.key
    FROM moved, unnest($16::text[], $17::json[], $18::text[]) WITH ORDINALITY AS row (type, data, key, number)
"""
_NAME: Final = b"ledger_commit"

#: Texts go as binary, whose length is sent along: as text they would end, unseen, at a NUL. So do arrays: nothing in
#: them needs quotes.
_FORMATS: Final = [0] * 4 + [1] * 5 + [0] * 3 + [1] + [0] * 2 + [1] * 3

#: Types of arrays' elements.
_TEXT: Final = 25
_JSON: Final = 114

_LEASE: Final = str(timedelta(seconds=LEASE_SECONDS)).encode()

_DONE: Final = frozenset({ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK})


class LedgerConnection:
    """A connection that commits to ledgers, and is on disk when it answers. Not to be shared among threads.

    One commit at a time is sent, and then its answer taken: what is between, the server's work takes no time from.

    Every method raises SQLAlchemyError where the database refuses or does not answer, as everything of an engine does.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        try:
            self._connection = psycopg.connect(**libpq_arguments(engine.url), autocommit=True)
        except psycopg.Error as error:
            raise self._told(error) from error
        try:
            self._connection.execute("SET synchronous_commit = on")
            self._connection.execute("SET plan_cache_mode = force_generic_plan")
            _require(self._connection.pgconn.prepare(_NAME, _COMMIT.encode()))
        except psycopg.Error as error:
            self.close()
            raise self._told(error) from error

    def send(self, lease: Lease, seq: int, events: Sequence[LedgerEvent], hash_: str, state: State) -> None:
        """Have events appended behind number `seq`, with what they have come to, all or none."""
        values = [
            lease.session_id.hex.encode(),
            b"%d" % lease.token,
            b"%d" % seq,
            b"%d" % len(events),
            hash_.encode(),
            state.status.encode(),
            state.reason.encode(),
            plain(state.cash).encode(),
            plain(state.equity).encode(),
            b"%d" % state.steps,
            b"%d" % state.orders,
            b"%d" % state.fills,
            None if state.time is None else state.time.encode(),
            b"t" if state.status in FINAL else b"f",
            _LEASE,
            _array(_TEXT, [event.type.encode() for event in events]),
            _array(_JSON, [document(event) for event in events]),
            _array(_TEXT, [None if event.key is None else event.key.encode() for event in events]),
        ]
        connection = self._connection
        try:
            connection.pgconn.send_query_prepared(_NAME, values, _FORMATS)
            if connection.pgconn.flush():  # more than the socket takes at once
                connection.wait(_flushed(connection.pgconn))
        except psycopg.Error as error:
            raise self._told(error) from error

    def answer(self) -> int:
        """Wait for what was sent; return how many events were appended."""
        connection = self._connection
        try:
            results = connection.wait(fetch_many(connection.pgconn))  # a signal's handler interrupts it
            # The statement is done before its commit is: where that fails, an error follows its success.
            for result in results:
                _require(result)
        except psycopg.Error as error:
            raise self._told(error) from error
        return results[0].command_tuples or 0

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def _told(self, error: psycopg.Error) -> Exception:
        """Return a driver's error as an engine would raise it; no value is in it."""
        return DBAPIError.instance(
            _COMMIT, None, error, psycopg.Error, hide_parameters=True, dialect=self._engine.dialect
        )


def _flushed(connection: PGconn) -> Generator[Wait, Ready | int, None]:
    """Send what is left to be sent, as `Connection.wait` wants it done."""
    while connection.flush():
        if (yield Wait.RW) & Ready.R:
            connection.consume_input()


def _require(result: PGresult) -> None:
    """Raise what the server says, if it did not do what it was asked."""
    if result.status not in _DONE:
        code = result.error_field(DiagnosticField.SQLSTATE)
        kind = psycopg.errors.lookup(code.decode()) if code else psycopg.OperationalError
        raise kind(result.get_error_message())


#: Dimensions, whether some elements are null, the elements' type, how many there are, the index of the first.
_HEAD: Final = struct.Struct("!iiIii")
_LENGTH: Final = struct.Struct("!i")
_NULL: Final = _LENGTH.pack(-1)


def _array(kind: int, elements: Sequence[bytes | None]) -> bytes:
    """Return elements of a type as PostgreSQL receives an array in binary."""
    parts = [_HEAD.pack(1, None in elements, kind, len(elements), 1)]
    for each in elements:
        parts += (_NULL,) if each is None else (_LENGTH.pack(len(each)), each)
    return b"".join(parts)
