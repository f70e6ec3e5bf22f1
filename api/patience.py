"""How long a client may take to ask, and how large a request's head may be. Uvicorn waits and collects without end."""

from __future__ import annotations

import secrets
from asyncio import Transport
from asyncio.events import TimerHandle
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.errors import problem_response

#: Seconds from the connection (or the first byte of a further request) to the end of the request's head.
HEAD_SECONDS: Final = 10.0

#: Seconds from there to the end of its body.
BODY_SECONDS: Final = 30.0

#: Bytes that the target and all headers together may have.
HEAD_BYTES: Final = 32 * 1024

#: Bytes of a body that are still taken once its request has been answered: a client may read the answer late.
DRAINED_BYTES: Final = 4 * 1024 * 1024

#: Requests that may wait on one connection behind the one that is being answered: each takes some kilobytes here.
PIPELINED: Final = 32

#: Where the scope holds the connection, for a stream whose client has to be cut off.
TRANSPORT: Final = "gpt_trader.transport"

_TOO_SLOW: Final = (408, "request-timeout", "Request Timeout", "the request did not arrive in time")
_TOO_LARGE: Final = (
    431,
    "head-too-large",
    "Request Header Fields Too Large",
    f"a request's head may have {HEAD_BYTES:,} bytes",
)


class PatientHttp(HttpToolsProtocol):
    """Uvicorn's protocol with bounds: what drips in is ended with 408, a huge head with 431, a flood is cut."""

    _patience: TimerHandle | None = None
    _head_bytes = 0
    _body_bytes = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override] # as uvicorn's own
        """Start to wait for the first request."""
        super().connection_made(transport)
        self._wait(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._arrived()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Start to wait for the head, unless the connection's first request is being waited for."""
        super().on_message_begin()
        self._head_bytes = self._body_bytes = 0
        if self._patience is None:
            self._wait(HEAD_SECONDS)

    def on_url(self, url: bytes) -> None:
        """Count the target's bytes."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header's bytes."""
        super().on_header(name, value)
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Wait for the body from here on."""
        self._arrived()
        self._wait(BODY_SECONDS)
        if len(self.pipeline) >= PIPELINED:
            self.transport.close()  # without an answer, which would be taken for an earlier request's
        if not self.transport.is_closing():
            extensions: dict[str, Any] = self.scope.setdefault("extensions", {})
            extensions[TRANSPORT] = self.transport
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body; end a client that sends on and on after its answer."""
        self._body_bytes += len(body)
        if self.transport.is_closing():
            return
        if self._body_bytes > DRAINED_BYTES and self.cycle.response_complete:
            self.transport.close()
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait no longer: everything is here."""
        self._arrived()
        if not self.transport.is_closing():
            super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Wait no longer: the WebSocket has bounds of its own."""
        self._arrived()
        super().handle_websocket_upgrade()

    def _wait(self, seconds: float) -> None:
        self._patience = self.loop.call_later(seconds, self._end, *_TOO_SLOW)

    def _arrived(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._end(*_TOO_LARGE)

    def _end(self, status: int, name: str, title: str, detail: str) -> None:
        """Answer by hand, as nothing behind this protocol knows of the request, and close."""
        problem = problem_response(secrets.token_hex(16), status, name, title, detail)
        lines = [f"HTTP/1.1 {status} {title}".encode()]
        lines += [key + b": " + value for key, value in (*problem.raw_headers, (b"connection", b"close"))]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(problem.body)]))
        self.transport.close()
