"""Messages as bytes: JSON or MessagePack, framed for the WebSocket once, however many clients get them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgpack  # type: ignore[import-untyped]  # it has no stubs
import orjson

Codec = Literal["json", "msgpack"]
Message = Mapping[str, Any]

#: The subprotocols, the default first, and how each writes messages.
SUBPROTOCOLS: Final[dict[str, Codec]] = {"gt.v1.json": "json", "gt.v1.msgpack": "msgpack"}

_TEXT, _BINARY = 0x1, 0x2
_FINAL: Final = 0x80


class Unreadable(ValueError):
    """What a client sent is no message: not of its codec, or nothing that a message can be."""


def encoded(message: Message, codec: Codec) -> bytes:
    """Return a message in a codec.

    A log line may hold what neither codec can (a lone surrogate, an integer of more than 64 bits): such a value alone
    becomes what it can be (`?`, a float).
    """
    try:
        return orjson.dumps(message) if codec == "json" else bytes(msgpack.packb(message))
    except (TypeError, ValueError, OverflowError):
        plain = _plain(message)
        return orjson.dumps(plain) if codec == "json" else bytes(msgpack.packb(plain))


def decoded(content: str | bytes, codec: Codec) -> dict[str, Any]:
    """Return what a client sent; raise Unreadable where it is no object of the codec."""
    try:
        # Both refuse deep nesting; the sizes were bounded by the frame's.
        message = orjson.loads(content) if codec == "json" else msgpack.unpackb(content)
    except (orjson.JSONDecodeError, msgpack.UnpackException, ValueError, TypeError) as error:
        raise Unreadable(f"the message is not {codec}: {error}") from None
    if not isinstance(message, dict) or not all(isinstance(name, str) for name in message):
        raise Unreadable("a message is an object with a `type`")
    return message


def framed(payload: bytes, codec: Codec) -> bytes:
    """Return the payload as one WebSocket frame from server to client (RFC 6455, 5.2: unmasked, not compressed)."""
    head = _FINAL | (_TEXT if codec == "json" else _BINARY)
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", head, size) + payload
    if size < 0x10000:
        return struct.pack("!BBH", head, 126, size) + payload
    return struct.pack("!BBQ", head, 127, size) + payload


class Frame:
    """One message on its way to any number of clients: encoded when a codec is first asked for, and then kept.

    `offset` is the publication's (0: no publication); `conflation` names what a later frame may stand for where a
    client does not keep up (None: nothing, the client must get each).
    """

    __slots__ = ("_wire", "conflation", "message", "offset")

    def __init__(self, message: Message, *, offset: int = 0, conflation: str | None = None) -> None:
        self.message = message
        self.offset = offset
        self.conflation = conflation
        self._wire: dict[Codec, bytes] = {}

    def wire(self, codec: Codec) -> bytes:
        """Return the whole WebSocket frame."""
        found = self._wire.get(codec)
        if found is None:
            found = self._wire[codec] = framed(encoded(self.message, codec), codec)
        return found

    def conflated(self, count: int) -> Frame:
        """Return the frame as it says that `count` before it were left out."""
        return Frame({**self.message, "conflated": count}, offset=self.offset) if count else self


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON values
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bool | float | None):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else _as_float(value)
    if isinstance(value, Mapping):
        return {_plain(str(name)): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value)


def _as_float(value: int) -> float | str:
    try:
        return float(value)
    except OverflowError:
        return str(value)
