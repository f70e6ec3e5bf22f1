"""The words of the WebSocket `/ws/v1/`: what clients may say, what the server says, and its codes.

A message is an object with a `type`; a client's `id` (number or text) comes back in the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import IntEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from api.streams.encoding import Message
from gpt_trader.errors import Denied, GptTraderError, NotFound, Problem, Refused, UnknownName
from gpt_trader.validation import validated
from storage.events import Event, Position, UnrecoverablePosition

#: Of publications; a change of their shape changes it.
SCHEMA_VERSION: Final = 1


class Close(IntEnum):
    """Why the server closes a connection; 1008, 1003 and 4401 are final: coming back alike ends alike."""

    NOT_THIS_KIND = 1003
    NOT_ALLOWED = 1008
    FAILED = 1011
    RESTARTING = 1012
    LATER = 1013
    UNAUTHENTICATED = 4401
    TOO_SLOW = 4408


class Code(IntEnum):
    """What an `error` message is about."""

    INTERNAL = 100
    UNAUTHENTICATED = 101
    UNKNOWN_CHANNEL = 102
    DENIED = 103
    ALREADY_SUBSCRIBED = 105
    LIMIT_EXCEEDED = 106
    BAD_REQUEST = 107
    NOT_SUBSCRIBED = 108
    UNRECOVERABLE_POSITION = 112
    UNAVAILABLE = 113


MessageId = int | Annotated[str, Field(max_length=64)] | None
ChannelName = Annotated[str, Field(min_length=1, max_length=120)]


class _ClientMessage(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: MessageId = None


class Authenticate(_ClientMessage):
    """`auth`: who this is; again before the credential expires."""

    type: Literal["auth"]
    token: str = Field(min_length=1, max_length=4000)


class Recovery(BaseModel):
    """Where a client left off; `epoch` null with offset 0: from the channel's first event."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epoch: Annotated[str, Field(pattern=r"^[0-9a-z]{1,32}$")] | None
    offset: int = Field(ge=0, lt=2**63)

    @property
    def position(self) -> Position | None:
        """The position in the log; None is before everything."""
        return None if self.epoch is None else Position(self.epoch, self.offset)


class Subscribe(_ClientMessage):
    """`subscribe`: publications of a channel from now on, or from behind `recover`."""

    type: Literal["subscribe"]
    channel: ChannelName
    data: dict[str, JsonValue] = Field(default_factory=dict)
    recover: Recovery | None = None


class Unsubscribe(_ClientMessage):
    """`unsubscribe`: no more of a channel."""

    type: Literal["unsubscribe"]
    channel: ChannelName
    data: dict[str, JsonValue] = Field(default_factory=dict)


class Publish(_ClientMessage):
    """`publish`: an event into a channel `custom.*`."""

    type: Literal["publish"]
    channel: ChannelName
    data: dict[str, JsonValue]
    event: str = Field(default="message", pattern=r"^[a-z][a-z0-9_.-]{0,63}$")


class Ping(_ClientMessage):
    """`ping`: answered by `pong`."""

    type: Literal["ping"]


class Pong(_ClientMessage):
    """`pong`: the answer to the server's ping."""

    type: Literal["pong"]


ClientMessage = Authenticate | Subscribe | Unsubscribe | Publish | Ping | Pong

_KINDS: Final[dict[str, type[ClientMessage]]] = {
    "auth": Authenticate,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "publish": Publish,
    "ping": Ping,
    "pong": Pong,
}


def understood(content: Mapping[str, Any]) -> ClientMessage:
    """Return a decoded message; raise Refused or UnknownName that says what is wrong with it."""
    kind = content.get("type")
    if not isinstance(kind, str):
        raise Refused.of(Problem("type", kind, "is missing or no text", allowed=", ".join(_KINDS)))
    if kind not in _KINDS:
        raise UnknownName.among("type", kind, list(_KINDS))
    return validated(_KINDS[kind], content)


def id_of(content: Mapping[str, Any]) -> int | str | None:
    """Return the `id` of a message that may be wrong otherwise."""
    given = content.get("id")
    return given if isinstance(given, int | str) and len(str(given)) <= 64 else None


def publication(channel: str, key: str | None, event: Event) -> dict[str, Any]:
    """Return an event of the log as clients see it."""
    return {
        "type": "publication",
        "channel": channel,
        **keyed(key),
        **placed(event.position),
        "ts": moment(event.at),
        "event": event.type,
        "schema_version": SCHEMA_VERSION,
        "data": event.data,
    }


def placed(position: Position | None) -> dict[str, Any]:
    """Return a position as `epoch` and `offset`; null and 0 before a channel's first event."""
    if position is None:
        return {"epoch": None, "offset": 0}
    return {"epoch": position.epoch, "offset": position.offset}


def keyed(key: str | None) -> dict[str, str]:
    """Return what tells a channel's streams apart, where it has several."""
    return {} if key is None else {"key": key}


def refusal(answered: int | str | None, code: Code, detail: str, **more: Any) -> Message:  # noqa: ANN401 - JSON
    """Return an `error` message."""
    return {
        "type": "error",
        "id": answered,
        "code": int(code),
        "name": code.name.lower(),
        "detail": detail,
        **more,
    }


def refusal_of(answered: int | str | None, error: GptTraderError, **more: Any) -> Message:  # noqa: ANN401 - JSON
    """Return an error of ours as a message."""
    problems = [problem.as_dict() for problem in error.problems]
    for problem in problems:
        if problem["field"] == "token":
            problem["value"] = None
    return refusal(
        answered, _code_of(error), error.detail, **more, **({"errors": problems} if problems else {})
    )


def _code_of(error: GptTraderError) -> Code:
    if isinstance(error, UnrecoverablePosition):
        return Code.UNRECOVERABLE_POSITION
    if isinstance(error, NotFound):
        return Code.UNKNOWN_CHANNEL
    if isinstance(error, Denied):
        return Code.DENIED
    if isinstance(error, Refused):
        return Code.BAD_REQUEST
    return Code.UNAVAILABLE if error.http_status == 503 else Code.INTERNAL


def moment(at: datetime) -> str:
    """Return a time as UTC ISO 8601 with `Z`."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
