"""Server-sent events over any asynchronous iteration, with heartbeats and an orderly end.

Framing, heartbeats and disconnects are sse-starlette's. The server's end is ours: sse-starlette looks for it every
half second and cancels; here a stream ends the moment the server starts to close, between two events, and the client
resumes with `Last-Event-ID`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Final

import orjson
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import AppStatus

#: Waits until the client may have no more, and says why.
Ending = Callable[[], Coroutine[None, None, str]]

HEARTBEAT_SECONDS: Final = 15.0
MEDIA_TYPE: Final = "text/event-stream"

#: A client that takes nothing for so long is gone; it comes back with its `Last-Event-ID`.
SEND_SECONDS: Final = 30.0

AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]  # the library has no types there


def frame(event: str, data: object, event_id: str | None = None) -> bytes:
    """Return one event as the bytes of the stream; `data` becomes one line of JSON."""
    head = b"" if event_id is None else b"id: " + event_id.encode() + b"\n"
    return head + b"event: " + event.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


async def until(
    frames: AsyncGenerator[bytes, None], closing: asyncio.Event, ended: Ending | None = None
) -> AsyncGenerator[bytes, None]:
    """Yield the frames as they come; end when the server closes, or when `ended` does, with a comment that says why."""
    closed = asyncio.create_task(closing.wait())
    over = asyncio.create_task(ended()) if ended is not None else None
    ends = {closed} if over is None else {closed, over}
    async with aclosing(frames):
        pending = asyncio.ensure_future(anext(frames, None))
        try:
            while True:
                await asyncio.wait({pending, *ends}, return_when=asyncio.FIRST_COMPLETED)
                if over is not None and over.done():
                    yield f": {over.result()}\n\n".encode()
                    return
                produced = pending.result() if pending.done() else None
                if produced is None:
                    return
                yield produced
                pending = asyncio.ensure_future(anext(frames, None))
        finally:
            tasks = (pending, *ends)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def response(
    frames: AsyncGenerator[bytes, None],
    closing: asyncio.Event,
    heartbeat: float = HEARTBEAT_SECONDS,
    ended: Ending | None = None,
) -> EventSourceResponse:
    """Return the streaming response; a comment every `heartbeat` seconds keeps proxies awake.

    Args:
        frames: What is streamed.
        closing: Set when the server closes.
        heartbeat: Seconds.
        ended: Returns, with the reason, when the client may have no more.
    """
    return EventSourceResponse(
        until(frames, closing, ended),
        ping=heartbeat,
        ping_message_factory=lambda: ServerSentEvent(comment="heartbeat", sep="\n"),
        sep="\n",
        send_timeout=SEND_SECONDS,
    )
