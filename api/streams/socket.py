"""The server's end of a WebSocket: uvicorn's protocol, with what a stream to many clients needs of it.

Uvicorn frames each message for each client and lets a client that stops reading hang for as long as TCP does. This
class writes frames that were made once, says whether the client keeps up, closes at any moment, and cuts a client that
does not take its close. It reaches the app through the scope's extensions.
"""

from __future__ import annotations

import logging
import socket
from asyncio.transports import BaseTransport
from typing import TYPE_CHECKING, Final

from starlette.types import Scope
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.http11 import Request

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

#: Where the scope holds the socket.
EXTENSION: Final = "gpt_trader.socket"

#: Bytes that the kernel may hold for a client: more would only make what a slow one gets older.
SEND_BUFFER: Final = 128 * 1024

#: Seconds that a client has to take the rest and the close; then the connection is cut.
CLOSE_SECONDS: Final = 5.0

#: Answers to protocol pings that may wait for a client that reads nothing.
_MOST_UNREAD: Final = 256 * 1024

_log = logging.getLogger("api.websocket")


class StreamSocket(WebSocketsSansIOProtocol):
    """One client's connection."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Bound what the kernel keeps for the client."""
        super().connection_made(transport)
        self.close_timeout = CLOSE_SECONDS
        # Uvicorn logs whole targets, and a ticket may stand in one. Errors of the app are still logged.
        self.logger = _log
        peer = transport.get_extra_info("socket")
        if peer is not None and peer.family in (socket.AF_INET, socket.AF_INET6):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def handle_connect(self, event: Request) -> None:
        """Hand this socket to the app."""
        super().handle_connect(event)
        scope = getattr(self, "scope", None)  # there is none where the handshake was refused
        if scope is not None:
            scope["extensions"][EXTENSION] = self

    async def send(self, message: ASGISendEvent) -> None:
        """Send what the app says; a refusal completes the handshake, or uvicorn would log it as the app's error."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

    def handle_ping(self) -> None:
        """Answer a protocol ping, unless the answers pile up unread."""
        if not self.writable.is_set() and self.unsent > _MOST_UNREAD:
            self.transport.abort()
            return
        super().handle_ping()

    def handle_parser_exception(self) -> None:
        """Close on a broken, oversize or misplaced frame, and see to it that the connection ends."""
        if self.close_sent:  # two broken frames in a row
            return
        super().handle_parser_exception()
        self._cut_later()

    @property
    def open(self) -> bool:
        """Whether anything can still be written."""
        return not (self.close_sent or self.disconnected or self.transport.is_closing())

    @property
    def unsent(self) -> int:
        """Bytes that this process holds for the client beyond the kernel's buffer."""
        return int(self.transport.get_write_buffer_size())

    def write(self, frame: bytes) -> None:
        """Write a whole frame; nothing where the connection has ended."""
        if self.open:
            self.transport.write(frame)

    def end(self, code: int, reason: str) -> None:
        """Close now, whether or not the client reads; it has `CLOSE_SECONDS` to take it."""
        if not self.open:
            return
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        try:
            self.conn.send_close(code, reason)
        except InvalidState:  # the client's close has just come in
            return
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
        self._cut_later()

    def _cut_later(self) -> None:
        """Cut the connection later: closing alone would wait for a client that reads nothing, for ever."""
        self.loop.call_later(2 * CLOSE_SECONDS, self.transport.abort)


def socket_of(scope: Scope) -> StreamSocket:
    """Return the socket of an ASGI scope; only the server of `api.main` puts it there."""
    found: StreamSocket = scope["extensions"][EXTENSION]
    return found
