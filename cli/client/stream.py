"""A client of the WebSocket `/ws/v1/` that stays: comes back after a cut, and goes on where it left off.

`connect()` of the websockets library backs off only on failed handshakes; the pauses are ours, random and growing. A
close with 1003, 1008 or 4401 is final: coming back alike would end alike.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from cli.client.wire import LOOPBACK, Target
from gpt_trader.errors import Denied, EngineUnreachable, GptTraderError, Refused

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

Message = dict[str, Any]
Name = tuple[str, str | None]

#: Closes that coming back cannot mend.
UNAUTHENTICATED: Final = 4401
FINAL: Final = frozenset({1003, 1008, UNAUTHENTICATED})
#: Error codes of the protocol.
UNRECOVERABLE, UNAVAILABLE = 112, 113

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
#: A connection that lasted so long was a good one: the next pause is short again.
_GOOD_SECONDS: Final = 5.0
#: The server speaks every 30 s; after this long without a word the connection is dead.
_SILENCE: Final = 75.0
_OPEN_SECONDS: Final = 5.0
#: A credential is renewed this long before its end.
_RENEW_SECONDS: Final = 60.0
_LARGEST: Final = 32 * 1024 * 1024


@dataclass
class _Wanted:
    """A subscription: what it asks for, and where it stands (None: it has not begun)."""

    channel: str
    data: Mapping[str, Any]
    position: Message | None = None

    def request(self, number: int) -> Message:
        message = {"type": "subscribe", "id": number, "channel": self.channel, "data": dict(self.data)}
        return message if self.position is None else {**message, "recover": dict(self.position)}


@dataclass
class LiveStream:
    """Publications of channels, in order, each once, for as long as it is asked.

    Args:
        target: Returns the server's address and the key; asked again before every connection.
        renew: Returns it with another key than one that was refused or is about to end, where there is one.
        patience: Seconds that an unreachable server is waited for; then `receive` raises EngineUnreachable.
    """

    target: Callable[[], Target]
    renew: Callable[[str], Target] | None = None
    patience: float = 60.0
    #: Connections made so far.
    connections: int = 0
    _wanted: dict[Name, _Wanted] = field(default_factory=dict)
    _asked: dict[int, Name] = field(default_factory=dict)
    _waiting: list[Message] = field(default_factory=list)
    _socket: ClientConnection | None = None
    _key: str | None = None
    _numbers: int = 0
    _pause: float = _FIRST_PAUSE
    _next_attempt: float = 0.0
    _lost_at: float | None = None
    _opened_at: float = 0.0
    _heard_at: float = 0.0
    _renew_at: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def subscribe(self, channel: str, data: Mapping[str, Any] | None = None, *, whole: bool = False) -> None:
        """Ask for a channel from now on; `whole`: from its first event."""
        given = dict(data or {})
        name = channel, str(given["symbol"]).upper() if "symbol" in given else None
        if name not in self._wanted:
            position = {"epoch": None, "offset": 0} if whole else None
            wanted = self._wanted[name] = _Wanted(channel, given, position)
            if self._socket is not None:
                self._ask(name, wanted)

    def unsubscribe(self, channel: str, symbol: str | None = None) -> None:
        """Ask for no more of a channel."""
        name = channel, symbol
        if self._wanted.pop(name, None) is not None and self._socket is not None:
            data = {} if symbol is None else {"symbol": symbol}
            self._send({"type": "unsubscribe", "channel": channel, "data": data})

    @property
    def wanted(self) -> set[Name]:
        """The channels that are asked for, each with its key."""
        return set(self._wanted)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._socket is not None

    def messages(self) -> Iterator[Message]:
        """Yield messages for ever; see `receive`."""
        while True:
            message = self.receive(1.0)
            if message is not None:
                yield message

    def receive(self, seconds: float) -> Message | None:
        """Return the next message, or None if none came in so long.

        Types: `subscribed`, `snapshot`, `publication`; `reset` where a channel could not be resumed and begins anew;
        `error` where a subscription was refused, which is then over.

        Raises:
            Denied: the server does not know the key, or no longer.
            Refused: the server takes this client for one that breaks the rules, or has no WebSocket.
            EngineUnreachable: nobody answered for `patience` seconds.
        """
        from websockets.exceptions import ConnectionClosed

        end = time.monotonic() + seconds
        while True:
            if self._waiting:
                return self._waiting.pop(0)
            if self._socket is None and not self._connected_by(end):
                return None
            assert self._socket is not None
            try:
                content = self._socket.recv(timeout=max(end - time.monotonic(), 0))
            except TimeoutError:
                if time.monotonic() - self._heard_at > _SILENCE:
                    self._cut()
                    continue
                return None
            except ConnectionClosed as closed:
                self._closed(
                    closed.rcvd.code if closed.rcvd else 1006, closed.rcvd.reason if closed.rcvd else ""
                )
                continue
            self._heard_at = time.monotonic()
            self._renew()
            message = self._heard(json.loads(content))
            if message is not None:
                return message

    def close(self) -> None:
        """End the connection."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    def _connected_by(self, end: float) -> bool:
        """Connect once it is time to; return whether there is a connection, at the latest at `end`."""
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
        wait = self._next_attempt - now
        if wait > 0:
            time.sleep(max(min(wait, end - now), 0))
        if time.monotonic() < self._next_attempt:
            return False
        try:
            self._connect()
        except (OSError, TimeoutError, EngineUnreachable) as error:
            if time.monotonic() - self._lost_at > self.patience:
                raise EngineUnreachable(f"the stream does not come back: {error}") from error
            self._back_off()
            return time.monotonic() < end and self._connected_by(end)
        self._lost_at = None
        return True

    def _connect(self) -> None:
        """Open a connection and ask for everything that is wanted; raise OSError where there is nobody."""
        from websockets.exceptions import InvalidHandshake, InvalidStatus
        from websockets.sync.client import connect

        target = self.target()
        self._key = target.key
        headers = {"Authorization": f"Bearer {target.key}"} if target.key else {}
        local = urlsplit(target.url).hostname in LOOPBACK
        try:
            self._socket = connect(
                f"{target.url.replace('http', 'ws', 1)}/ws/v1/",
                additional_headers=headers,
                open_timeout=_OPEN_SECONDS,
                close_timeout=1.0,
                ping_interval=None,  # the server pings, and speaks by itself
                compression=None,
                max_size=_LARGEST,
                **({"proxy": None} if local else {}),
            )
        except InvalidStatus as refused:
            status = refused.response.status_code
            if status in (401, 403, 421):
                raise Denied(
                    f"the server refused the stream ({status}): {_detail(refused.response.body)}"
                ) from None
            if status < 500 and status != 429 and not self.connections:
                raise Refused(f"the server has no WebSocket: it answered {status}") from None
            raise ConnectionRefusedError(f"the server answered {status}") from None
        except InvalidHandshake as broken:
            raise ConnectionRefusedError(str(broken)) from None
        self.connections += 1
        self._opened_at = self._heard_at = time.monotonic()
        self._asked.clear()
        for name, wanted in self._wanted.items():
            self._ask(name, wanted)

    def _closed(self, code: int, reason: str) -> None:
        """Come back later, or raise where that would not help."""
        self._cut()
        if code == UNAUTHENTICATED and self._other_key() is None:
            raise Denied(f"the stream was closed: {reason}")
        if code in FINAL and code != UNAUTHENTICATED:
            raise Refused(f"the stream was closed ({code}): {reason}")

    def _cut(self) -> None:
        self.close()
        if time.monotonic() - self._opened_at > _GOOD_SECONDS:
            self._pause = _FIRST_PAUSE
        if time.monotonic() >= self._next_attempt:
            self._back_off()

    def _back_off(self) -> None:
        self._next_attempt = time.monotonic() + self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _heard(self, message: Message) -> Message | None:
        """Take one message in; return it where it is the caller's."""
        kind = message["type"]
        name = message.get("channel", ""), message.get("key")
        if kind == "ping":
            self._send({"type": "pong"})
        elif kind == "authenticated":
            expires_at = message.get("expires_at")
            self._renew_at = None if expires_at is None else expires_at - _RENEW_SECONDS
        elif kind == "shutdown":
            self._next_attempt = time.monotonic() + message["reconnect_in_ms"] / 1000
        elif kind == "subscribed":
            self._begun(name, message)
            return {each: value for each, value in message.items() if each != "publications"}
        elif kind == "publication":
            return message if self._moved(name, message) else None
        elif kind == "error":
            return self._refused(message)
        elif kind == "snapshot" and name in self._wanted:
            return message
        return None

    def _begun(self, name: Name, message: Message) -> None:
        wanted = self._wanted.get(name)
        if wanted is None:
            return
        self._waiting += [each for each in message["publications"] if self._moved(name, each)]
        wanted.position = {"epoch": message["epoch"], "offset": message["offset"]}

    def _moved(self, name: Name, publication: Message) -> bool:
        """Note a publication's place; return whether it is new."""
        wanted = self._wanted.get(name)
        if wanted is None or (wanted.position or {}).get("offset", 0) >= publication["offset"]:
            return False
        wanted.position = {"epoch": publication["epoch"], "offset": publication["offset"]}
        return True

    def _refused(self, message: Message) -> Message | None:
        """Begin a channel anew that cannot be resumed; ask again later for what is not there now; pass the rest on."""
        name = self._asked.get(message.get("id") or 0) or (message.get("channel", ""), message.get("key"))
        wanted = self._wanted.get(name)
        if wanted is None:
            return message
        if message["code"] == UNRECOVERABLE:
            wanted.position = None
            self._ask(name, wanted)
            return {"type": "reset", "channel": name[0], "key": name[1], "detail": message["detail"]}
        if message["code"] == UNAVAILABLE:
            self._cut()  # with all others: they are resumed
            return None
        del self._wanted[name]
        return message

    def _renew(self) -> None:
        """Tell the server a newer credential before the one it has ends."""
        if self._renew_at is None or time.time() < self._renew_at:
            return
        self._renew_at = None
        try:
            key = self._other_key()
        except GptTraderError:
            return  # the server closes when the old one ends, and that is raised
        if key is not None:
            self._key = key
            self._send({"type": "auth", "token": key})

    def _other_key(self) -> str | None:
        """Return a key that is not the one in use, None where there is none."""
        key = self.target().key
        if key == self._key and key is not None and self.renew is not None:
            key = self.renew(key).key
        return None if key == self._key else key

    def _ask(self, name: Name, wanted: _Wanted) -> None:
        self._numbers += 1
        self._asked[self._numbers] = name
        self._send(wanted.request(self._numbers))

    def _send(self, message: Message) -> None:
        from websockets.exceptions import ConnectionClosed

        if self._socket is not None:
            with suppress(ConnectionClosed):  # the next `receive` meets the same, and comes back
                self._socket.send(json.dumps(message))


def _detail(body: bytes | bytearray | None) -> str:
    try:
        return str(json.loads(body or b"{}").get("detail", ""))
    except (ValueError, AttributeError):
        return (body or b"")[:200].decode(errors="replace")
