"""Stream tickets: one opens one stream, within seconds; kept as SHA-256 until it is used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Engine, Interval, cast, delete, func, insert, literal, select

from storage.tables import TICKETS


@dataclass(frozen=True)
class TicketHolder:
    """Who asked for the ticket, what that principal could do then, until when (None: no end), and with what."""

    principal: str
    scopes: tuple[str, ...]
    until: datetime | None
    origin: str | None = None


#: Skips what another issue clears away at this moment.
_EXPIRED: Final = delete(TICKETS).where(
    TICKETS.c.digest.in_(
        select(TICKETS.c.digest).where(TICKETS.c.expires_at < func.now()).with_for_update(skip_locked=True)
    )
)


class TicketStore:
    """Reads and writes tickets."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def issue(self, digest: str, holder: TicketHolder, seconds: float) -> None:
        """Keep a ticket for so long; those that expired unused are cleared away."""
        until = func.now() + cast(literal(f"{seconds} seconds"), Interval)
        values = {
            "digest": digest,
            "principal": holder.principal,
            "scopes": list(holder.scopes),
            "holder_until": holder.until,
            "origin": holder.origin,
            "expires_at": until,
        }
        with self._engine.begin() as connection:
            connection.execute(_EXPIRED)
            connection.execute(insert(TICKETS).values(values))

    def redeem(self, digest: str) -> TicketHolder | None:
        """Take a ticket; None for one that nobody has, that has expired, or that was taken before."""
        taking = delete(TICKETS).where(TICKETS.c.digest == digest, TICKETS.c.expires_at > func.now())
        with self._engine.begin() as connection:
            row = connection.execute(taking.returning(TICKETS)).one_or_none()
        if row is None:
            return None
        return TicketHolder(row.principal, tuple(row.scopes), row.holder_until, row.origin)
