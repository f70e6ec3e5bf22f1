"""Follow the event log from an event loop: one LISTEN connection a process, any number of followers.

An announcement wakes the followers of its channel, and each then reads what is behind its own position; followers
that wake together at one position share one query. Because announcements may get lost (a cut connection, a
restarted server), one small query every half second asks whether any followed channel is ahead of its followers.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

import psycopg
from sqlalchemy import URL, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from storage.events import ANNOUNCEMENTS, BATCH, READ, Event, Position, events_of, read_values
from storage.tables import CHANNELS

#: What a lost or refused connection raises; anything else is an error of ours and is not retried.
_LOST: Final = (OperationalError, InterfaceError)
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0


@dataclass(eq=False)
class _Follower:
    position: Position | None
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class AsyncEventReader:
    """Reads and follows channels without blocking the loop. Use as `async with AsyncEventReader(url) as reader`.

    Args:
        url: Our database, as `storage.database.app_url` gives it.
        poll_seconds: How often to look for what was not announced.
    """

    def __init__(self, url: URL, *, poll_seconds: float = 0.5) -> None:
        self._url = url.set(drivername="postgresql+psycopg")
        self._poll_seconds = poll_seconds
        self._followers: defaultdict[str, set[_Follower]] = defaultdict(set)
        self._wakes: defaultdict[str, int] = defaultdict(int)
        self._reads: dict[tuple[str, Position | None, int], asyncio.Task[list[Event]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        #: Set while the LISTEN connection stands.
        self.listening = asyncio.Event()

    async def __aenter__(self) -> AsyncEventReader:
        """Start listening in the background; a database that is down is waited for."""
        self._engine: AsyncEngine = create_async_engine(
            self._url, pool_size=4, max_overflow=0, pool_pre_ping=True, connect_args={"connect_timeout": 10}
        )
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._poll())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every follower's stream and close the connections."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        self._wake_all()
        await asyncio.gather(*self._tasks, *self._reads.values(), return_exceptions=True)
        await self._engine.dispose()

    @property
    def followers(self) -> dict[str, int]:
        """How many followers each channel has now."""
        return {channel: len(followers) for channel, followers in self._followers.items()}

    async def read(self, channel: str, after: Position | None = None, limit: int = BATCH) -> list[Event]:
        """Return up to `limit` events behind `after`; see `EventLog.read`."""
        async with self._engine.connect() as connection:
            rows = (await connection.execute(READ, read_values(channel, after, limit))).all()
        return events_of(rows, channel, after)

    async def position(self, channel: str) -> Position | None:
        """Return the position of the channel's last event, or None while it has none."""
        wanted = select(CHANNELS.c.epoch, CHANNELS.c.last_offset).where(CHANNELS.c.channel == channel)
        async with self._engine.connect() as connection:
            row = (await connection.execute(wanted)).one_or_none()
        return None if row is None else Position(row.epoch, row.last_offset)

    async def follow(self, channel: str, after: Position | None = None) -> AsyncIterator[Event]:
        """Yield every event behind `after`, then each new one as it comes; none is lost, none comes twice.

        The channel need not exist yet. The stream ends when the reader is closed; while the database is down it
        waits. A follower that takes its time only delays itself.

        Raises:
            UnrecoverablePosition: `after` is of another epoch, or what follows it is no longer kept.
        """
        follower = _Follower(after)
        self._followers[channel].add(follower)
        try:
            while not self._closed:
                follower.wake.clear()  # before the read: what comes during it wakes us again
                events = await self._read_patiently(channel, follower)
                for event in events:
                    follower.position = event.position
                    yield event
                if len(events) < BATCH:
                    await follower.wake.wait()
        finally:
            self._followers[channel].discard(follower)
            if not self._followers[channel]:
                del self._followers[channel]
                self._wakes.pop(channel, None)

    async def _read_patiently(self, channel: str, follower: _Follower) -> list[Event]:
        pause = _FIRST_PAUSE
        while not self._closed:
            try:
                return await self._read_shared(channel, follower.position)
            except _LOST:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        return []

    async def _read_shared(self, channel: str, after: Position | None) -> list[Event]:
        """Read, or join a read of the same that began after the last wake-up (an older one may miss its event)."""
        key = (channel, after, self._wakes[channel])
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = asyncio.create_task(self.read(channel, after))
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)  # one follower's end must not cancel the others' read

    def _forget(self, key: tuple[str, Position | None, int], done: asyncio.Task[list[Event]]) -> None:
        del self._reads[key]
        if not done.cancelled():
            done.exception()  # mark as seen: the followers that waited for it may be gone

    async def _listen(self) -> None:
        pause = _FIRST_PAUSE
        address = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    address, autocommit=True, connect_timeout=10, application_name="gpt-trader listener"
                ) as connection:
                    await connection.execute(f"LISTEN {ANNOUNCEMENTS}")
                    pause = _FIRST_PAUSE
                    self.listening.set()
                    self._wake_all()  # for what was announced while nobody listened
                    async for announcement in connection.notifies():
                        self._wake(announcement.payload.partition(" ")[2])
            except psycopg.OperationalError:
                pass  # cut off or not up yet: try again; the poll goes on meanwhile
            finally:
                self.listening.clear()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            if not self._followers:
                continue
            wanted = select(CHANNELS.c.channel, CHANNELS.c.epoch, CHANNELS.c.last_offset)
            try:
                async with self._engine.connect() as connection:
                    rows = await connection.execute(
                        wanted.where(CHANNELS.c.channel.in_(list(self._followers)))
                    )
            except _LOST:
                continue
            latest = {row.channel: Position(row.epoch, row.last_offset) for row in rows}
            for channel, followers in self._followers.items():
                if any(follower.position != latest.get(channel) for follower in followers):
                    self._wake(channel)

    def _wake(self, channel: str) -> None:
        if channel in self._followers:
            self._wakes[channel] += 1
            for follower in self._followers[channel]:
                follower.wake.set()

    def _wake_all(self) -> None:
        for channel in self._followers:
            self._wake(channel)
