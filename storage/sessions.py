"""Trading sessions as they are kept: a row each, found by id and owner; who may write to one holds its lease."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Engine, Row, func, insert, literal, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from gpt_trader.bars import Bars
from gpt_trader.errors import Conflict
from gpt_trader.trading.events import GENESIS
from gpt_trader.trading.statuses import FINAL
from storage.session_bars import packed
from storage.session_rows import Command, Lease, Session, StoredEvent, lost, no_session
from storage.tables import LEDGER_EVENTS, SESSION_BARS, SESSION_COMMANDS, SESSIONS

#: How long a lease lasts without being renewed, by the database's clock.
LEASE_SECONDS: Final = 15.0

#: Open sessions that are read at a time where all of them are.
OPEN_PAGE: Final = 200


class SessionStore:
    """Creates, finds and leases sessions. Safe among threads and across a fork."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def create(
        self,
        session_id: UUID,
        owner: str,
        slice_name: str,
        request: Mapping[str, Any],
        warm: Mapping[str, Bars],
        *,
        name: str,
        capital: str,
        snapshot_id: str | None = None,
        code_version: str | None = None,
    ) -> None:
        """Write a session down with the bars that warm its strategies up; one that is there stays as it is."""
        row = {
            "session_id": session_id,
            "owner": owner,
            "slice": slice_name,
            "name": name,
            "feed": request["feed"],
            "request": dict(request),
            "snapshot_id": snapshot_id,
            "code_version": code_version,
            "status": "active",
            "ledger_hash": GENESIS,
            "cash": capital,
            "equity": capital,
        }
        with self.engine.begin() as connection:
            made = upsert(SESSIONS).values(row).on_conflict_do_nothing().returning(SESSIONS.c.session_id)
            if connection.execute(made).one_or_none() is None:
                return
            for symbol, bars in warm.items():
                instrument = bars.instrument.model_dump(mode="json")
                values = {
                    "session_id": session_id,
                    "symbol": symbol,
                    "instrument": instrument,
                    "timeframe": bars.timeframe,
                    "bars": packed(bars),
                }
                connection.execute(insert(SESSION_BARS).values(values))

    def get(self, session_id: UUID) -> Session:
        """Return a session; raise NotFound if there is none."""
        with self.engine.connect() as connection:
            row = connection.execute(_SESSION.where(SESSIONS.c.session_id == session_id)).one_or_none()
        if row is None:
            raise no_session(session_id)
        return _session(row)

    def list(
        self,
        owner: str | None = None,
        *,
        slice_name: str | None = None,
        feed: str | None = None,
        ended: bool | None = None,
        status: str | None = None,
        limit: int = 50,
        before: tuple[datetime, UUID] | None = None,
    ) -> tuple[Session, ...]:
        """Return up to `limit` sessions, newest first: of one owner, slice, feed or status, ended or not, or all.

        `before` is the `created_at` and id of the last one of the page before.
        """
        place = tuple_(SESSIONS.c.created_at, SESSIONS.c.session_id)
        wanted = _SESSION.order_by(SESSIONS.c.created_at.desc(), SESSIONS.c.session_id.desc()).limit(limit)
        for column, value in (
            (SESSIONS.c.owner, owner),
            (SESSIONS.c.slice, slice_name),
            (SESSIONS.c.feed, feed),
            (SESSIONS.c.status, status),
        ):
            if value is not None:
                wanted = wanted.where(column == value)
        if ended is not None:
            wanted = wanted.where(
                SESSIONS.c.ended_at.is_not(None) if ended else SESSIONS.c.ended_at.is_(None)
            )
        if before is not None:
            wanted = wanted.where(place < tuple_(*map(literal, before)))
        with self.engine.connect() as connection:
            return tuple(_session(row) for row in connection.execute(wanted))

    def open_pages(self, owner: str | None = None) -> Iterator[tuple[Session, ...]]:
        """Yield all open sessions of an owner (None: everybody's), newest first, a page at a time."""
        place = None
        while page := self.list(owner, ended=False, limit=OPEN_PAGE, before=place):
            yield page
            place = page[-1].created_at, page[-1].session_id

    def lease(self, session_id: UUID, holder: str, seconds: float = LEASE_SECONDS) -> Lease:
        """Take the session's lease under a new token; whoever held an older one writes no more.

        Raises Conflict while somebody else holds it, NotFound if there is no such session.
        """
        free = (
            SESSIONS.c.lease_until.is_(None)
            | (SESSIONS.c.lease_until < func.clock_timestamp())
            | (SESSIONS.c.lease_holder == holder)
        )
        take = (
            update(SESSIONS)
            .where(SESSIONS.c.session_id == session_id, free)
            .values(
                lease_token=SESSIONS.c.lease_token + 1,
                lease_holder=holder,
                lease_until=func.clock_timestamp() + timedelta(seconds=seconds),
            )
            .returning(SESSIONS.c.lease_token)
        )
        with self.engine.begin() as connection:
            token = connection.execute(take).scalar_one_or_none()
        if token is None:
            held = self.get(session_id)
            raise Conflict(
                f"session {session_id} is traded by {held.lease_holder} until {held.lease_until:%H:%M:%S} UTC: one "
                "at a time may"
            )
        return Lease(session_id, holder, token)

    def renew(self, lease: Lease, seconds: float = LEASE_SECONDS) -> None:
        """Keep a lease for so long from now; raise Conflict if somebody else has taken it."""
        kept = (
            update(SESSIONS)
            .where(SESSIONS.c.session_id == lease.session_id, SESSIONS.c.lease_token == lease.token)
            .values(lease_until=func.clock_timestamp() + timedelta(seconds=seconds))
        )
        with self.engine.begin() as connection:
            if connection.execute(kept).rowcount != 1:
                raise lost(lease)

    def release(self, lease: Lease) -> None:
        """Give a lease back, if it is still held."""
        mine = (SESSIONS.c.session_id == lease.session_id, SESSIONS.c.lease_token == lease.token)
        with self.engine.begin() as connection:
            connection.execute(update(SESSIONS).where(*mine).values(lease_holder=None, lease_until=None))

    def certify(self, session_id: UUID, certificate: Mapping[str, Any], events: int) -> None:
        """Keep the certificate of a ledger's first `events` events, unless there is one of more."""
        row = update(SESSIONS).where(SESSIONS.c.session_id == session_id, SESSIONS.c.certified <= events)
        with self.engine.begin() as connection:
            connection.execute(row.values(certificate=dict(certificate), certified=events))

    def published(self, session_id: UUID, events: int) -> None:
        """Remember that the streams have a ledger's first `events` events."""
        row = update(SESSIONS).where(SESSIONS.c.session_id == session_id, SESSIONS.c.told < events)
        with self.engine.begin() as connection:
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            connection.execute(row.values(told=events))

    def command(self, session_id: UUID, command: str, by: str, *, flatten: bool = False) -> int:
        """Ask something of a session; return the command's id. Raises Conflict once the session has ended."""
        session = self.get(session_id)
        if session.status in FINAL:
            raise Conflict(f"session {session_id} is {session.status}: it takes no commands")
        row = insert(SESSION_COMMANDS).values(session_id=session_id, command=command, by=by, flatten=flatten)
        with self.engine.begin() as connection:
            found: int = connection.execute(row.returning(SESSION_COMMANDS.c.id)).scalar_one()
        return found

    def commands(self, session_id: UUID) -> tuple[Command, ...]:
        """Return what was asked of a session and is not in its ledger yet, oldest first."""
        with self.engine.connect() as connection:
            rows = connection.execute(_OPEN_COMMANDS, {"id": session_id}).all()
        return tuple(Command(row.id, row.command, row.by, row.flatten) for row in rows)

    def events(
        self,
        session_id: UUID,
        *,
        types: Sequence[str] = (),
        after: int = 0,
        limit: int = 500,
        newest_first: bool = False,
    ) -> tuple[StoredEvent, ...]:
        """Return up to `limit` events of a ledger, of these types or of all, behind number `after`.

        `newest_first`: those before number `after` (0: the end), the newest first.
        """
        events = LEDGER_EVENTS.c
        wanted = select(events.seq, events.type, events.data, events.at).where(
            events.session_id == session_id
        )
        if types:
            wanted = wanted.where(events.type.in_(types))
        if newest_first:
            wanted = wanted.order_by(events.seq.desc())
            wanted = wanted.where(events.seq < after) if after else wanted
        else:
            wanted = wanted.where(events.seq > after).order_by(events.seq)
        with self.engine.connect() as connection:
            rows = connection.execute(wanted.limit(limit)).all()
        return tuple(StoredEvent(row.seq, row.type, row.data, row.at) for row in rows)


_SESSION: Final = select(*(SESSIONS.c[each.name] for each in fields(Session)))

_OPEN_COMMANDS: Final = text(
    """
    SELECT c.id, c.command, c.by, c.flatten FROM session_commands c
    WHERE c.session_id = :id AND NOT EXISTS (
        SELECT 1 FROM ledger_events e WHERE e.session_id = :id AND e.key = 'command:' || c.id
    )
    ORDER BY c.id
    """
)


def _session(row: Row[Any]) -> Session:
    return Session(**row._mapping)
