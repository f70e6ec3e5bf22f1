"""Who a client is: by a header, by a ticket in the address, or by a message; and until when.

A stream lasts longer than one look at its credential: it is looked at again every `Bounds.look_seconds`. One that was
revoked, or whose account was switched off, ends its streams within that and the seconds that `api.accounts.remembered`
keeps an answer (together 15), also where a ticket opened them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.datastructures import Headers
from starlette.types import Scope

from api.accounts.standing import standing_of
from api.accounts.tickets import authenticate_ticket
from api.context import Context
from api.principals import Principal, identify
from gpt_trader.errors import EngineUnreachable

_log = structlog.get_logger("api")

#: What ends a stream.
EXPIRED: Final = "the credential has expired"
NO_LONGER: Final = "the credential is no longer good"
CHANGED: Final = "what this credential may do has changed: come back"

#: What the database raises while it does not answer.
AWAY: Final = (OperationalError, InterfaceError, EngineUnreachable)


class Identity:
    """The principal of one connection, and the credential it came with, which is looked at again and again.

    Args:
        context: The engine's parts.
        ended: Called with the reason once the credential has ended, or can do something else than before.
    """

    def __init__(self, context: Context, ended: Callable[[str], None]) -> None:
        self.principal: Principal | None = None
        self._context = context
        self._ended = ended
        self._watch: asyncio.Task[None] | None = None

    async def take(self, credential: str) -> bool:
        """Identify by a token or key; return whether somebody holds it and may be this connection's principal.

        A renewal must be the same principal's, who can do no less: subscriptions were granted for that.
        """
        found = await identify(self._context.authenticators, credential)
        before = self.principal
        if found is None or (before and not (found.id == before.id and before.scopes <= found.scopes)):
            return False
        self._become(found, credential)
        return True

    async def by_ticket(self, ticket: str) -> bool:
        """Identify by a stream ticket, which is used up with that."""
        found = await authenticate_ticket(self._context.accounts, ticket)
        if found is None:
            return False
        self._become(found, None)
        return True

    def end(self) -> None:
        """Look no more."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _become(self, principal: Principal, credential: str | None) -> None:
        self.principal = principal
        self.end()
        self._watch = asyncio.create_task(self._tell_end(principal, credential))

    async def _tell_end(self, principal: Principal, credential: str | None) -> None:
        self._ended(await end_of(self._context, principal, credential))


async def why_ended(context: Context, principal: Principal, credential: str | None) -> str | None:
    """Return why a stream of a principal must end, None while it may go on.

    Args:
        context: The engine's parts.
        principal: Who opened it, as it was then.
        credential: What it was opened with; None: a ticket, which is used up.
    """
    if _has_expired(principal):
        return EXPIRED
    if credential is None:
        found = await standing_of(context.accounts, principal)
    else:
        found = await identify(context.authenticators, credential)
    if found is None or found.id != principal.id:
        return EXPIRED if _has_expired(principal) else NO_LONGER  # it may have just now
    return None if found.scopes == principal.scopes else CHANGED


def _has_expired(principal: Principal) -> bool:
    return principal.expires_at is not None and time.time() >= principal.expires_at


async def end_of(context: Context, principal: Principal, credential: str | None) -> str:
    """Return why a stream must end, once it must; while the database is away the credential is taken for good."""
    while True:
        seconds = context.streams.bounds.look_seconds
        if principal.expires_at is not None:
            seconds = min(seconds, max(principal.expires_at - time.time(), 0))
        await asyncio.sleep(seconds)
        try:
            reason = await why_ended(context, principal, credential)
        except AWAY as error:
            _log.warning("a credential cannot be checked now", reason=type(error).__name__)
            continue
        if reason is not None:
            return reason


def credential_of(scope: Scope) -> str | None:
    """Return the token or key in a handshake's headers, as the REST routes take it."""
    headers = Headers(scope=scope)
    scheme, _, token = headers.get("authorization", "").partition(" ")
    credential: str | None = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")
    return credential


def ticket_of(scope: Scope) -> str | None:
    """Return the ticket in a handshake's address."""
    tickets = parse_qs(scope["query_string"].decode("latin-1")).get("ticket")
    return tickets[0] if tickets else None
