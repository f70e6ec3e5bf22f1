"""Follow the event log from an event loop: one LISTEN connection a process, any number of followers.

An announcement makes one query for each position at which followers of its channel wait, and the query's result wakes
them (`storage.event_fanout`). Because announcements may get lost (a cut connection, a restarted server), one small
query every half second asks whether any followed channel is ahead of its followers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final

import psycopg
from sqlalchemy import URL, Executable, Row, select
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gpt_trader.shielded_tasks import ShieldedTasks
from storage.database import libpq_arguments
from storage.event_fanout import Fanout
from storage.events import ANNOUNCEMENTS, BATCH, LATEST, READ, Event, Position, events_of, read_values
from storage.tables import CHANNELS

#: What a lost or refused connection raises; anything else is an error of ours and is not retried.
_LOST: Final = (OperationalError, InterfaceError)
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
#: How long closing waits for queries under way.
_CLOSE_SECONDS: Final = 3.0


class AsyncEventReader:
    """Reads and follows channels without blocking the loop. Use as `async with AsyncEventReader(url) as reader`.

    Args:
        url: Our database, as `storage.database.app_url` gives it.
        poll_seconds: How often to look for what was not announced.
    """

    def __init__(self, url: URL, *, poll_seconds: float = 0.5) -> None:
        self._url = url.set(drivername="postgresql+psycopg")
        self._poll_seconds = poll_seconds
        #: A query may have several who wait for it, and must not be cut off with one of them.
        self._tasks = ShieldedTasks()
        self._fanout = Fanout(self._read_patiently, self._tasks)
        self._closed = asyncio.Event()
        #: Set while the LISTEN connection stands.
        self.listening = asyncio.Event()

    async def __aenter__(self) -> AsyncEventReader:
        """Start listening in the background; a database that is down is waited for."""
        self._engine: AsyncEngine = create_async_engine(
            self._url,
            pool_size=4,
            max_overflow=0,
            isolation_level="AUTOCOMMIT",  # each look is one statement: BEGIN and ROLLBACK cost a round trip each
            connect_args={"connect_timeout": 10},
        )
        self._listening = self._tasks.start(self._listen())
        self._tasks.start(self._poll())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every follower's stream and close the connections."""
        self._closed.set()
        self._fanout.close()
        self._listening.cancel()
        await self._tasks.close(_CLOSE_SECONDS)
        await self._engine.dispose()

    @property
    def followers(self) -> dict[str, int]:
        """How many followers each channel has now."""
        return self._fanout.followers

    async def read(self, channel: str, after: Position | None = None, limit: int = BATCH) -> list[Event]:
        """Return up to `limit` events behind `after`; see `EventLog.read`."""
        return await self._tasks.run(self._read(channel, after, limit))

    async def position(self, channel: str) -> Position | None:
        """Return the position of the channel's last event, or None while it has none."""
        return await self._tasks.run(self._position(channel))

    async def latest(
        self, channel: str, types: Sequence[str]
    ) -> tuple[Position | None, dict[str, dict[str, Any]]]:
        """Return the position of the channel's last event (None: it has none) and the newest data of each type."""
        return await self._tasks.run(self._latest(channel, types))

    async def follow(self, channel: str, after: Position | None = None) -> AsyncIterator[Event]:
        """Yield every event behind `after`, then each new one as it comes; none is lost, none comes twice.

        The channel need not exist yet. The stream ends when the reader is closed; while the database is down it
        waits. A follower that takes its time only delays itself.

        Raises:
            UnrecoverablePosition: `after` is of another epoch, or what follows it is no longer kept.
        """
        async with aclosing(self.follow_batches(channel, after)) as batches:
            async for events in batches:
                for event in events:
                    yield event

    async def follow_batches(
        self, channel: str, after: Position | None = None
    ) -> AsyncGenerator[Sequence[Event]]:
        """Yield what `follow` yields, what has come at a time, shared with other followers; errors as `follow`."""
        with self._fanout.following(channel, after) as follower:
            while events := await follower.next():
                yield events

    async def _read_patiently(self, channel: str, after: Position | None) -> list[Event]:
        pause = _FIRST_PAUSE
        while not self._closed.is_set():
            try:
                return await self._read(channel, after, BATCH)
            except _LOST:
                await self._closes_within(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        return []

    async def _read(self, channel: str, after: Position | None, limit: int) -> list[Event]:
        rows = await self._rows(READ, read_values(channel, after, limit))
        return events_of(rows, channel, after)

    async def _position(self, channel: str) -> Position | None:
        wanted = select(CHANNELS.c.epoch, CHANNELS.c.last_offset).where(CHANNELS.c.channel == channel)
        rows = await self._rows(wanted)
        return Position(rows[0].epoch, rows[0].last_offset) if rows else None

    async def _rows(self, statement: Executable, values: dict[str, Any] | None = None) -> Sequence[Row[Any]]:
        """Ask; once more where the connection had been lost while it was idle (asking first would cost each look)."""
        try:
            async with self._engine.connect() as connection:
                return (await connection.execute(statement, values)).all()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        async with self._engine.connect() as connection:
            return (await connection.execute(statement, values)).all()

    async def _latest(
        self, channel: str, types: Sequence[str]
    ) -> tuple[Position | None, dict[str, dict[str, Any]]]:
        rows = await self._rows(LATEST, {"channel": channel, "types": list(types)})
        if not rows:
            return None, {}
        newest = {row.type: row.data for row in rows if row.type is not None}
        return Position(rows[0].epoch, rows[0].last_offset), newest

    async def _listen(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                async with await self._connected() as connection:
                    await connection.execute(f"LISTEN {ANNOUNCEMENTS}")
                    pause = _FIRST_PAUSE
                    self.listening.set()
                    self._fanout.announce_all()  # for what was announced while nobody listened
                    async for announcement in connection.notifies():
                        self._fanout.announce(announcement.payload.partition(" ")[2])
            except psycopg.OperationalError:
                pass  # cut off or not up yet: try again; the poll goes on meanwhile
            finally:
                self.listening.clear()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _connected(self) -> psycopg.AsyncConnection[tuple[object, ...]]:
        """Return a connection to listen on; when cancelled, finish the handshake and close it first."""
        arguments = {**libpq_arguments(self._url), "application_name": "gpt-trader listener"}
        connecting = asyncio.ensure_future(psycopg.AsyncConnection.connect(**arguments, autocommit=True))
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            with contextlib.suppress(psycopg.OperationalError):
                await (await connecting).close()
            raise

    async def _poll(self) -> None:
        while not await self._closes_within(self._poll_seconds):
            followed = list(self._fanout.followers)
            if not followed:
                continue
            wanted = select(CHANNELS.c.channel, CHANNELS.c.epoch, CHANNELS.c.last_offset)
            try:
                rows = await self._rows(wanted.where(CHANNELS.c.channel.in_(followed)))
            except _LOST:
                continue
            self._fanout.compare({row.channel: Position(row.epoch, row.last_offset) for row in rows})

    async def _closes_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)
        return self._closed.is_set()
