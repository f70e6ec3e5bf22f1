"""Logins and their refresh tokens: a token is taken once, and whoever brings it again ends the login.

A login is the family of the refresh tokens that follow from it. Tokens are kept as SHA-256: they are random, so a
slow hash would add nothing. Taking one is one UPDATE: of any number of parallel attempts one gets the row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine, Interval, cast, delete, func, insert, literal, select, update

from storage.accounts import principal_of
from storage.audit import AuditEvent, record_within
from storage.tables import LOGINS, REFRESH_TOKENS, USERS


@dataclass(frozen=True)
class LoginStanding:
    """A login that stands: whose, what was granted, and the role of its account now."""

    login_id: UUID
    user_id: UUID
    scopes: tuple[str, ...]
    role: str


@dataclass(frozen=True)
class Reused:
    """A refresh token was brought a second time: its login has been ended (`newly`: by this)."""

    login_id: UUID
    user_id: UUID
    newly: bool


#: Skips what another login clears away at this moment: two that delete in another order would wait for each other.
_EXPIRED: Final = delete(LOGINS).where(
    LOGINS.c.id.in_(
        select(LOGINS.c.id).where(LOGINS.c.expires_at < func.now()).with_for_update(skip_locked=True)
    )
)


class LoginStore:
    """Reads and writes logins."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def start(
        self, user_id: UUID, scopes: tuple[str, ...], digest: str, seconds: float, told: AuditEvent
    ) -> UUID:
        """Begin a login with its first refresh token, good for `seconds`; what has long expired is cleared away."""
        login_id = uuid4()
        until = _after(seconds)
        with self._engine.begin() as connection:
            connection.execute(_EXPIRED)
            connection.execute(
                insert(LOGINS).values(id=login_id, user_id=user_id, scopes=list(scopes), expires_at=until)
            )
            _add_token(connection, login_id, digest, seconds)
            record_within(connection, told)
        return login_id

    def rotate(
        self, digest: str, next_digest: str, seconds: float, told: AuditEvent
    ) -> LoginStanding | Reused | None:
        """Take a refresh token and put the next one in its place.

        Whoever brings a taken token with the digest of the very token that was put in its place, unused so far, tries
        again because the answer was lost: they get that one once more.

        Returns:
            The login; Reused where the token was taken before (told in the audit log as `told`); None for a token that
            nobody has, that has expired, or whose login or account has ended.
        """
        tokens, logins, users = REFRESH_TOKENS.c, LOGINS.c, USERS.c
        claim = (
            update(REFRESH_TOKENS)
            .where(tokens.digest == digest, tokens.used_at.is_(None), tokens.expires_at > func.now())
            .where(logins.id == tokens.login_id, logins.revoked_at.is_(None))
            .where(users.id == logins.user_id, users.is_active)
            .values(used_at=func.clock_timestamp())
            .returning(tokens.login_id, logins.user_id, logins.scopes, users.role)
        )
        with self._engine.begin() as connection:
            taken = connection.execute(claim).one_or_none()
            if taken is None:
                return _retried(connection, digest, next_digest) or _reused(connection, digest, told)
            old = (tokens.login_id == taken.login_id, tokens.expires_at < func.now())
            connection.execute(delete(REFRESH_TOKENS).where(*old))
            _add_token(connection, taken.login_id, next_digest, seconds)
            longer = update(LOGINS).where(logins.id == taken.login_id).values(expires_at=_after(seconds))
            connection.execute(longer)
        return LoginStanding(taken.login_id, taken.user_id, tuple(taken.scopes), taken.role)

    def standing(self, login_id: UUID) -> LoginStanding | None:
        """Return a login that stands, None for one that was ended or whose account is switched off."""
        logins, users = LOGINS.c, USERS.c
        wanted = (
            select(logins.user_id, logins.scopes, users.role)
            .join(USERS, users.id == logins.user_id)
            .where(logins.id == login_id, logins.revoked_at.is_(None), users.is_active)
            .where(logins.expires_at > func.now())
        )
        with self._engine.connect() as connection:
            row = connection.execute(wanted).one_or_none()
        return None if row is None else LoginStanding(login_id, row.user_id, tuple(row.scopes), row.role)

    def login_of(self, digest: str) -> tuple[UUID, UUID] | None:
        """Return the ids of the login and the user that a refresh token, taken or not, belongs to."""
        with self._engine.connect() as connection:
            return _login_of(connection, digest)

    def end(self, login_id: UUID, because: str, told: AuditEvent | None = None) -> bool:
        """End a login; return False where it had ended before."""
        with self._engine.begin() as connection:
            ended = _end(connection, login_id, because)
            record_within(connection, told if ended else None)
        return ended

    def end_all(self, user_id: UUID, because: str, but: UUID | None = None) -> list[UUID]:
        """End every login of a user, or every other than `but`; return which those were."""
        mine = (LOGINS.c.user_id == user_id, LOGINS.c.revoked_at.is_(None))
        values = {"revoked_at": func.clock_timestamp(), "revoked_because": because}
        ending = update(LOGINS).where(*mine).values(values).returning(LOGINS.c.id)
        if but is not None:
            ending = ending.where(LOGINS.c.id != but)
        with self._engine.begin() as connection:
            return list(connection.execute(ending).scalars())


def _retried(connection: Connection, digest: str, next_digest: str) -> LoginStanding | None:
    """Return the login whose taken token was followed by this one, where that waits to be used."""
    taken, following = REFRESH_TOKENS.alias("taken").c, REFRESH_TOKENS.alias("following").c
    logins, users = LOGINS.c, USERS.c
    wanted = (
        select(taken.login_id, logins.user_id, logins.scopes, users.role)
        .where(taken.digest == digest, taken.used_at.is_not(None))
        .where(following.digest == next_digest, following.login_id == taken.login_id)
        .where(following.used_at.is_(None), following.expires_at > func.now())
        .where(logins.id == taken.login_id, logins.revoked_at.is_(None))
        .where(users.id == logins.user_id, users.is_active)
    )
    row = connection.execute(wanted).one_or_none()
    return None if row is None else LoginStanding(row.login_id, row.user_id, tuple(row.scopes), row.role)


def _reused(connection: Connection, digest: str, told: AuditEvent) -> Reused | None:
    """End the login of a token that was taken before; an expired or unknown one ends nothing."""
    used = select(REFRESH_TOKENS.c.used_at).where(REFRESH_TOKENS.c.digest == digest)
    if connection.execute(used).scalar() is None:
        return None
    found = _login_of(connection, digest)
    assert found is not None  # the foreign key says so
    login_id, user_id = found
    newly = _end(connection, login_id, "a refresh token was brought twice")
    about = replace(told, subject=principal_of(user_id), details={**told.details, "login": str(login_id)})
    record_within(connection, about if newly else None)
    return Reused(login_id, user_id, newly)


def _login_of(connection: Connection, digest: str) -> tuple[UUID, UUID] | None:
    wanted = (
        select(LOGINS.c.id, LOGINS.c.user_id)
        .join(REFRESH_TOKENS, REFRESH_TOKENS.c.login_id == LOGINS.c.id)
        .where(REFRESH_TOKENS.c.digest == digest)
    )
    row = connection.execute(wanted).one_or_none()
    return None if row is None else (row.id, row.user_id)


def _end(connection: Connection, login_id: UUID, because: str) -> bool:
    standing = (LOGINS.c.id == login_id, LOGINS.c.revoked_at.is_(None))
    values = {"revoked_at": func.clock_timestamp(), "revoked_because": because}
    return connection.execute(update(LOGINS).where(*standing).values(values)).rowcount == 1


def _add_token(connection: Connection, login_id: UUID, digest: str, seconds: float) -> None:
    row = {"digest": digest, "login_id": login_id, "expires_at": _after(seconds)}
    connection.execute(insert(REFRESH_TOKENS).values(row))


def _after(seconds: float) -> object:
    """Return the database's time in so many seconds: one clock decides for every process."""
    return func.now() + cast(literal(f"{seconds} seconds"), Interval)
