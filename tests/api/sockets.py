"""A plain client of `/ws/v1/`, for tests: what it sends and gets is in the open."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Self

import msgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.api.conftest import Engine

Json = dict[str, Any]


class Plain:
    """One connection; messages as dictionaries. Answers pings unless told not to."""

    def __init__(
        self,
        engine: Engine | str,
        key: str | None = None,
        *,
        subprotocol: str | None = None,
        headers: dict[str, str] | None = None,
        query: str = "",
        pongs: bool = True,
        **options: Any,
    ) -> None:
        url = engine if isinstance(engine, str) else engine.url
        self.socket: ClientConnection = connect(
            url.replace("http", "ws", 1) + "/ws/v1/" + query,
            subprotocols=[Subprotocol(subprotocol)] if subprotocol else None,
            additional_headers=headers,
            proxy=None,
            compression=None,
            max_size=None,
            ping_interval=None,
            close_timeout=1.0,
            **options,
        )
        self._packed = subprotocol == "gt.v1.msgpack"
        self._pongs = pongs
        self._numbers = 0
        if key is not None:
            assert self.ask("auth", token=key)["type"] == "authenticated"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, kind: str, **fields: Any) -> int:
        """Send a message with the next id; return the id."""
        self._numbers += 1
        message = {"type": kind, "id": self._numbers, **fields}
        self.socket.send(msgpack.packb(message) if self._packed else json.dumps(message))
        return self._numbers

    def take(self, seconds: float = 10) -> Json:
        """Return the next message but pings."""
        while True:
            content = self.socket.recv(timeout=seconds)
            assert isinstance(content, bytes) == self._packed
            message: Json = msgpack.unpackb(content) if self._packed else json.loads(content)
            if message["type"] != "ping" or not self._pongs:
                return message
            self.socket.send(msgpack.packb({"type": "pong"}) if self._packed else '{"type": "pong"}')

    def take_until(self, wanted: Callable[[Json], bool], seconds: float = 10) -> list[Json]:
        """Return messages up to and including the first that is wanted."""
        taken = [self.take(seconds)]
        while not wanted(taken[-1]):
            taken.append(self.take(seconds))
        return taken

    def ask(self, kind: str, **fields: Any) -> Json:
        """Send a message and return its answer; what comes before it is lost."""
        number = self.say(kind, **fields)
        return self.take_until(lambda message: message.get("id") == number)[-1]

    def subscribe(self, channel: str, recover: Json | None = None, **data: Any) -> Json:
        """Subscribe and return the answer."""
        more = {} if recover is None else {"recover": recover}
        return self.ask("subscribe", channel=channel, data=data, **more)

    def closed(self, seconds: float = 10) -> tuple[int, str]:
        """Read on until the server closes; return its code and reason."""
        with pytest.raises(ConnectionClosed) as closed:
            self.take_until(lambda _: False, seconds)
        received = closed.value.rcvd
        assert received is not None
        return received.code, received.reason
