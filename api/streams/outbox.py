"""What waits for one client: nothing while it reads, a bounded queue while it does not.

When the queue is full, frames that a later one may stand for are conflated to the latest, which says how many were
left out; where that makes no room the client is closed and recovers by offset. Nothing is dropped silently.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from api.streams.encoding import Codec, Frame
from api.streams.socket import StreamSocket

#: Bytes that are written together to a client that keeps up.
_AT_ONCE: Final = 64 * 1024


class _Waiting:
    """A queued frame, its size, and how many before it it stands for."""

    __slots__ = ("count", "frame", "size")

    def __init__(self, frame: Frame, size: int, count: int = 0) -> None:
        self.frame = frame
        self.size = size
        self.count = count


class Outbox:
    """The way out to one client.

    Args:
        socket: Where frames are written.
        codec: How this client has them.
        most_messages: Frames that may wait.
        most_bytes: Bytes that may wait (a single larger frame may, alone).
        overflow: Called once where neither is kept to; the queue is empty then.
    """

    def __init__(
        self,
        socket: StreamSocket,
        codec: Codec,
        *,
        most_messages: int,
        most_bytes: int,
        overflow: Callable[[], None],
    ) -> None:
        self.codec: Codec = codec
        self._socket = socket
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._overflow = overflow
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._emptied = asyncio.Event()
        self._emptied.set()
        #: Frames written, and frames that a later one stood for.
        self.sent = 0
        self.conflated = 0

    @property
    def messages(self) -> int:
        """Frames that wait."""
        return len(self._queue)

    @property
    def bytes(self) -> int:
        """Bytes that wait here or in the process's buffer for the client."""
        return self._bytes + self._socket.unsent

    def put(self, frame: Frame) -> None:
        """Write a frame, or queue it behind those that wait."""
        if not self._queue and self._socket.writable.is_set():
            self._socket.write(frame.wire(self.codec))
            self.sent += 1
            return
        self._enqueue(frame)

    def put_all(self, frames: Sequence[Frame]) -> None:
        """Put frames in order."""
        if len(frames) > 1 and not self._queue and self._socket.writable.is_set():
            # Together: each write is a call of the kernel.
            wires = [frame.wire(self.codec) for frame in frames]
            if sum(map(len, wires)) <= _AT_ONCE:
                self._socket.write(b"".join(wires))
                self.sent += len(wires)
                return
        for frame in frames:
            self.put(frame)

    async def room(self) -> None:
        """Wait until nothing waits: for whoever has more than the queue holds and can take its time."""
        await self._emptied.wait()
        await self._socket.writable.wait()

    def clear(self) -> None:
        """Forget what waits."""
        self._queue.clear()
        self._bytes = 0
        self._emptied.set()
        if self._writer is not None:
            self._writer.cancel()
            self._writer = None

    def _enqueue(self, frame: Frame) -> None:
        if not self._socket.open:
            return
        size = len(frame.wire(self.codec))
        waiting = _Waiting(frame, size)
        if self._is_full(size):
            self._conflate(waiting)
        if self._is_full(size):
            self.clear()
            self._overflow()
            return
        self._queue.append(waiting)
        self._bytes += size
        self._emptied.clear()
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    def _is_full(self, size: int) -> bool:
        if not self._queue:
            return False
        return len(self._queue) >= self._most_messages or self._bytes + size > self._most_bytes

    def _conflate(self, coming: _Waiting) -> None:
        """Leave the latest of each conflation in the queue alone; `coming` is the latest of its own."""
        latest = {coming.frame.conflation: coming}
        kept: deque[_Waiting] = deque()
        for waiting in reversed(self._queue):
            name = waiting.frame.conflation
            if name is not None and name in latest:
                latest[name].count += 1 + waiting.count
                self._bytes -= waiting.size
                self.conflated += 1
            else:
                latest[name] = waiting
                kept.appendleft(waiting)
        self._queue = kept

    async def _write(self) -> None:
        """Write what waits as the client takes it; end when nothing does."""
        while self._queue:
            await self._socket.writable.wait()
            if not self._socket.open:
                self._queue.clear()
                self._bytes = 0
            while self._queue and self._socket.writable.is_set():
                waiting = self._queue.popleft()
                self._bytes -= waiting.size
                self._socket.write(waiting.frame.conflated(waiting.count).wire(self.codec))
                self.sent += 1
        self._writer = None
        self._emptied.set()
