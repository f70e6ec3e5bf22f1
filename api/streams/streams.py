"""All streams of one API process: its connections, its topics, and their end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

from api.principals import Principal
from api.streams.bounds import Bounds
from api.streams.connection import Connection
from api.streams.protocol import keyed, moment, placed
from api.streams.tally import Tally
from api.streams.topics import Topics
from storage.event_reader import AsyncEventReader

#: Looks at history at the same time: the followers need connections of the pool as well.
_READERS: Final = 2


class Streams:
    """The WebSocket's side of one API."""

    def __init__(self, reader: AsyncEventReader, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.tally = Tally()
        self.topics = Topics(reader, self.tally)
        self.reading = asyncio.Semaphore(_READERS)
        self.connections: set[Connection] = set()
        self.closing = False

    def shut_down(self) -> None:
        """Tell every client, and close; returns at once."""
        self.closing = True
        for connection in list(self.connections):
            connection.shut_down()

    def overview(self, principal: Principal) -> dict[str, Any]:
        """Return connections and channels as they are now: all for an admin, for others their own."""
        mine = [each for each in self.connections if _sees(principal, each)]
        names = {stream.log for each in mine for stream in each.streams}
        topics = [
            topic for topic in self.topics.all if topic.stream.log in names or principal.owns_everything
        ]
        return {
            "connections": [_connection(each) for each in sorted(mine, key=lambda each: each.number)],
            "channels": [
                {
                    "channel": topic.stream.channel,
                    **keyed(topic.stream.key),
                    **placed(topic.position),
                    "subscribers": sum(topic.stream.log in {s.log for s in each.streams} for each in mine),
                }
                for topic in sorted(topics, key=lambda topic: topic.stream.log)
            ],
        }


def _sees(principal: Principal, connection: Connection) -> bool:
    holder = connection.identity.principal
    return principal.owns_everything or (holder is not None and holder.id == principal.id)


def _connection(connection: Connection) -> dict[str, Any]:
    holder = connection.identity.principal
    outbox = connection.outbox
    return {
        "number": connection.number,
        "principal": holder.id if holder else None,
        "address": connection.address,
        "codec": outbox.codec,
        "since": moment(datetime.fromtimestamp(connection.began, UTC)),
        "subscriptions": [{"channel": stream.channel, **keyed(stream.key)} for stream in connection.streams],
        "queued_messages": outbox.messages,
        "queued_bytes": outbox.bytes,
        "sent": outbox.sent,
        "conflated": outbox.conflated,
    }
