"""The audit log: who did what to accounts and keys, from where. Append-only, and never with a secret in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select, text

from storage.tables import AUDIT_EVENTS


@dataclass(frozen=True)
class AuditEvent:
    """One thing that happened.

    `actor` is the principal who did it (None: nobody known), `subject` the principal or key it was done to; `details`
    are JSON-ready.
    """

    event: str
    actor: str | None = None
    subject: str | None = None
    address: str | None = None
    request_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AuditEntry(AuditEvent):
    """The same as it was written down."""

    id: int = 0
    at: datetime = datetime.min  # noqa: DTZ901 - every row has one


@dataclass(frozen=True)
class AuditPage:
    """Some entries, newest first, and the id to go on before (None: these were the last)."""

    items: tuple[AuditEntry, ...]
    next_before: int | None


def record_within(connection: Connection, told: AuditEvent | None) -> None:
    """Write an event down in the transaction of what it tells of."""
    if told is not None:
        values = {each.name: getattr(told, each.name) for each in fields(AuditEvent)}
        connection.execute(insert(AUDIT_EVENTS).values({**values, "details": dict(told.details)}))


class AuditLog:
    """Reads and writes the log."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, told: AuditEvent) -> None:
        """Write one event down."""
        with self._engine.begin() as connection:
            record_within(connection, told)

    def page(self, limit: int, before: int | None = None, event: str | None = None) -> AuditPage:
        """Return up to `limit` entries, newest first: those before an id, and of one kind, where that is given."""
        wanted = select(AUDIT_EVENTS).order_by(AUDIT_EVENTS.c.id.desc()).limit(limit + 1)
        if before is not None:
            wanted = wanted.where(AUDIT_EVENTS.c.id < before)
        if event is not None:
            wanted = wanted.where(AUDIT_EVENTS.c.event == event)
        with self._engine.connect() as connection:
            rows = connection.execute(wanted).all()
        entries = tuple(AuditEntry(**row._mapping) for row in rows[:limit])
        return AuditPage(entries, entries[-1].id if len(rows) > limit else None)

    def forget(self, days: float) -> int:
        """Remove what is older; return how many entries that were."""
        old = AUDIT_EVENTS.c.at < func.now() - text("make_interval(secs => :seconds)")
        with self._engine.begin() as connection:
            return connection.execute(delete(AUDIT_EVENTS).where(old), {"seconds": days * 86_400}).rowcount
