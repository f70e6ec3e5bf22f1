"""Fan-out: one follower of the event log a stream and process, whose events go to every subscription of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Protocol

import structlog

from api.streams.channels import Stream
from api.streams.encoding import Frame
from api.streams.protocol import publication
from api.streams.tally import Tally
from gpt_trader.errors import GptTraderError
from storage.event_reader import AsyncEventReader
from storage.events import Event, Position, UnrecoverablePosition

_log = structlog.get_logger("api")


class Subscriber(Protocol):
    """Who gets a topic's publications."""

    def deliver(self, frames: Sequence[Frame]) -> None:
        """Take publications, in order; must neither wait nor raise."""
        ...

    def lost(self, error: GptTraderError | None) -> None:
        """Learn that the topic has ended (None: by a fault of ours) and nothing more will come."""
        ...


class Topic:
    """One stream, followed."""

    def __init__(self, stream: Stream, reader: AsyncEventReader, tally: Tally) -> None:
        self.stream = stream
        self._tally = tally
        #: Everything up to here has been delivered; None: nothing was ever published.
        self.position: Position | None = None
        self.subscribers: set[Subscriber] = set()
        self.holders = 0
        self._reader = reader
        self._began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._follow(), name=f"topic {stream.log}")

    @property
    def ended(self) -> bool:
        """Whether it follows no more."""
        return self._task.done()

    async def began(self) -> None:
        """Wait until it follows; raise what kept it from that."""
        await asyncio.shield(self._began)

    async def end(self) -> None:
        """Stop following."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        error: GptTraderError | None = None
        try:
            async with AsyncExitStack() as stack:
                self.position = await self._reader.position(self.stream.log)
                if self.stream.attended is not None:
                    await stack.enter_async_context(self.stream.attended())
                self._began.set_result(None)
                batches = self._reader.follow_batches(self.stream.log, self.position)
                async for events in await stack.enter_async_context(aclosing(batches)):
                    self._publish(events)
        except UnrecoverablePosition as lost:
            error = lost
        except Exception as failure:  # noqa: BLE001 - told to those who wait, or below to its subscribers
            if self._began.done():
                _log.exception("a stream cannot be followed any more", channel=self.stream.log)
            else:
                self._began.set_exception(failure)
                self._began.exception()  # seen: whoever waited may have gone
        for subscriber in list(self.subscribers):
            subscriber.lost(error)

    def _publish(self, events: Sequence[Event]) -> None:
        frames = [self._frame(event) for event in events]
        self.position = events[-1].position
        for subscriber in list(self.subscribers):
            subscriber.deliver(frames)
        self._tally.passed_on(events[0])

    def _frame(self, event: Event) -> Frame:
        stream = self.stream
        conflation = f"{stream.log} {event.data.get('timeframe')}" if stream.conflates else None
        message = publication(stream.channel, stream.key, event)
        return Frame(message, offset=event.position.offset, conflation=conflation)


class Topics:
    """The topics of one process: made for the first subscription, ended after the last."""

    def __init__(self, reader: AsyncEventReader, tally: Tally) -> None:
        self._reader = reader
        self._tally = tally
        self._topics: dict[str, Topic] = {}

    @property
    def all(self) -> list[Topic]:
        """The topics that are followed now."""
        return list(self._topics.values())

    @asynccontextmanager
    async def held(self, stream: Stream) -> AsyncIterator[Topic]:
        """Keep a stream's topic alive inside the block; raise what keeps it from beginning."""
        topic = self._topics.get(stream.log)
        if topic is None or topic.ended:
            topic = self._topics[stream.log] = Topic(stream, self._reader, self._tally)
        topic.holders += 1
        try:
            await topic.began()
            yield topic
        finally:
            topic.holders -= 1
            if topic.holders == 0:
                if self._topics.get(stream.log) is topic:
                    del self._topics[stream.log]
                await topic.end()

    async def close(self) -> None:
        """End every topic."""
        await asyncio.gather(*(topic.end() for topic in self.all))
