"""API keys: random, shown once, kept as SHA-256, with a part of their owner's scopes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine, Row, delete, func, insert, or_, select, text, update

from storage.audit import AuditEvent, record_within
from storage.tables import API_KEYS, USERS


@dataclass(frozen=True)
class ApiKey:
    """One key as its owner may see it again."""

    id: UUID
    user_id: UUID
    name: str
    starts_with: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True)
class KeyStanding:
    """A key that stands, and the role of its owner now."""

    key: ApiKey
    role: str


class ApiKeyStore:
    """Reads and writes keys."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self,
        user_id: UUID,
        *,
        name: str,
        digest: str,
        starts_with: str,
        scopes: tuple[str, ...],
        expires_at: datetime | None,
        told: AuditEvent,
    ) -> ApiKey:
        """Keep a new key."""
        values = {
            "id": uuid4(),
            "user_id": user_id,
            "name": name,
            "digest": digest,
            "starts_with": starts_with,
            "scopes": list(scopes),
            "expires_at": expires_at,
        }
        with self._engine.begin() as connection:
            key = _key(connection.execute(insert(API_KEYS).values(values).returning(API_KEYS)).one())
            record_within(connection, told)
        return key

    def list(self, user_id: UUID) -> list[ApiKey]:
        """Return a user's keys, oldest first, the expired ones too."""
        wanted = (
            select(API_KEYS)
            .where(API_KEYS.c.user_id == user_id)
            .order_by(API_KEYS.c.created_at, API_KEYS.c.id)
        )
        with self._engine.connect() as connection:
            return [_key(row) for row in connection.execute(wanted)]

    def delete(self, user_id: UUID, key_id: UUID, told: AuditEvent) -> str | None:
        """Remove a user's key; return its digest, None where the user has no such key."""
        mine = (API_KEYS.c.id == key_id, API_KEYS.c.user_id == user_id)
        with self._engine.begin() as connection:
            gone = connection.execute(delete(API_KEYS).where(*mine).returning(API_KEYS.c.digest))
            digest = gone.scalar_one_or_none()
            record_within(connection, told if digest is not None else None)
        return digest

    def standing(self, digest: str) -> KeyStanding | None:
        """Return a key that has not expired and whose owner is active, and note (to the minute) that it was used."""
        keys = API_KEYS.c
        wanted = (
            select(API_KEYS, USERS.c.role)
            .join(USERS, USERS.c.id == keys.user_id)
            .where(keys.digest == digest, USERS.c.is_active)
            .where(or_(keys.expires_at.is_(None), keys.expires_at > func.now()))
        )
        stale = or_(keys.last_used_at.is_(None), keys.last_used_at < func.now() - text("interval '1 minute'"))
        with self._engine.begin() as connection:
            row = connection.execute(wanted).one_or_none()
            if row is None:
                return None
            noted = update(API_KEYS).where(keys.id == row.id, stale).values(last_used_at=func.now())
            connection.execute(noted)
        return KeyStanding(_key(row), row.role)

    def count(self, user_id: UUID) -> int:
        """Return how many keys a user has."""
        wanted = select(func.count()).where(API_KEYS.c.user_id == user_id)
        with self._engine.connect() as connection:
            return connection.execute(wanted).scalar_one()


def _key(row: Row[Any]) -> ApiKey:
    named = {each.name: getattr(row, each.name) for each in fields(ApiKey)}
    return ApiKey(**{**named, "scopes": tuple(row.scopes)})
