"""Server-sent events over any asynchronous iteration, with heartbeats and an orderly end.

A stream ends the moment the server starts to close, or its client's credential does, and the client resumes with
`Last-Event-ID`. One task a client waits for what is to be sent and sends it; sse-starlette, which wraps each piece in a
task, a cancel scope and a lock, cost 2 to 3 times as much a delivery (`benchmarks/streams.py`).
"""

from __future__ import annotations

import asyncio
import time
from asyncio import Transport
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.patience import TRANSPORT

#: Waits until the client may have no more, and says why.
Ending = Callable[[], Coroutine[None, None, str]]

HEARTBEAT_SECONDS: Final = 15.0
MEDIA_TYPE: Final = "text/event-stream"

#: A client that takes nothing for so long is gone; it comes back with its `Last-Event-ID`.
SEND_SECONDS: Final = 30.0

_HEARTBEAT: Final = b": heartbeat\n\n"


def frame(event: str, data: object, event_id: str | None = None) -> bytes:
    """Return one event as the bytes of the stream; `data` becomes one line of JSON."""
    head = b"" if event_id is None else b"id: " + event_id.encode() + b"\n"
    return head + b"event: " + event.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


class EventStream(Response):
    """A stream of events that ends with its source, its client, its server, or its client's credential.

    Args:
        frames: What is streamed, in whole events.
        closing: Set when the server closes.
        heartbeat: Seconds between comments that keep proxies awake.
        ended: Returns, with the reason, when the client may have no more; the reason is the last comment.
        send_seconds: A client that takes nothing for so long is cut off.
    """

    media_type = MEDIA_TYPE
    charset = "utf-8"

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        closing: asyncio.Event,
        *,
        heartbeat: float = HEARTBEAT_SECONDS,
        ended: Ending | None = None,
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._frames = frames
        self._closing = closing
        self._heartbeat = heartbeat
        self._ended = ended
        self._send_seconds = send_seconds
        self._sending_since: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until one of the ends comes."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pump = asyncio.create_task(self._pump(send))
        stuck = asyncio.create_task(self._keep_awake(send))
        gone = asyncio.create_task(_gone(receive))
        over = asyncio.create_task(self._ended()) if self._ended is not None else None
        tasks: set[asyncio.Task[Any]] = {pump, stuck, gone, asyncio.create_task(self._closing.wait())}
        tasks |= {over} if over is not None else set()
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not stuck.cancelled():
            _cut(scope)
            stuck.result()
            return
        if gone.done() and not gone.cancelled():
            return
        if not pump.cancelled():
            pump.result()  # raises what the source raised
        reason = over.result() if over is not None and not over.cancelled() else ""
        await send({"type": "http.response.body", "body": f": {reason}\n\n".encode() if reason else b""})

    async def _pump(self, send: Send) -> None:
        async with aclosing(self._frames) as frames:
            async for content in frames:
                self._sending_since = time.monotonic()
                await send({"type": "http.response.body", "body": content, "more_body": True})
                self._sending_since = None

    async def _keep_awake(self, send: Send) -> None:
        """Send heartbeats; return once the client has not taken anything for too long."""
        while True:
            await asyncio.sleep(self._heartbeat)
            since = self._sending_since
            if since is None:
                await send({"type": "http.response.body", "body": _HEARTBEAT, "more_body": True})
            elif time.monotonic() - since > self._send_seconds:
                return


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _cut(scope: Scope) -> None:
    """Cut a client off that reads nothing: closing alone would wait for it."""
    transport: Transport | None = scope.get("extensions", {}).get(TRANSPORT)
    if transport is not None:
        transport.abort()
