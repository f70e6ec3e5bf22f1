"""Stream tickets: for a browser's EventSource or WebSocket, which can send no header of ours.

A ticket stands in an address, where proxies and histories keep it: so it opens one stream, once, within 30 seconds.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from api.accounts.roles import ordered
from api.accounts.standing import origin_of, standing_of, with_origin
from api.accounts.tokens import TICKET_PREFIX, digest_of, fresh_secret
from api.principals import ALL_SCOPES, Principal
from gpt_trader.runs import LOCAL
from storage.tickets import TicketHolder, TicketStore

if TYPE_CHECKING:
    from api.accounts.accounts import Accounts

SECONDS: Final = 30


class Tickets:
    """Hands tickets out and takes them."""

    def __init__(self, store: TicketStore) -> None:
        self._store = store

    async def issue(self, principal: Principal) -> str:
        """Return a ticket for what the principal may do now."""
        ticket = fresh_secret(TICKET_PREFIX)
        end = principal.expires_at
        until = datetime.fromtimestamp(end, UTC) if end is not None else None
        holder = TicketHolder(principal.id, ordered(principal.scopes), until, origin_of(principal))
        await asyncio.to_thread(self._store.issue, digest_of(ticket), holder, SECONDS)
        return ticket

    async def redeem(self, ticket: str) -> Principal | None:
        """Take a ticket and return who asked for it, as that was then; None: it is none, was taken, or has expired."""
        if not ticket.startswith(TICKET_PREFIX):
            return None
        return await asyncio.to_thread(self._redeem, digest_of(ticket))

    def _redeem(self, digest: str) -> Principal | None:
        holder = self._store.redeem(digest)
        if holder is None:
            return None
        end = holder.until.timestamp() if holder.until else None
        scopes = frozenset(scope for scope in ALL_SCOPES if scope in holder.scopes)
        return with_origin(Principal(holder.principal, scopes, expires_at=end), holder.origin)


async def authenticate_ticket(accounts: Accounts, ticket: str) -> Principal | None:
    """Return the principal of a stream's `?ticket=`; it is used up with that. None: refuse the stream."""
    holder = await accounts.tickets.redeem(ticket)
    if holder is None or (holder.user_id is None and holder.id != LOCAL):
        return None
    return await standing_of(accounts, holder)
