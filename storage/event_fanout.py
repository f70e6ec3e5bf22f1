"""Fan-out: one read for all followers of a channel that wait at one position; its result is what wakes them.

A follower that waits costs nothing until there is something for it, and then one step of the loop: with hundreds of
clients of one run, waking each to let it join a read cost more than anything else about a delivery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from gpt_trader.shielded_tasks import ShieldedTasks
from storage.events import BATCH, Event, Position

#: Returns up to `BATCH` events behind a position, and waits for a database that is down.
Read = Callable[[str, Position | None], Coroutine[Any, Any, list[Event]]]

#: No announcement's number: the next look is due whatever was announced.
_NONE: Final = -1


class Follower:
    """One who follows a channel, and stands at `position`."""

    __slots__ = ("_channel", "_fanout", "_waiting", "is_read_for", "position", "seen")

    def __init__(self, fanout: Fanout, channel: _Channel, position: Position | None) -> None:
        self._fanout = fanout
        self._channel = channel
        self._waiting: asyncio.Future[Sequence[Event]] | None = None
        self.position = position
        #: Whether a read is under way whose result it takes.
        self.is_read_for = False
        #: How many announcements had come when the last read for it began.
        self.seen = _NONE

    @property
    def waits(self) -> bool:
        """Whether it waits, and has been given nothing yet."""
        return self._waiting is not None and not self._waiting.done()

    async def next(self) -> Sequence[Event]:
        """Return what comes behind the position, and stand behind that; nothing comes only once all is closed.

        The events are shared with other followers. Raises what the read raises.
        """
        if self._fanout.closed:
            return ()
        self._waiting = asyncio.get_running_loop().create_future()
        if self.seen != self._channel.announced and not self.is_read_for:
            self._fanout.look(self._channel, (self,))
        events = await self._waiting
        if events:
            self.position = events[-1].position
            if len(events) >= BATCH:
                self.seen = _NONE  # there may be more
        return events

    def take(self, events: Sequence[Event]) -> None:
        """Wake with these events."""
        assert self._waiting is not None
        self._waiting.set_result(events)

    def fail(self, error: BaseException) -> None:
        """Wake with an error."""
        assert self._waiting is not None
        self._waiting.set_exception(error)


class _Reading:
    """A read under way: how many announcements had come when it began, and for whom it is."""

    __slots__ = ("announced", "followers")

    def __init__(self, announced: int) -> None:
        self.announced = announced
        self.followers: list[Follower] = []


class _Channel:
    """A channel that is followed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.followers: set[Follower] = set()
        #: How many announcements have come; a read that began before the last one may have missed its event.
        self.announced = 0
        #: The newest read at each position.
        self.readings: dict[Position | None, _Reading] = {}

    @property
    def idle(self) -> Iterator[Follower]:
        """Who waits for an announcement."""
        return (each for each in self.followers if each.waits and not each.is_read_for)


class Fanout:
    """The channels that are followed, and who follows them. Belongs to one event loop.

    Args:
        read: How events are read.
        tasks: Where reads run.
    """

    def __init__(self, read: Read, tasks: ShieldedTasks) -> None:
        self._read = read
        self._tasks = tasks
        self._channels: dict[str, _Channel] = {}
        self.closed = False

    @property
    def followers(self) -> dict[str, int]:
        """How many followers each channel has now."""
        return {name: len(channel.followers) for name, channel in self._channels.items()}

    @contextmanager
    def following(self, name: str, after: Position | None) -> Iterator[Follower]:
        """Follow a channel from behind a position while the block lasts."""
        channel = self._channels.setdefault(name, _Channel(name))
        follower = Follower(self, channel, after)
        channel.followers.add(follower)
        try:
            yield follower
        finally:
            channel.followers.discard(follower)
            if not channel.followers:
                del self._channels[name]

    def announce(self, name: str) -> None:
        """Look for all who wait; who does not wait looks when it does."""
        channel = self._channels.get(name)
        if channel is not None:
            channel.announced += 1
            self.look(channel, list(channel.idle))

    def announce_all(self) -> None:
        """Look on every channel."""
        for name in list(self._channels):
            self.announce(name)

    def compare(self, latest: Mapping[str, Position]) -> None:
        """Look on the channels where somebody waits elsewhere than at the latest position."""
        for name, channel in list(self._channels.items()):
            if any(follower.position != latest.get(name) for follower in channel.idle):
                self.announce(name)

    def look(self, channel: _Channel, followers: Iterable[Follower]) -> None:
        """Read for followers that wait, or let them share a read that began after the last announcement."""
        for follower in followers:
            position = follower.position
            reading = channel.readings.get(position)
            if reading is None or reading.announced != channel.announced:
                reading = channel.readings[position] = _Reading(channel.announced)
                task = self._tasks.start(self._read(channel.name, position))
                task.add_done_callback(partial(self._hand_out, channel, position, reading))
            reading.followers.append(follower)
            follower.is_read_for = True

    def close(self) -> None:
        """Let every follower end."""
        self.closed = True
        for channel in self._channels.values():
            for follower in channel.followers:
                if follower.waits:
                    follower.take(())

    def _hand_out(
        self, channel: _Channel, position: Position | None, reading: _Reading, task: asyncio.Task[list[Event]]
    ) -> None:
        """Wake those who still wait, with what was read or what kept it from that; read on where nothing was there."""
        if channel.readings.get(position) is reading:
            del channel.readings[position]
        error = None if task.cancelled() else task.exception()
        events = task.result() if not task.cancelled() and error is None else []
        missed = []
        for follower in reading.followers:
            follower.is_read_for = False
            follower.seen = reading.announced
            if not follower.waits:  # it has left
                continue
            if error is not None:
                follower.fail(error)
            elif events:
                follower.take(events)
            elif follower.seen != channel.announced:
                missed.append(follower)
        self.look(channel, missed)
