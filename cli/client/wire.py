"""One keep-alive HTTP connection to an API, on the standard library.

Measured: importing httpx and opening its client costs 100 to 150 ms on every command, `http.client` 40 ms, of a
command that shall take a few hundred. The API is ours and speaks plain HTTP/1.1, so nothing of httpx is missed.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from cli.client.problems import error_of
from gpt_trader.errors import EngineUnreachable, Problem, Refused

#: Seconds without a byte after which an answer is given up; the event stream's heartbeat comes every 15.
TIMEOUT: Final = 30.0
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class Target:
    """Where an API is and the key it wants; the key is never shown."""

    url: str
    key: str | None = None

    def __repr__(self) -> str:
        return f"Target(url={self.url!r})"


@dataclass(frozen=True)
class Reply:
    """A successful answer: status, headers (lower-case names) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 JSON is any of its types
        """Return the body parsed; raise EngineUnreachable where it is no JSON (something else listens there)."""
        try:
            return json.loads(self.body)
        except ValueError:
            start = self.body[:80].decode(errors="replace")
            raise EngineUnreachable(f"the server's answer is not JSON: {start!r}") from None


def checked_url(url: str) -> str:
    """Return the bare origin of a server's address; raise Refused where it is none."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    problem = None
    if parts.scheme not in ("http", "https"):
        problem = Problem("server", url, f"has the scheme {parts.scheme!r}", allowed="http://…, https://…")
    elif parts.username or parts.password:
        problem = Problem("server", "…", "must hold no password: give the key in GPT_TRADER_API_KEY")
    elif not parts.hostname or not _port_is_valid(url):
        problem = Problem("server", url, "is no address of a server", allowed="e.g. https://host:8000")
    if problem:
        raise Refused.of(problem)
    path = parts.path.rstrip("/").removesuffix("/api/v1")
    return f"{parts.scheme}://{parts.netloc}{path}"


def _port_is_valid(url: str) -> bool:
    try:
        _ = urlsplit(url if "://" in url else f"http://{url}").port
    except ValueError:
        return False
    return True


class Wire:
    """Sends requests over one connection, opened when first needed and opened anew after a cut.

    `revive` is called once when nobody listens at the address: it may start the engine and return where it is.
    `renew` is called with a key that was refused: it returns another one, or None where there is none.
    Not safe to share between threads.
    """

    def __init__(
        self,
        target: Target,
        *,
        revive: Callable[[], Target] | None = None,
        renew: Callable[[str], str | None] | None = None,
    ) -> None:
        self.target = target
        self._revive = revive
        self._renew = renew
        self.timeout = TIMEOUT
        self._connection: http.client.HTTPConnection | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request and return the answer; an error answer is raised as one of our errors.

        A request whose connection was cut is sent once more if that is safe: a GET, or an `Idempotency-Key`.
        """
        sent = dict(headers or {})
        payload = None
        if body is not None:
            payload = json.dumps(body, allow_nan=False).encode()
            sent["Content-Type"] = "application/json"
        elif form is not None:
            payload = urlencode(form).encode()
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        repeatable = method == "GET" or "Idempotency-Key" in sent
        where = _with_query(path, query)
        for attempt in (1, 2, 3):
            try:
                response = self._accepted(method, where, payload, sent)
                return _checked(response, response.read())
            except (http.client.HTTPException, OSError) as error:
                self.close()
                if not self._may_repeat(error, attempt, repeatable=repeatable):
                    raise self._unreachable(error) from error
        raise AssertionError("the third attempt is the last")

    def stream(self, path: str, headers: Mapping[str, str]) -> Generator[bytes]:
        """Yield the lines of a streamed answer as they come; the stream's end or a cut ends the iteration."""
        self.close()  # an answer that is still open would be taken for this one
        try:
            response = self._accepted("GET", path, None, dict(headers))
            if response.status == http.client.NO_CONTENT:  # everything has been told already
                response.read()
                return
            if response.status != http.client.OK:
                raise error_of(response.status, response.headers, response.read())
            while line := response.readline():
                yield line
        except (http.client.HTTPException, OSError) as error:
            raise self._unreachable(error) from error
        finally:
            self.close()

    def settle(self) -> None:
        """Start nothing from now on: whoever watches an engine must not bring back one that was told to end."""
        self._revive = None

    def renewed(self, refused: str) -> Target:
        """Return the target with another key than `refused`, where there is one."""
        key = self._renew(refused) if self._renew is not None else None
        if key is not None and key != refused:
            self.target = Target(self.target.url, key)
        return self.target

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _accepted(
        self, method: str, path: str, payload: bytes | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        """Exchange once, and once more with a renewed key where the first was refused: nothing was done then."""
        response = self._exchange(method, path, payload, headers)
        if response.status != http.client.UNAUTHORIZED or self._renew is None or self.target.key is None:
            return response
        refused = self.target.key
        if self.renewed(refused).key == refused:
            return response
        response.read()
        return self._exchange(method, path, payload, headers)

    def _exchange(
        self, method: str, path: str, payload: bytes | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        if self.target.key:
            headers["Authorization"] = f"Bearer {self.target.key}"
        headers.setdefault("Accept", "application/json")
        if self._connection is None:
            self._connection = _connect(self.target.url, self.timeout)
        prefix = urlsplit(self.target.url).path
        self._connection.request(method, prefix + path, payload, headers)
        return self._connection.getresponse()

    def _may_repeat(self, error: Exception, attempt: int, *, repeatable: bool) -> bool:
        """Decide about another attempt; where nobody listens, revive first (nothing was sent, so it is safe)."""
        if isinstance(error, ConnectionRefusedError) and self._revive is not None:
            revive, self._revive = self._revive, None
            self.target = revive()
            return True
        return repeatable and attempt == 1 and not isinstance(error, TimeoutError)

    def _unreachable(self, error: Exception) -> EngineUnreachable:
        return EngineUnreachable(f"no answer from {self.target.url}: {_in_words(error, self.timeout)}")


def _connect(url: str, timeout: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    host = parts.hostname or ""
    make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    proxy = None if host in LOOPBACK else _proxy_of(parts.scheme, host)
    if proxy is None:
        return make(host, parts.port, timeout=timeout)
    through = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    connection = make(through.hostname or "", through.port or 8080, timeout=timeout)
    connection.set_tunnel(host, parts.port or (443 if parts.scheme == "https" else 80))
    return connection


def _proxy_of(scheme: str, host: str) -> str | None:
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # costs 30 ms: only where a proxy is configured

    return None if proxy_bypass(host) else getproxies().get(scheme)


def _with_query(path: str, query: Mapping[str, object] | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def _checked(response: http.client.HTTPResponse, content: bytes) -> Reply:
    if response.status >= http.client.BAD_REQUEST:
        raise error_of(response.status, response.headers, content)
    if response.status >= http.client.MULTIPLE_CHOICES:
        raise EngineUnreachable(
            f"the server sends us to {response.headers.get('location', 'nowhere')}: give that with --server"
        )
    return Reply(response.status, {name.lower(): value for name, value in response.headers.items()}, content)


def _in_words(error: Exception, timeout: float) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, TimeoutError):
        return f"it was silent for {timeout:g} s"
    if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
        return "it closed the connection"
    return f"{type(error).__name__}: {error}"
