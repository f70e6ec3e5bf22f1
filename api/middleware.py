"""Pure ASGI middlewares: the request's frame (id, headers, last resort), who may talk to us, how much.

`BaseHTTPMiddleware` costs three times as much a request and breaks streaming; these wrap `send` once.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
import time
from collections.abc import Sequence
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem_response
from api.limits import route_of
from api.logs import RequestLines
from api.metrics import Metrics

BODY_LIMIT: Final = 1024 * 1024

_log = structlog.get_logger("api")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECURITY_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)


class RequestFrame:
    """Outermost: gives each request an id, each response its security headers, each surprise a 500.

    A response that sets one of the headers itself keeps its own value (a report needs its own policy).
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics
        self._lines = RequestLines()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        started, status, begun = False, 0, time.perf_counter()

        async def framed(message: Message) -> None:
            nonlocal started, status
            if message["type"] == "http.response.start":
                started, status = True, message["status"]
                headers = message["headers"] = list(message["headers"])
                given = {name for name, _ in headers}
                headers.extend(header for header in _SECURITY_HEADERS if header[0] not in given)
                headers.extend(
                    header for header in scope["state"].get("headers", ()) if header[0] not in given
                )
                headers.append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await self.app(scope, receive, framed)
        except ClientDisconnect:  # it went away, or was ended for its slowness, while its body was awaited
            pass
        except Exception as error:  # the last resort: logged here, told to the client without its inside
            _log.exception("unexpected error", request_id=request_id, path=scope["path"])
            if started:
                raise  # half an answer is out: let the server cut the connection
            response = problem_response(
                request_id,
                500,
                "unexpected",
                "Something went wrong inside",
                f"an unexpected {type(error).__name__}; the API's log has it under this request id",
            )
            await response(scope, receive, framed)
        finally:
            self._tell(scope, status, time.perf_counter() - begun)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        """Count and log one request that was answered (status 0: its client went away before)."""
        route = route_of(scope)
        self._metrics.answered(route, status, seconds)
        run_id = scope.get("path_params", {}).get("run_id")
        self._lines.write(
            route=route,
            status=status,
            ms=round(seconds * 1e3, 2),
            request_id=scope["state"]["request_id"],
            **({"run_id": str(run_id)} if run_id else {}),
        )


class TrustedSource:
    """Refuses a foreign `Host` (DNS rebinding, 421) and a foreign `Origin` (403).

    Allowed hosts: loopback names, the bound address, the names that the settings give (a reverse proxy's) and, when
    bound beyond loopback, any address literal and this machine's own name: rebinding needs a DNS name that the attacker
    owns. Allowed origins: our own, and those that the settings name.
    """

    def __init__(
        self, app: ASGIApp, bound: str, names: Sequence[str] = (), origins: Sequence[str] = ()
    ) -> None:
        self.app = app
        self._names = {"localhost", "127.0.0.1", "::1", bound.lower(), *(name.lower() for name in names)}
        self._origins = frozenset(origins)
        self._any_literal = not _is_loopback(bound)
        if self._any_literal:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the handshake of a WebSocket: a web page may open one to any host."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        origin = headers.get("origin")
        request_id = scope["state"]["request_id"]
        if not self.knows(host):
            shown = host[:80]
            refusal = problem_response(
                request_id,
                421,
                "foreign-host",
                "This engine is not that host",
                f"the Host header says {shown!r}; use the engine's own address, e.g. http://127.0.0.1",
            )
        elif origin is not None and origin.partition("://")[2] != host and origin not in self._origins:
            refusal = problem_response(
                request_id,
                403,
                "foreign-origin",
                "Requests from other sites are refused",
                f"the Origin {origin[:80]!r} is not this engine; call it from a program, not from a web page",
            )
        else:
            await self.app(scope, receive, send)
            return
        await refusal(scope, receive, send)

    def knows(self, host: str) -> bool:
        """Return whether a `Host` header's value (with or without a port) means this engine."""
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return name.lower() in self._names or (self._any_literal and _is_address(name))


class BodyLimit:
    """Refuses a body over the limit: by its announced length, and by counting where none is announced."""

    def __init__(self, app: ASGIApp, limit: int = BODY_LIMIT) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(Headers(scope=scope), scope["state"]["request_id"])
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.limit:
                # FastAPI passes an HTTPException on, and turns anything else into a 400.
                raise HTTPException(413, self._detail, headers={"Connection": "close"})
            return message

        await self.app(scope, counted, send)

    def _refusal(self, headers: Headers, request_id: str) -> Response | None:
        """Return the answer to a body that need not be read; the connection is closed, to be rid of the rest."""
        closing = {"Connection": "close"}
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self.limit:
            return problem_response(
                request_id, 413, "body-too-large", "The body is too large", self._detail, headers=closing
            )
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity":  # a few bytes may unpack to gigabytes
            detail = f"a body is taken as it is, not as {encoding[:40]!r}: leave Content-Encoding out"
            title = "Unsupported media type"
            return problem_response(request_id, 415, "unsupported-media-type", title, detail, headers=closing)
        return None

    @property
    def _detail(self) -> str:
        return f"a body may have {self.limit:,} bytes; bring more bars with a file of the csv source"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)
