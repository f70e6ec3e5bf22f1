"""The event log: one append-only table, ordered by offset in each channel, announced by NOTIFY.

A channel's next offset is taken under that channel's row lock, so offsets have no gaps and a later one is never
visible before an earlier one: who has read up to an offset has missed nothing. The announcement goes out after the
commit (a NOTIFY within the transaction would serialize all commits) and carries no data; it may be lost, so readers
also poll (`storage.event_reader`). An `epoch` names the life of a channel: position in another life are refused.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from sqlalchemy import Connection, Engine, Row, TextClause, delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError

from gpt_trader.crash_points import crash_point
from gpt_trader.errors import Conflict, Problem, Refused
from storage.tables import CHANNELS, EVENTS

#: The name that announcements go to; the payload is `<offset> <channel>`.
ANNOUNCEMENTS: Final = "gpt_trader_events"

#: Most events one `read` returns unless told otherwise.
BATCH: Final = 500

_CHANNEL: Final = re.compile(r"[a-z][a-z0-9_]*(\.[A-Za-z0-9_:-]+)*")
_CHANNEL_LENGTH: Final = 200

Data = Mapping[str, Any]


class UnrecoverablePosition(Conflict):
    """The position belongs to another life of the channel, or what follows it is no longer kept.

    Read from the start (`after=None`), and take the state anew from where it is kept.
    """

    type: ClassVar[str] = "unrecoverable-position"
    title: ClassVar[str] = "The stream cannot be resumed there"


@dataclass(frozen=True)
class Position:
    """A place in a channel: everything up to and including `offset` is behind it. The first offset is 1."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        """Return `epoch:offset`, as an SSE id has it."""
        return f"{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, given: str) -> Position:
        """Return the position that `str` made; raise Refused if it is none."""
        matched = re.fullmatch(r"([0-9a-z]{1,32}):([0-9]{1,18})", given)
        if matched is None:
            raise Refused.of(
                Problem("position", given, "is not a position", allowed="epoch:offset, e.g. 3f9a01bc:118")
            )
        return cls(matched[1], int(matched[2]))


@dataclass(frozen=True)
class NewEvent:
    """What is to be appended: `data` JSON-ready and finite; `key`, if any, is unique in its channel for ever."""

    type: str
    data: Data
    key: str | None = None


@dataclass(frozen=True)
class Event:
    """One row of the log; `at` is the server's time of the append, UTC."""

    channel: str
    position: Position
    type: str
    data: dict[str, Any]
    key: str | None
    at: datetime


class EventLog:
    """Appends and reads, synchronously. Safe to share among threads and across a fork."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def append(self, channel: str, type: str, data: Data, key: str | None = None) -> Position:  # noqa: A002 -- the field's name
        """Append one event durably and announce it; return its position.

        A key that the channel has already changes nothing: the earlier event's position is returned.

        Raises:
            Refused: The channel's name is not valid.
            ValueError: `data` holds what JSON has no words for (NaN, an object).
        """
        return self.append_many(channel, [NewEvent(type, data, key)])[0]

    def append_many(self, channel: str, events: Sequence[NewEvent]) -> list[Position]:
        """Append the events in order, all or none, and announce them once; return a position for each."""
        if not events:
            return []
        with self._engine.connect() as connection:
            with connection.begin():
                positions = append_within(connection, channel, events)
                crash_point("events.before_commit")
            crash_point("events.before_announcement")
            # The events stand. Should the connection end right here, readers find them by polling.
            with contextlib.suppress(OperationalError):
                _announce(connection, channel, max(position.offset for position in positions))
        return positions

    def read(self, channel: str, after: Position | None = None, limit: int = BATCH) -> list[Event]:
        """Return up to `limit` events behind `after` (None: from the oldest kept), in order.

        Raises:
            UnrecoverablePosition: `after` is of another epoch, or events behind it have been removed.
        """
        with self._engine.connect() as connection:
            return events_of(
                connection.execute(READ, read_values(channel, after, limit)).all(), channel, after
            )

    def position(self, channel: str) -> Position | None:
        """Return the position of the channel's last event, or None while it has none."""
        with self._engine.connect() as connection:
            row = connection.execute(
                select(CHANNELS.c.epoch, CHANNELS.c.last_offset).where(CHANNELS.c.channel == channel)
            ).one_or_none()
        return None if row is None else Position(row.epoch, row.last_offset)

    def expire(self, older_than: timedelta) -> int:
        """Remove events older than that, and channels that have been silent for so long; return how many events.

        A reader whose position is before what was removed is told so.
        """
        now = text("clock_timestamp() - :age").bindparams(age=older_than)
        with self._engine.begin() as connection:
            # Locked in one order, so that two calls cannot wait for each other; appends wait or come first.
            silent = (
                select(CHANNELS.c.channel).where(CHANNELS.c.updated_at < now).order_by(CHANNELS.c.channel)
            )
            names = connection.execute(silent.with_for_update(skip_locked=True)).scalars().all()
            removed = connection.execute(delete(EVENTS).where(EVENTS.c.channel.in_(names))).rowcount
            connection.execute(delete(CHANNELS).where(CHANNELS.c.channel.in_(names)))
            removed += connection.execute(_TRIM, {"age": older_than}).rowcount
        return removed


def append_within(connection: Connection, channel: str, events: Sequence[NewEvent]) -> list[Position]:
    """Append within the caller's transaction, together with what the events tell of; nothing is announced.

    The channel stays locked to other writers until the transaction ends: append last, and to one channel only.
    """
    _check_channel(channel)
    if all(event.key is None for event in events):
        return _append_keyless(connection, channel, events)
    epoch, last = _lock(connection, channel)
    known = _known_keys(connection, channel, [event.key for event in events if event.key is not None])
    positions: list[Position] = []
    fresh: list[NewEvent] = []
    for event in events:
        position = known.get(event.key) if event.key is not None else None
        if position is None:
            fresh.append(event)
            position = Position(epoch, last + len(fresh))
            if event.key is not None:
                known[event.key] = position
        positions.append(position)
    if fresh:
        connection.execute(_APPEND, _append_values(channel, fresh))
    return positions


#: One statement, so one view of the channel and of its events.
READ: Final[TextClause] = text(
    """
    SELECT c.epoch, c.last_offset, c.trimmed_to, e."offset", e.type, e.data, e.key, e.at
    FROM channels c LEFT JOIN LATERAL (
        SELECT * FROM events
        WHERE events.channel = c.channel AND events.epoch = c.epoch AND events."offset" > :after
        ORDER BY events."offset" LIMIT :limit
    ) e ON true
    WHERE c.channel = :channel ORDER BY e."offset"
    """
)

#: The newest event of each type, and the position that this was true at.
LATEST: Final[TextClause] = text(
    """
    SELECT c.epoch, c.last_offset, e.type, e.data
    FROM channels c LEFT JOIN LATERAL (
        SELECT DISTINCT ON (type) type, data FROM events
        WHERE events.channel = c.channel AND events.epoch = c.epoch AND events.type = ANY(:types)
        ORDER BY type, events."offset" DESC
    ) e ON true
    WHERE c.channel = :channel
    """
)


def read_values(channel: str, after: Position | None, limit: int) -> dict[str, Any]:
    """Return the values of `READ`'s parameters."""
    return {"channel": channel, "after": after.offset if after else 0, "limit": limit}


def events_of(rows: Sequence[Row[Any]], channel: str, after: Position | None) -> list[Event]:
    """Return the events in `READ`'s rows; raise UnrecoverablePosition if `after` cannot be resumed from."""
    if after is not None:
        life = rows[0] if rows else None
        if (
            life is None
            or life.epoch != after.epoch
            or not life.trimmed_to <= after.offset <= life.last_offset
        ):
            now = f"it is at {Position(life.epoch, life.last_offset)}" if life else "it has no events"
            raise UnrecoverablePosition(
                f"channel {channel} cannot be resumed after {after}: {now}; read it from the start"
            )
    return [
        Event(channel, Position(row.epoch, row.offset), row.type, row.data, row.key, row.at)
        for row in rows
        if row.offset is not None
    ]


_TRIM: Final = text(
    """
    WITH old AS (
        SELECT channel, max("offset") AS up_to FROM events WHERE at < clock_timestamp() - :age GROUP BY channel
    ), marked AS (
        UPDATE channels SET trimmed_to = old.up_to FROM old
        WHERE channels.channel = old.channel AND channels.trimmed_to < old.up_to
        RETURNING channels.channel, channels.trimmed_to
    )
    DELETE FROM events USING marked WHERE events.channel = marked.channel AND events."offset" <= marked.trimmed_to
    """
)

#: The update takes the channel's lock and, having waited for it, goes on from the newest offset.
_APPEND: Final = text(
    """
    WITH place AS (
        UPDATE channels SET last_offset = last_offset + :count, updated_at = clock_timestamp()
        WHERE channel = :channel RETURNING epoch, last_offset - :count AS last
    )
    INSERT INTO events (channel, epoch, "offset", type, data, key)
    SELECT :channel, place.epoch, place.last + row.number, row.type, row.data::json, row.key
    FROM place, unnest(CAST(:types AS text[]), CAST(:documents AS text[]), CAST(:keys AS text[]))
        WITH ORDINALITY AS row (type, data, key, number)
    ORDER BY row.number
    RETURNING epoch, "offset"
    """
)


def _append_keyless(connection: Connection, channel: str, events: Sequence[NewEvent]) -> list[Position]:
    values = _append_values(channel, events)
    rows = connection.execute(_APPEND, values).all()
    while not rows:  # the channel is new, or was removed just now
        _make(connection, channel)
        rows = connection.execute(_APPEND, values).all()
    return sorted((Position(row.epoch, row.offset) for row in rows), key=lambda position: position.offset)


def _append_values(channel: str, events: Sequence[NewEvent]) -> dict[str, Any]:
    return {
        "channel": channel,
        "count": len(events),
        "types": [event.type for event in events],
        "documents": [json.dumps(event.data, allow_nan=False) for event in events],
        "keys": [event.key for event in events],
    }


def _lock(connection: Connection, channel: str) -> tuple[str, int]:
    """Lock the channel's row, made if it is missing; return its epoch and last offset."""
    row = (
        select(CHANNELS.c.epoch, CHANNELS.c.last_offset)
        .where(CHANNELS.c.channel == channel)
        .with_for_update()
    )
    while (found := connection.execute(row).one_or_none()) is None:
        _make(connection, channel)
    return found.epoch, found.last_offset


def _make(connection: Connection, channel: str) -> None:
    fresh = insert(CHANNELS).values(channel=channel, epoch=secrets.token_hex(4))
    connection.execute(fresh.on_conflict_do_nothing())


def _known_keys(connection: Connection, channel: str, keys: Sequence[str]) -> dict[str, Position]:
    if not keys:
        return {}
    known = select(EVENTS.c.key, EVENTS.c.epoch, EVENTS.c.offset).where(
        EVENTS.c.channel == channel, EVENTS.c.key.in_(keys)
    )
    return {row.key: Position(row.epoch, row.offset) for row in connection.execute(known)}


def _announce(connection: Connection, channel: str, offset: int) -> None:
    """Wake the readers. The statement commits by itself, without waiting for the disk: it changes nothing."""
    connection.execution_options(isolation_level="AUTOCOMMIT").execute(
        text("SELECT set_config('synchronous_commit', 'off', true), pg_notify(:name, :payload)"),
        {"name": ANNOUNCEMENTS, "payload": f"{offset} {channel}"},
    )


def _check_channel(channel: str) -> None:
    if len(channel) > _CHANNEL_LENGTH or not _CHANNEL.fullmatch(channel):
        raise Refused.of(
            Problem(
                "channel",
                channel,
                "is not the name of a channel",
                allowed=f"words of letters, digits, _ : - joined by dots, at most {_CHANNEL_LENGTH} characters",
            )
        )
