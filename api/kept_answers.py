"""Answers that depend on the lake alone, kept as bytes while the lake is what it was.

A route of the class `KeptRoute` gives the same document to everybody who may read. Whether the caller may is asked each
time, before anything else; then an answer to the very same question is taken from memory, or 304 said for it, without
the question's being taken apart and without a look into the lake beyond the mark of its newest commit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from api.context import Context
from api.dependencies import known
from api.negotiation import has_current
from storage.catalog import Mark

#: Bytes of documents that are kept, and how long a question may be that is remembered.
KEPT_BYTES: Final = 32 * 1024 * 1024
_QUESTION: Final = 2000

#: Headers that a 304 repeats (RFC 9110, section 15.4.5), and ours.
_REPEATED: Final = ("etag", "vary", "cache-control", "x-snapshot-id")

#: What makes two requests the same question: path, query, Accept.
Question = tuple[str, bytes, str]


@dataclass(frozen=True)
class _Answer:
    """A document with its headers, and the mark of the lake that it was made from; without a body it answers 304."""

    mark: Mark
    etag: str
    headers: dict[str, str]
    media_type: str | None
    body: bytes | None


class KeptAnswers:
    """Answers by question, up to so many bytes; what was asked for longest ago goes first."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._bytes = 0
        self._answers: OrderedDict[Question, _Answer] = OrderedDict()

    @property
    def bytes(self) -> int:
        """What the kept documents and their questions take."""
        return self._bytes

    def find(self, question: Question, if_none_match: str | None, mark: Mark) -> Response | None:
        """Return the answer, if it is kept and the lake has not changed since."""
        answer = self._answers.get(question)
        if answer is None:
            return None
        if answer.mark != mark:
            self._drop(question)
            return None
        self._answers.move_to_end(question)
        if has_current(if_none_match, answer.etag):
            return Response(status_code=304, headers=answer.headers)
        if answer.body is None:
            return None
        return Response(answer.body, media_type=answer.media_type, headers=answer.headers)

    def keep(self, question: Question, response: Response, mark: Mark) -> None:
        """Keep an answer that has an entity tag, made when the lake was as `mark` says."""
        etag = response.headers.get("etag")
        if etag is None or response.status_code not in (200, 304) or sum(map(len, question)) > _QUESTION:
            return
        body = bytes(response.body) if response.status_code == 200 else None
        headers = {name: response.headers[name] for name in _REPEATED if name in response.headers}
        answer = _Answer(mark, etag, headers, response.media_type, body)
        if len(body or b"") > self._limit // 8:
            return
        self._drop(question)
        self._answers[question] = answer
        self._bytes += _size(question, answer)
        while self._bytes > self._limit:
            self._drop(next(iter(self._answers)))

    def _drop(self, question: Question) -> None:
        gone = self._answers.pop(question, None)
        if gone is not None:
            self._bytes -= _size(question, gone)


class KeptRoute(APIRoute):
    """A route for whoever has the scope `read`, whose answers are kept."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler: FastAPI's own, with what is kept before it."""
        compute = super().get_route_handler()

        async def handler(request: Request) -> Response:
            known(request.scope["state"]["caller"]).must("read")
            context: Context = request.app.state.context
            question = _question(request)
            mark = context.lake.mark()  # one `stat`: too short to be worth a thread
            found = context.answers.find(question, request.headers.get("if-none-match"), mark)
            if found is not None:
                return found
            response = await compute(request)
            context.answers.keep(
                question, response, mark
            )  # the mark from before: a commit meanwhile makes it stale
            return response

        return handler


def _question(request: Request) -> Question:
    scope = request.scope
    return scope["path"], scope["query_string"], request.headers.get("accept", "")


def _size(question: Question, answer: _Answer) -> int:
    return 1000 + sum(map(len, question)) + len(answer.body or b"")
