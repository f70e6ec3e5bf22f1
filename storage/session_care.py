"""Sessions for whoever looks after all of them: which wait for somebody, which are silent, how many there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, DateTime, Engine, cast, func, select, text

from storage.session_rows import Session
from storage.tables import LEDGER_EVENTS, SESSION_COMMANDS, SESSIONS

_NOW: Final = func.clock_timestamp()
_OPEN: Final = SESSIONS.c.ended_at.is_(None)
_TRADED: Final = SESSIONS.c.lease_until >= _NOW
_COLUMNS: Final = tuple(SESSIONS.c[each.name] for each in fields(Session))


@dataclass(frozen=True)
class Figures:
    """Sessions by status and feed, events and bars of all ledgers.

    `seconds_since_commit` is the longest among open sessions that a run is trading, by feed.
    """

    sessions: Mapping[tuple[str, str], int]
    events: int
    steps: int
    seconds_since_commit: Mapping[str, float]


class SessionCare:
    """Asks about sessions of all owners. All times are the database's. Safe among threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def is_traded(self, session_id: UUID) -> bool:
        """Return whether somebody holds the session's lease now."""
        with self._engine.connect() as connection:
            return bool(
                connection.execute(select(_TRADED).where(SESSIONS.c.session_id == session_id)).scalar()
            )

    def waiting(self, longer_than: timedelta) -> tuple[Session, ...]:
        """Return open sessions that nobody trades and of which something was asked that long ago and is not done."""
        done = (
            select(LEDGER_EVENTS.c.seq)
            .where(
                LEDGER_EVENTS.c.session_id == SESSION_COMMANDS.c.session_id,
                LEDGER_EVENTS.c.key == text("'command:' || session_commands.id"),
            )
            .exists()
        )
        asked = (
            select(SESSION_COMMANDS.c.id)
            .where(
                SESSION_COMMANDS.c.session_id == SESSIONS.c.session_id,
                SESSION_COMMANDS.c.at < _NOW - longer_than,
                ~done,
            )
            .exists()
        )
        untraded = SESSIONS.c.lease_until.is_(None) | (SESSIONS.c.lease_until < _NOW)
        return self._open(untraded, asked)

    def abandoned(self) -> tuple[tuple[Session, float], ...]:
        """Return open sessions whose lease has run out and was not given back, with the seconds since then.

        Whoever traded them was killed, or failed: a run that ends as it should gives the lease back.
        """
        return self._since(SESSIONS.c.lease_until, SESSIONS.c.lease_until < _NOW)

    def silent(self, longer_than: timedelta) -> tuple[tuple[Session, float], ...]:
        """Return open sessions that somebody trades and that committed nothing for that long, with the seconds."""
        return self._since(SESSIONS.c.updated_at, _TRADED, SESSIONS.c.updated_at < _NOW - longer_than)

    def stale(self, longer_than: timedelta) -> tuple[tuple[Session, float], ...]:
        """Return open sessions by schedule whose last bar is older than that, with its age in seconds."""
        bar = cast(SESSIONS.c.bar, DateTime(timezone=True))
        return self._since(bar, SESSIONS.c.feed == "schedule", bar < _NOW - longer_than)

    def _open(self, *which: ColumnElement[bool]) -> tuple[Session, ...]:
        with self._engine.connect() as connection:
            rows = connection.execute(select(*_COLUMNS).where(_OPEN, *which)).all()
        return tuple(Session(**row._mapping) for row in rows)

    def _since(
        self, begun: ColumnElement[Any], *which: ColumnElement[bool]
    ) -> tuple[tuple[Session, float], ...]:
        """Return open sessions with the seconds since a time of theirs."""
        since = func.extract("epoch", _NOW - begun).label("since")
        with self._engine.connect() as connection:
            rows = connection.execute(select(*_COLUMNS, since).where(_OPEN, *which)).all()
        return tuple(
            (Session(**{each.name: getattr(row, each.name) for each in fields(Session)}), float(row.since))
            for row in rows
        )

    def streaming(self) -> tuple[Session, ...]:
        """Return open sessions on a live stream that somebody trades."""
        return self._open(_TRADED, SESSIONS.c.feed == "stream")

    def pinned_snapshots(self) -> set[str]:
        """Return every snapshot of the lake that an open session trades from."""
        wanted = select(SESSIONS.c.snapshot_id).distinct().where(_OPEN, SESSIONS.c.snapshot_id.is_not(None))
        with self._engine.connect() as connection:
            return set(connection.execute(wanted).scalars())

    def figures(self) -> Figures:
        """Return how many there are, and how they fare."""
        columns = SESSIONS.c
        counts = select(
            columns.status, columns.feed, func.count(), func.sum(columns.seq), func.sum(columns.steps)
        ).group_by(columns.status, columns.feed)
        longest = func.max(func.extract("epoch", _NOW - columns.updated_at))
        since = select(columns.feed, longest).where(_OPEN, _TRADED).group_by(columns.feed)
        with self._engine.connect() as connection:
            rows = connection.execute(counts).all()
            seconds = {feed: float(value) for feed, value in connection.execute(since)}
        return Figures(
            {(row[0], row[1]): row[2] for row in rows},
            int(sum(row[3] for row in rows)),
            int(sum(row[4] for row in rows)),
            seconds,
        )
