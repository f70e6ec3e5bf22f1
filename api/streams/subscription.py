"""One client's subscription: its beginning (snapshot, or recovery from a position), then what is published.

Gapless and without repetition: history is read until it has reached what the topic has delivered; from that very
moment on the topic delivers, and what history has told already is passed over by its offset.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from api.streams.channels import Stream
from api.streams.encoding import Frame, encoded
from api.streams.outbox import Outbox
from api.streams.protocol import (
    Recovery,
    keyed,
    placed,
    publication,
)
from api.streams.topics import Topic, Topics
from gpt_trader.errors import GptTraderError
from storage.event_reader import AsyncEventReader
from storage.events import Event, Position, UnrecoverablePosition

#: Events in one look at history, and most publications in the answer to a recovery.
PAGE: Final = 100

#: Bytes that the publications of one answer may have: many clients refuse a message of more than a megabyte.
ANSWER_BYTES: Final = 256 * 1024


class Subscription:
    """A stream on its way to one client.

    Args:
        stream: What is subscribed.
        outbox: The client's.
        ended: Called with why it ended by itself (None: a fault of ours).
    """

    def __init__(
        self,
        stream: Stream,
        outbox: Outbox,
        ended: Callable[[Subscription, GptTraderError | None], None],
    ) -> None:
        self.stream = stream
        self._outbox = outbox
        self._ended = ended
        self._offset = 0
        self._lost = asyncio.Event()

    async def run(
        self,
        topics: Topics,
        reader: AsyncEventReader,
        reading: asyncio.Semaphore,
        answered: int | str | None,
        recovery: Recovery | None,
    ) -> None:
        """Begin, and hold the topic until cancelled or lost.

        Raises UnrecoverablePosition, and what the database raises, before the client was told that it is subscribed.
        """
        async with topics.held(self.stream) as topic:
            if recovery is None:
                at = await self._begin(topic, answered)
            else:
                at = await self._recover(reader, reading, answered, recovery)
            await self._catch_up(topic, reader, reading, at)
            try:
                await self._lost.wait()
            finally:
                topic.subscribers.discard(self)

    def deliver(self, frames: Sequence[Frame]) -> None:
        """Pass publications on; see `Subscriber`."""
        if frames[0].offset <= self._offset:
            frames = [frame for frame in frames if frame.offset > self._offset]
            if not frames:
                return
        self._offset = frames[-1].offset
        self._outbox.put_all(frames)

    def lost(self, error: GptTraderError | None) -> None:
        """End, and say so; see `Subscriber`."""
        self._lost.set()
        self._ended(self, error)

    async def _begin(self, topic: Topic, answered: int | str | None) -> Position | None:
        """Answer with where the stream is, and with its state where it has one; return the position."""
        at = topic.position  # before the state is read: what is published meanwhile comes after it
        state = None
        if self.stream.snapshot is not None:
            known, state = await self.stream.snapshot()
            at = known or at
        self._answer(answered, at, [], recovered=False)
        if state is not None:
            snapshot = {"type": "snapshot", **self._name(), **placed(at), "data": state}
            self._outbox.put(Frame(snapshot))
        return at

    async def _recover(
        self,
        reader: AsyncEventReader,
        reading: asyncio.Semaphore,
        answered: int | str | None,
        recovery: Recovery,
    ) -> Position | None:
        """Answer with what came after the client's position (its first page); return the position reached."""
        after = recovery.position
        if after is None and recovery.offset:
            raise UnrecoverablePosition("an offset without its epoch is no position")
        events = await self._read(reader, reading, after)
        if after is None:
            await self._demand_all(reader, events)
        told = _fitting(events)
        at = told[-1].position if told else after
        self._answer(answered, at, told, recovered=True)
        return at

    async def _demand_all(self, reader: AsyncEventReader, events: Sequence[Event]) -> None:
        """Raise where the channel's beginning is no longer kept."""
        now = None if events else await reader.position(self.stream.log)
        if (events and events[0].position.offset != 1) or (now is not None and now.offset > 0):
            raise UnrecoverablePosition(f"the beginning of {self.stream.channel} is no longer kept")

    async def _catch_up(
        self, topic: Topic, reader: AsyncEventReader, reading: asyncio.Semaphore, at: Position | None
    ) -> None:
        """Tell what history has beyond `at`, as the client takes it, until the topic can go on; let it."""
        while _is_behind(at, topic.position):
            events = await self._read(reader, reading, at)
            if not events:
                raise UnrecoverablePosition(f"what follows in {self.stream.channel} is no longer kept")
            for event in events:
                await self._outbox.room()
                self._outbox.put(Frame(publication(self.stream.channel, self.stream.key, event)))
            at = events[-1].position
        # No await between the comparison and this: nothing can be published in between.
        self._offset = at.offset if at else 0
        topic.subscribers.add(self)
        if topic.ended:
            self.lost(None)

    async def _read(
        self, reader: AsyncEventReader, reading: asyncio.Semaphore, after: Position | None
    ) -> list[Event]:
        async with reading:
            return await reader.read(self.stream.log, after, PAGE)

    def _answer(
        self, answered: int | str | None, at: Position | None, events: Sequence[Event], *, recovered: bool
    ) -> None:
        publications = [publication(self.stream.channel, self.stream.key, event) for event in events]
        message = {
            "type": "subscribed",
            "id": answered,
            **self._name(),
            **placed(at),
            "recovered": recovered,
            "publications": publications,
        }
        self._outbox.put(Frame(message))

    def _name(self) -> dict[str, str]:
        return {"channel": self.stream.channel, **keyed(self.stream.key)}


def _is_behind(at: Position | None, topic: Position | None) -> bool:
    """Return whether the topic has delivered what a reader at `at` has not.

    Of another epoch it has, too: reading from `at` then says that it cannot be resumed.
    """
    if topic is None:
        return False
    return at is None or at.epoch != topic.epoch or at.offset < topic.offset


def _fitting(events: Sequence[Event]) -> Sequence[Event]:
    """Return the first of the events, as many as one answer holds: at least one."""
    size = 0
    for count, event in enumerate(events):
        size += len(encoded(event.data, "json"))
        if size > ANSWER_BYTES and count:
            return events[:count]
    return events
