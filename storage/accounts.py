"""Accounts in SQL: one row a user. What a password or a code is worth is the API's to judge (`api.accounts`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Connection, Engine, Row, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from gpt_trader.errors import Conflict, NotFound
from storage.audit import AuditEvent, record_within
from storage.tables import USERS

#: Accounts of this role may do everything.
ADMIN = "admin"


@dataclass(eq=False)
class User:
    """One account, as fastapi-users wants to see it; the two secrets are sealed."""

    id: UUID
    email: str
    hashed_password: str
    role: str
    is_active: bool
    totp_secret: str | None
    totp_pending: str | None
    totp_last_step: int | None
    created_at: datetime
    is_superuser: bool = False
    is_verified: bool = False  # there is no mail to verify an address by

    def __post_init__(self) -> None:
        self.is_superuser = self.role == ADMIN

    def __repr__(self) -> str:
        return f"User(id={self.id!r}, role={self.role!r})"

    @property
    def principal(self) -> str:
        """The id of the principal that this account is."""
        return principal_of(self.id)


def principal_of(user_id: UUID) -> str:
    """Return the principal's id of an account."""
    return f"user:{user_id}"


class AccountStore:
    """Reads and writes accounts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, user_id: UUID) -> User | None:
        """Return the account of an id."""
        return self._one(USERS.c.id == user_id)

    def by_email(self, email: str) -> User | None:
        """Return the account of an address, however it is capitalized."""
        if "\x00" in email:  # which PostgreSQL's text cannot hold: nobody's
            return None
        return self._one(func.lower(USERS.c.email) == func.lower(email))

    def list(self, limit: int, after: str | None = None) -> list[User]:
        """Return up to `limit` accounts by address; those behind one, where that is given."""
        address = func.lower(USERS.c.email)
        wanted = select(USERS).order_by(address).limit(limit)
        if after is not None:
            wanted = wanted.where(address > func.lower(after))
        with self._engine.connect() as connection:
            return [_user(row) for row in connection.execute(wanted)]

    def create(self, email: str, hashed_password: str, role: str, told: AuditEvent | None = None) -> User:
        """Make an account; raise Conflict where the address has one."""
        values = {"id": uuid4(), "email": email, "hashed_password": hashed_password, "role": role}
        try:
            with self._engine.begin() as connection:
                row = connection.execute(insert(USERS).values(values).returning(USERS)).one()
                user = _user(row)
                record_within(connection, replace(told, subject=user.principal) if told else None)
        except IntegrityError:
            raise address_taken(email) from None
        return user

    def change(self, user_id: UUID, values: Mapping[str, Any], told: AuditEvent | None = None) -> User:
        """Set columns of an account.

        Raises:
            NotFound: There is no such account.
            Conflict: The new address has one already; or it is the last active administrator's, and would be none.
        """
        changes = update(USERS).where(USERS.c.id == user_id).values(dict(values)).returning(USERS)
        try:
            with self._engine.begin() as connection:
                if values.get("role", ADMIN) != ADMIN or values.get("is_active") is False:
                    _leave_an_administrator(connection, user_id)
                row = connection.execute(changes if values else select(USERS).where(USERS.c.id == user_id))
                found = row.one_or_none()
                if found is None:
                    raise no_account(user_id)
                record_within(connection, told)
        except IntegrityError:
            raise address_taken(str(values.get("email"))) from None
        return _user(found)

    def take_step(self, user_id: UUID, step: int) -> bool:
        """Take a time step of one-time codes; return False where it, or a later one, was taken before."""
        last = USERS.c.totp_last_step
        unused = or_(last.is_(None), last < step)
        claim = update(USERS).where(USERS.c.id == user_id, unused).values(totp_last_step=step)
        with self._engine.begin() as connection:
            return connection.execute(claim).rowcount == 1

    def enable_otp(self, user_id: UUID, pending: str, step: int, told: AuditEvent) -> bool:
        """Make a secret that was shown the account's; return False where another one has been shown since."""
        shown = (USERS.c.id == user_id, USERS.c.totp_pending == pending)
        values = {"totp_secret": pending, "totp_pending": None, "totp_last_step": step}
        with self._engine.begin() as connection:
            done = connection.execute(update(USERS).where(*shown).values(values)).rowcount == 1
            record_within(connection, told if done else None)
        return done

    def _one(self, condition: ColumnElement[bool]) -> User | None:
        with self._engine.connect() as connection:
            row = connection.execute(select(USERS).where(condition)).one_or_none()
        return None if row is None else _user(row)


def _leave_an_administrator(connection: Connection, user_id: UUID) -> None:
    """Raise Conflict where the account is the only active administrator's.

    All of them are locked until the transaction ends: two that switch each other off wait for one another.
    """
    active = select(USERS.c.id).where(USERS.c.role == ADMIN, USERS.c.is_active)
    ids = connection.execute(active.order_by(USERS.c.id).with_for_update()).scalars().all()
    if list(ids) == [user_id]:
        raise Conflict("this is the last active administrator: make another one first")


def address_taken(email: str) -> Conflict:
    """Return the error for an address that has an account."""
    return Conflict(
        f"{email[:320]} has an account already: log in, or ask an administrator for a new password"
    )


def no_account(which: UUID | str) -> NotFound:
    """Return the error for an account that nobody has."""
    return NotFound(f"there is no account {which}: `gpt-trader user list` lists them")


def _user(row: Row[Any]) -> User:
    return User(**row._mapping)
