"""Server-sent events over any asynchronous iteration, with heartbeats and an orderly end.

Written by hand rather than with sse-starlette, which patches uvicorn for the whole process and looks for the
server's end every half second: here a stream ends the moment the server starts to close, and the client
resumes with `Last-Event-ID`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

import orjson
from starlette.responses import StreamingResponse

HEARTBEAT_SECONDS: Final = 15.0
MEDIA_TYPE: Final = "text/event-stream"

_HEARTBEAT: Final = b": heartbeat\n\n"


def frame(event: str, data: object, event_id: str | None = None) -> bytes:
    """Return one event as the bytes of the stream; `data` becomes one line of JSON."""
    head = b"" if event_id is None else b"id: " + event_id.encode() + b"\n"
    return head + b"event: " + event.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


async def paced(
    frames: AsyncGenerator[bytes, None], closing: asyncio.Event, heartbeat: float = HEARTBEAT_SECONDS
) -> AsyncIterator[bytes]:
    """Yield the frames as they come, a heartbeat in each silence, and end when the server closes.

    The pending read of the source is one task that survives a heartbeat: cancelling it would end the source.
    """
    closed = asyncio.create_task(closing.wait())
    async with aclosing(frames):
        pending = asyncio.ensure_future(anext(frames, None))
        try:
            while True:
                await asyncio.wait({pending, closed}, timeout=heartbeat, return_when=asyncio.FIRST_COMPLETED)
                if pending.done():
                    produced = pending.result()
                    if produced is None:
                        return
                    yield produced
                    pending = asyncio.ensure_future(anext(frames, None))
                elif closed.done():
                    return
                else:
                    yield _HEARTBEAT
        finally:
            closed.cancel()
            pending.cancel()
            await asyncio.gather(pending, closed, return_exceptions=True)


def response(frames: AsyncGenerator[bytes, None], closing: asyncio.Event) -> StreamingResponse:
    """Return the streaming response; proxies are asked not to buffer it."""
    headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    return StreamingResponse(paced(frames, closing), media_type=MEDIA_TYPE, headers=headers)
