"""Stream tickets: for a browser's EventSource or WebSocket, which can send no header of ours.

A ticket stands in an address, where proxies and histories keep it: so it opens one stream, once, within 30 seconds.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from api.accounts.roles import held, ordered
from api.accounts.tokens import TICKET_PREFIX, digest_of, fresh_secret
from api.principals import ALL_SCOPES, Principal
from gpt_trader.runs import LOCAL
from storage.accounts import AccountStore
from storage.tickets import TicketHolder, TicketStore

SECONDS: Final = 30


class Tickets:
    """Hands tickets out and takes them."""

    def __init__(self, store: TicketStore, accounts: AccountStore) -> None:
        self._store = store
        self._accounts = accounts

    async def issue(self, principal: Principal) -> str:
        """Return a ticket for what the principal may do now."""
        ticket = fresh_secret(TICKET_PREFIX)
        end = principal.expires_at
        until = datetime.fromtimestamp(end, UTC) if end is not None else None
        holder = TicketHolder(principal.id, ordered(principal.scopes), until)
        await asyncio.to_thread(self._store.issue, digest_of(ticket), holder, SECONDS)
        return ticket

    async def redeem(self, ticket: str) -> Principal | None:
        """Take a ticket and return who asked for it, None where it is none, was taken, or has expired."""
        if not ticket.startswith(TICKET_PREFIX):
            return None
        return await asyncio.to_thread(self._redeem, digest_of(ticket))

    def _redeem(self, digest: str) -> Principal | None:
        holder = self._store.redeem(digest)
        if holder is None:
            return None
        end = holder.until.timestamp() if holder.until else None
        principal = Principal(holder.principal, frozenset(), expires_at=end)
        if principal.user_id is None:
            scopes = ALL_SCOPES if holder.principal == LOCAL else frozenset()
            return replace(principal, scopes=scopes.intersection(holder.scopes))
        user = self._accounts.get(principal.user_id)
        if user is None or not user.is_active:
            return None
        return replace(principal, scopes=held(holder.scopes, user.role))


async def authenticate_ticket(tickets: Tickets, ticket: str) -> Principal | None:
    """Return the principal of a stream's `?ticket=`; it is used up with that. None: refuse the stream."""
    return await tickets.redeem(ticket)
