"""Server-sent events over any asynchronous iteration, with heartbeats and an orderly end.

Framing, heartbeats and disconnects are sse-starlette's. The ends are ours: a stream ends the moment the server starts
to close, or its client's credential does, and the client resumes with `Last-Event-ID`; sse-starlette looks for the
server's end every half second. So is the look for clients that take nothing: a timer a stream, where the library's own,
a cancel scope around each piece, costs more than sending it (`benchmarks/streams.py`).
"""

from __future__ import annotations

import asyncio
import time
from asyncio import Transport
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final

import orjson
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import AppStatus, SendTimeoutError
from starlette.types import Message, Receive, Scope, Send

from api.patience import TRANSPORT

AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]  # the library has no types there

#: Waits until the client may have no more, and says why.
Ending = Callable[[], Coroutine[None, None, str]]

HEARTBEAT_SECONDS: Final = 15.0
MEDIA_TYPE: Final = "text/event-stream"

#: A client that takes nothing for so long is gone; it comes back with its `Last-Event-ID`.
SEND_SECONDS: Final = 30.0


def frame(event: str, data: object, event_id: str | None = None) -> bytes:
    """Return one event as the bytes of the stream; `data` becomes one line of JSON."""
    head = b"" if event_id is None else b"id: " + event_id.encode() + b"\n"
    return head + b"event: " + event.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


class EventStream(EventSourceResponse):
    """A stream of events that ends with its source, its client, its server, or its client's credential.

    Args:
        frames: What is streamed, in whole events.
        closing: Set when the server closes.
        heartbeat: Seconds between comments that keep proxies awake.
        ended: Returns, with the reason, when the client may have no more; the reason is the last comment.
        send_seconds: A client that takes nothing for so long is cut off.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        closing: asyncio.Event,
        *,
        heartbeat: float = HEARTBEAT_SECONDS,
        ended: Ending | None = None,
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        super().__init__(
            frames,
            ping=heartbeat,
            ping_message_factory=lambda: ServerSentEvent(comment="heartbeat", sep="\n"),
            sep="\n",
        )
        self._closing = closing
        self._ended = ended
        self._send_seconds = send_seconds
        self._sending_since: float | None = None
        self._last_words: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until one of the ends comes."""
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            _cut(scope)
            return
        if self._last_words is not None and self.active:
            last = f": {self._last_words}\n\n".encode() if self._last_words else b""
            await send({"type": "http.response.body", "body": last})

    async def _listen_for_exit_signal_with_grace(self) -> None:
        """Return when the stream is to end from outside; raise SendTimeoutError for a client that takes nothing."""
        closed = asyncio.create_task(self._closing.wait())
        over = asyncio.create_task(self._ended()) if self._ended is not None else None
        tasks: set[asyncio.Task[Any]] = {closed} | ({over} if over is not None else set())
        try:
            while not any(task.done() for task in tasks):
                await asyncio.wait(tasks, timeout=self._send_seconds, return_when=asyncio.FIRST_COMPLETED)
                since = self._sending_since
                if since is not None and time.monotonic() - since >= self._send_seconds:
                    raise SendTimeoutError
            self._last_words = over.result() if over is not None and over.done() else ""
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send_with_timeout(self, send: Send, message: Message) -> None:
        """Send a piece; the timer looks at since when one waits."""
        if (
            self._sending_since is not None
        ):  # pieces come one by one: this is a heartbeat, and the client takes nothing
            return
        self._sending_since = time.monotonic()
        await send(message)
        self._sending_since = None


def _cut(scope: Scope) -> None:
    """Cut a client off that reads nothing: closing alone would wait for it."""
    transport: Transport | None = scope.get("extensions", {}).get(TRANSPORT)
    if transport is not None:
        transport.abort()
