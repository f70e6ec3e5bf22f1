"""Renders every refusal and failure as RFC 9457 `application/problem+json`; nothing else in `api` does.

Code raises `gpt_trader.errors`; the handlers here add the request id and the stable `type`
(`urn:gpt-trader:problem:<name>`). A traceback never leaves the process: it is logged under the request id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoneFree
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gpt_trader.errors import (
    Denied,
    EngineUnreachable,
    GptTraderError,
    NotFound,
    Problem,
    Refused,
    UnknownName,
)
from gpt_trader.validation import MOST_PROBLEMS
from storage.database import told_of

_log = structlog.get_logger("api")

MEDIA_TYPE: Final = "application/problem+json"

#: Fields whose value no problem repeats.
_SECRET: Final = re.compile(r"pass|secret|token|otp|api.?key|^code$|^ticket$", re.IGNORECASE)

TYPE_PREFIX: Final = "urn:gpt-trader:problem:"

#: Plain HTTP refusals of the framework: status → (type, title).
_HTTP_PROBLEMS: Final[dict[int, tuple[str, str]]] = {
    400: ("malformed-request", "The request cannot be read"),
    404: ("no-such-route", "No such route"),
    405: ("method-not-allowed", "Method not allowed"),
    413: ("body-too-large", "The body is too large"),
    415: ("unsupported-media-type", "Unsupported media type"),
}


class Unauthenticated(Denied):
    """No credential, or one that nobody knows."""

    type: ClassVar[str] = "unauthenticated"
    title: ClassVar[str] = "Credentials are missing or wrong"
    http_status: ClassVar[int] = 401


class WrongCredentials(Unauthenticated):
    """The email, the password or the one-time code is wrong; which of them is not told."""

    type: ClassVar[str] = "wrong-credentials"
    title: ClassVar[str] = "The login was refused"


class RegistrationClosed(Denied):
    """Accounts are made by an administrator here."""

    type: ClassVar[str] = "registration-closed"
    title: ClassVar[str] = "Registration is closed"


class TooManyRequests(Denied):
    """The principal's, or the address's, limit for the route is used up (`Retry-After` says until when)."""

    type: ClassVar[str] = "too-many-requests"
    title: ClassVar[str] = "Too many requests"
    http_status: ClassVar[int] = 429

    def __init__(self, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class MalformedBody(Refused):
    """The body is not JSON at all."""

    type: ClassVar[str] = "malformed-json"
    title: ClassVar[str] = "The body is not JSON"
    http_status: ClassVar[int] = 400


class NotAcceptable(Refused):
    """None of the representations that the client accepts exists."""

    type: ClassVar[str] = "not-acceptable"
    title: ClassVar[str] = "No such representation"
    http_status: ClassVar[int] = 406


def missing(unknown: UnknownName) -> NotFound:
    """Return the error for a resource that a path names and nobody knows: 404, with the nearest name kept."""
    return NotFound(unknown.detail, problems=unknown.problems)


class FieldProblem(BaseModel):
    """What is wrong with one field of the request."""

    field: str
    value: Any = None
    message: str
    allowed: str | None = None
    nearest: str | None = None


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 puts it; `type` is stable, `detail` says what to do."""

    type: str = Field(examples=["urn:gpt-trader:problem:unknown-name"])
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldProblem] = Field(default_factory=list)


def problem_response(
    request_id: str,
    status: int,
    name: str,
    title: str,
    detail: str,
    *,
    problems: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the document of one problem; `name` is the last part of its `type`."""
    document = {
        "type": TYPE_PREFIX + name,
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request_id,
        "errors": [problem.as_dict() for problem in problems],
    }
    try:
        body = orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:  # half a surrogate pair: a client's JSON may name one, and UTF-8 has none
        body = json.dumps(document).encode()
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def error_response(request_id: str, error: GptTraderError) -> Response:
    """Return the problem document of one of our own errors."""
    headers = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else {}
    if isinstance(error, TooManyRequests) and error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return problem_response(
        request_id,
        error.http_status,
        error.type,
        error.title,
        error.detail,
        problems=error.problems,
        headers=headers,
    )


def request_id(request: Request) -> str:
    """Return the id that the outermost middleware gave this request."""
    found: str = request.scope["state"]["request_id"]
    return found


async def _own_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GptTraderError)
    return error_response(request_id(request), error)


async def _database_away(request: Request, error: Exception) -> Response:
    """Say that the database does not answer; what it or its driver said is for the log alone."""
    _log.warning("the database does not answer", reason=type(error).__name__, request_id=request_id(request))
    place = told_of(request.app.state.context.database.url)
    away = EngineUnreachable(
        f"{place} does not answer; try again in a moment. `gpt-trader status` shows the parts"
    )
    return error_response(request_id(request), away)


async def _framework_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    name, title = _HTTP_PROBLEMS.get(error.status_code, (f"http-{error.status_code}", str(error.detail)))
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"{request.method} {request.url.path} does not exist; /api/v1/docs lists the routes"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "see /api/v1/docs")
        detail = f"{request.url.path} does not answer {request.method}; allowed: {allowed}"
    return problem_response(
        request_id(request), error.status_code, name, title, detail, headers=error.headers
    )


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    complaints: Sequence[Mapping[str, Any]] = error.errors()
    if any(complaint["type"] == "json_invalid" for complaint in complaints):
        malformed = MalformedBody("the body must be JSON, sent with Content-Type: application/json")
        return error_response(request_id(request), malformed)
    problems = [_field_problem(complaint) for complaint in complaints[:MOST_PROBLEMS]]
    if len(complaints) > MOST_PROBLEMS:
        problems.append(Problem("request", None, f"has {len(complaints) - MOST_PROBLEMS:,} more problems"))
    refused = Refused.of(*problems)
    return error_response(request_id(request), refused)


def _field_problem(complaint: Mapping[str, Any]) -> Problem:
    where, *names = [str(part) for part in complaint["loc"]]
    value = complaint.get("input") if names else None
    message = str(complaint["msg"]).removeprefix("Value error, ")
    # Not even to whoever sent it: answers are shown and kept. A field that nobody knows may be a misspelt one.
    if any(map(_SECRET.search, names)) or complaint["type"] == "extra_forbidden":
        value = None
    if complaint["type"] == "missing":
        value = None
        message = "is missing" if names else "a JSON object is needed as the request's body"
    return Problem(".".join(names) or where, value, message)


def install(app: FastAPI) -> None:
    """Register the handlers; what none of them knows is the outermost middleware's business."""
    app.add_exception_handler(GptTraderError, _own_error)
    # A connection that cannot be had, or was cut; and none free in time.
    for away in (OperationalError, InterfaceError, NoneFree):
        app.add_exception_handler(away, _database_away)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _framework_refusal)


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's `responses` for these statuses and those of every route, each the problem document."""
    return {status: _declaration(status) for status in sorted({*statuses, *_EVERYWHERE})}


#: What stands before every route answers: foreign pages and hosts, what drips in, limits, huge heads.
_EVERYWHERE: Final = (403, 408, 421, 429, 431)

_MEANING: Final[dict[int, str]] = {
    400: "Malformed request",
    401: "Credentials missing or wrong",
    403: "The credential lacks the scope, or the page's `Origin` is not one of the engine's",
    404: "Not found, or another owner's",
    406: "No such representation",
    408: "The request did not arrive in time; the connection is closed",
    409: "Conflict with what stands already",
    413: "Body over 1 MiB",
    421: "Another engine's `Host`",
    422: "Refused input; `errors` names each field",
    429: "Too much at once; try again later",
    431: "A head of more than 32 KiB; the connection is closed",
    500: "Unexpected failure; the log has it under the request id",
    502: "The source of the data does not answer",
    503: "A part of the engine does not answer",
}


def _declaration(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    return {"description": _MEANING[status], "content": {MEDIA_TYPE: {"schema": schema}}}
