"""Turns an API's error answer (RFC 9457 problem+json) back into the error it was there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from gpt_trader import errors
from gpt_trader.errors import Denied, EngineUnreachable, GptTraderError, NotFound, Problem, Refused


class Headers(Protocol):
    """What we need of an answer's headers."""

    def get(self, name: str, /) -> str | None:
        """Return a header's value, whatever the case of its name."""


def _tree(root: type[GptTraderError]) -> Iterator[type[GptTraderError]]:
    yield root
    for branch in root.__subclasses__():
        yield from _tree(branch)


_BY_TYPE: Final = {
    found.type: found for found in _tree(GptTraderError) if found.__module__ == errors.__name__
}
_BY_STATUS: Final[Mapping[int, type[GptTraderError]]] = {
    400: Refused,
    401: Denied,
    403: Denied,
    404: NotFound,
    409: errors.Conflict,
    413: Refused,
    415: Refused,
    422: Refused,
    502: EngineUnreachable,
    503: EngineUnreachable,
    504: EngineUnreachable,
}
_NO_KEY: Final = "; for a remote server: `gpt-trader login --server URL`, or a key in GPT_TRADER_API_KEY"


def error_of(status: int, headers: Headers, content: bytes) -> GptTraderError:
    """Return the error an answer with `status` stands for, with its detail, field problems and request id."""
    answer = _parsed(content)
    name = str(answer.get("type", "")).rstrip("/").replace("#", "/").replace(":", "/").split("/")[-1]
    kind = _BY_TYPE.get(name)
    kind = kind or _BY_STATUS.get(status, GptTraderError)
    text = str(
        answer.get("detail") or answer.get("title") or f"the server answered {status} without a reason"
    )
    if status == 401 and name in ("unauthenticated", ""):  # a login that was refused has its own words
        text += _NO_KEY
    if status == 429:
        text += f"; try again in {headers.get('Retry-After') or 'a few'} s"
    request_id = answer.get("request_id") or headers.get("X-Request-ID")
    if status >= 500 and request_id:
        text += f" (request {request_id})"
    return kind(text, problems=list(_problems(answer)))


def _parsed(content: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _problems(answer: Mapping[str, Any]) -> Iterator[Problem]:
    listed = answer.get("problems") or answer.get("errors") or []
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict):
            yield Problem(
                field=str(entry.get("field", "request")),
                value=entry.get("value"),
                message=str(entry.get("message", "is refused")),
                allowed=entry.get("allowed"),
                nearest=entry.get("nearest"),
            )
