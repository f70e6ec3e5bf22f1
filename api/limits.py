"""How often a principal may ask, on every route (`api.front` counts): in memory, or slowapi's counters over Redis.

slowapi's own ways in are not used: its `default_limits` are silently ignored on routes of included routers, its
decorators would have to stand on every route by hand, its Redis calls block the event loop, and its memory takes a
lock, starts a thread and moves a list for each request. A test exhausts every route of the OpenAPI document.

Who is counted: the principal of a credential that somebody holds, else the address (a wrong key is counted by address,
so that guessing keys is limited too). Routes without a limit of their own share the default one. This machine's own
user has one limit for everything, but for routes that the settings name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from limits import RateLimitItem, parse
from limits.errors import StorageError
from slowapi import Limiter
from slowapi.util import get_remote_address
from starlette.types import Scope

from api.moving_window import MovingWindows
from gpt_trader.runs import LOCAL
from gpt_trader.settings import Settings

#: Limits of single routes, by method and path template. The settings' `rate_limits` add to them and replace them.
ROUTES: Final[Mapping[str, str]] = {
    "POST /api/v1/auth/login": "5/minute",
    "POST /api/v1/auth/register": "5/minute",
    "POST /api/v1/auth/forgot-password": "5/minute",
    "POST /api/v1/auth/reset-password": "5/minute",
    "POST /api/v1/auth/refresh": "30/minute",
    "GET /api/v1/market/bars/{symbol}": "600/minute",
    "GET /api/v1/system/health/live": "600/minute",
    "GET /api/v1/system/health/ready": "600/minute",
    "GET /ws/v1/": "600/minute",
}

#: Seconds that another storage is left alone after it did not answer; this process counts by itself meanwhile.
_REST_SECONDS: Final = 5.0

_log = structlog.get_logger("api")


@dataclass(frozen=True)
class Standing:
    """Where somebody stands with a limit, as the `RateLimit-*` headers tell it."""

    limit: int
    remaining: int
    reset_seconds: int
    allowed: bool

    def headers(self) -> dict[str, str]:
        """Return the response's headers."""
        told = {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_seconds),
        }
        return told if self.allowed else {**told, "Retry-After": str(max(self.reset_seconds, 1))}


class Limits:
    """The limits of one API process; with a Redis storage all processes behind one address share them."""

    def __init__(
        self, default: str, local: str, routes: Mapping[str, str], storage_uri: str = "memory://"
    ) -> None:
        self._default, self._local = parse(default), parse(local)
        self._given = {name: parse(limit) for name, limit in routes.items()}
        self._routes = {name: parse(limit) for name, limit in ROUTES.items()} | self._given
        self._own = MovingWindows()
        self._shared = None if storage_uri == "memory://" else self._connected(storage_uri)
        self._resting_until = 0.0

    @property
    def routes(self) -> frozenset[str]:
        """The routes that have limits of their own, `METHOD /template`."""
        return frozenset(self._routes)

    async def hit(self, who: str, route: str) -> Standing:
        """Count one request of `who` (a principal's id or an address) to a route, `METHOD /template`."""
        item, *parts = self._counted(who, route)
        if self._shared is not None and time.monotonic() >= self._resting_until:
            try:
                return await asyncio.to_thread(_hit, self._shared, item, *parts)
            except StorageError as error:
                self._resting_until = time.monotonic() + _REST_SECONDS
                _log.warning(
                    "the shared rate limits do not answer", reason=type(error.__cause__ or error).__name__
                )
        own = self._own.hit(tuple(parts), item.amount, item.get_expiry())
        return Standing(item.amount, own.remaining, max(0, round(own.reset_seconds)), own.allowed)

    def _counted(self, who: str, route: str) -> tuple[RateLimitItem, str, str]:
        """Return the limit and the names of its counter."""
        own = (self._given if who == LOCAL else self._routes).get(route)
        if own is not None:
            return own, who, route
        return (self._local if who == LOCAL else self._default), who, "default"

    @staticmethod
    def _connected(storage_uri: str) -> Limiter:
        return Limiter(
            key_func=get_remote_address,
            strategy="moving-window",
            storage_uri=storage_uri,
            # Beyond a second the request has waited long enough; wrapped, so that one error says it all.
            storage_options={"socket_timeout": 1, "socket_connect_timeout": 1, "wrap_exceptions": True},  # type: ignore[dict-item]
        )


def limits_of(settings: Settings) -> Limits:
    """Return the limits that the settings ask for."""
    storage = settings.rate_limit_storage
    uri = "memory://" if storage is None else storage.get_secret_value()
    return Limits(settings.rate_limit, settings.rate_limit_local, settings.rate_limits, uri)


def _hit(limiter: Limiter, item: RateLimitItem, *parts: str) -> Standing:
    counters = limiter.limiter
    allowed = counters.hit(item, *parts)
    reset, remaining = counters.get_window_stats(item, *parts)
    return Standing(item.amount, remaining, max(0, round(reset - time.time())), allowed)


def route_of(scope: Scope) -> str:
    """Return the route that answers, `METHOD /template`; the path of a request that no route matched is not told."""
    route = scope.get("route")
    template = getattr(route, "path_format", None) or getattr(route, "path", None) or "unmatched"
    return f"{scope['method']} {template}"
