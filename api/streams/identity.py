"""Who a client is: by a header, by a ticket in the address, or by a message; and until when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import Scope

from api.accounts.tickets import authenticate_ticket
from api.context import Context
from api.principals import Principal, identify

#: `call_later` takes no more than this, and no credential lives longer.
_LONGEST = 30 * 86400.0


class Identity:
    """The principal of one connection, and the credential it came with, to be looked at again.

    Args:
        expired: Called when the credential ends without having been renewed.
    """

    def __init__(self, context: Context, expired: Callable[[], None]) -> None:
        self.principal: Principal | None = None
        self._context = context
        self._credential: str | None = None
        self._expired = expired
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, credential: str) -> bool:
        """Identify by a token or key; return whether somebody holds it and may be this connection's principal.

        A renewal must be the same principal's: subscriptions were granted to it.
        """
        found = await identify(self._context.authenticators, credential)
        if found is None or (self.principal is not None and found.id != self.principal.id):
            return False
        self._credential = credential
        self._become(found)
        return True

    async def still_holds(self) -> bool:
        """Return whether the credential is still good (a key may be revoked, an account closed)."""
        if self._credential is None:
            return True  # a ticket is used up: what it was made from is not known here
        return await self.take(self._credential)

    async def by_ticket(self, ticket: str) -> bool:
        """Identify by a stream ticket, which is used up with that."""
        found = await authenticate_ticket(self._context.accounts.tickets, ticket)
        if found is None:
            return False
        self._become(found)
        return True

    def end(self) -> None:
        """Look at the clock no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _become(self, principal: Principal) -> None:
        self.principal = principal
        self.end()
        if principal.expires_at is not None:
            seconds = min(max(principal.expires_at - time.time(), 0), _LONGEST)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._expired)


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
