"""The first of the app's routes: finds the route that a request means, asks who sends it, and counts it.

FastAPI looks a path up in one included router after the other, twice, and solves a tree of dependencies for who asks:
together more than half of what a small GET costs. Here routes are found by an index, and what every route needs is
done once, before any of it. A request that no route takes goes on to FastAPI's own search, for its 404 or 405.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from api.context import Context
from api.errors import TooManyRequests
from api.limits import route_of
from api.principals import Principal, identify

#: Where a request's scope keeps the route that the index found.
_FOUND: Final = "api.front"


@dataclass(frozen=True)
class Caller:
    """Who asks: whether there was a credential at all, and who holds it (None: nobody)."""

    credential: bool
    principal: Principal | None


class Front(BaseRoute):
    """Takes every request that one of `routes` takes.

    Args:
        routes: The app's, all of them included; the index does not see what is added later.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._fixed: dict[tuple[str, str], RouteContext] = {}
        self._open: dict[tuple[str, str], list[tuple[str, RouteContext]]] = defaultdict(list)
        for context in iter_route_contexts([*routes]):
            if isinstance(context.original_route, APIRoute):
                self._add(context)

    def _add(self, context: RouteContext) -> None:
        path = context.path_format or ""
        literal = path.partition("{")[0]
        for method in context.methods or ():
            if literal == path:
                self._fixed.setdefault((method, path), context)
            else:
                self._open[method, _group(literal)].append((literal, context))

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return a full match, or none: half a match (another method) is FastAPI's to find."""
        if scope["type"] != "http":
            return Match.NONE, {}
        method, path = scope["method"], scope["path"]
        fixed = self._fixed.get((method, path))
        if fixed is not None:
            return Match.FULL, {"path_params": {}, **_found(fixed)}
        for literal, context in self._open.get((method, _group(path)), ()):
            if path.startswith(literal):
                match, inner = context.matches(scope)
                if match is Match.FULL:
                    return match, inner | _found(context)
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say in the scope who asks, count the request, and hand it to its route; raise TooManyRequests."""
        context: Context = scope["app"].state.context
        state = scope["state"]
        state["caller"] = asking = await _caller(Headers(scope=scope), context)
        client = scope["client"]
        who = asking.principal.id if asking.principal else f"address:{client[0] if client else 'nowhere'}"
        standing = await context.limits.hit(who, route_of(scope))
        state["headers"] = [
            (name.lower().encode(), value.encode()) for name, value in standing.headers().items()
        ]
        if not standing.allowed:
            raise TooManyRequests(
                f"{standing.limit} requests in this window have been answered; go on in {standing.reset_seconds} s"
            )
        await scope[_FOUND].app(scope, receive, send)


async def _caller(headers: Headers, context: Context) -> Caller:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    credential = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")
    found = await identify(context.authenticators, credential) if credential else None
    return Caller(bool(credential), found)


def _found(context: RouteContext) -> Scope:
    return {"endpoint": context.endpoint, "route": context.original_route, _FOUND: context}


def _group(path: str) -> str:
    """Return the first three segments: `/api/v1/market`."""
    return "/".join(path.split("/", 4)[:4])
