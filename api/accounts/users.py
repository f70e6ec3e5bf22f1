"""Accounts by fastapi-users: creating, checking, changing and resetting, each in the passwords' thread.

What fastapi-users does here: Argon2 by pwdlib and its upgrades, the same time for an address without an account, reset
tokens that end with the password they were made for. What it lacks (refresh tokens, keys, codes, scopes) is beside it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from fastapi import Request
from fastapi.security import OAuth2PasswordRequestForm
from fastapi_users import BaseUserManager, UUIDIDMixin, exceptions
from fastapi_users.db import BaseUserDatabase
from fastapi_users.password import PasswordHelperProtocol
from fastapi_users.schemas import BaseUserCreate, BaseUserUpdate

from api.accounts.passwords import PasswordThread, argon2, check_password
from api.accounts.roles import Role
from gpt_trader.errors import Conflict, Problem, Refused
from storage.accounts import AccountStore, User, address_taken
from storage.audit import AuditEvent

#: Seconds that a reset token is good for.
RESET_SECONDS: Final = 3600

#: What fastapi-users sets and we derive from the role, or do without.
_NOT_KEPT: Final = frozenset({"is_superuser", "is_verified"})


class NewAccount(BaseUserCreate):
    """What an account is made of."""

    role: Role


class Users:
    """The accounts and their passwords.

    Args:
        store: The accounts in SQL.
        thread: Where passwords are hashed.
        reset_secret: Signs reset tokens.
        hasher: Hashes passwords; default: `argon2`.
    """

    def __init__(
        self,
        store: AccountStore,
        thread: PasswordThread,
        reset_secret: str,
        hasher: PasswordHelperProtocol | None = None,
    ) -> None:
        self._store = store
        self._thread = thread
        self._reset_secret = reset_secret
        self._hasher = hasher or argon2()

    async def check(self, email: str, password: str) -> User | None:
        """Return the account that this is the password of; it takes as long where there is none."""
        credentials = OAuth2PasswordRequestForm(username=email, password=password)
        return await self._thread.run(lambda: self._manager(None).authenticate(credentials))

    async def create(self, email: str, password: str, role: Role, told: AuditEvent) -> User:
        """Make an account; raise Refused for a weak password, Conflict for an address that has an account."""
        wanted = NewAccount(email=email, password=password, role=role)
        try:
            return await self._thread.run(lambda: self._manager(told).create(wanted))
        except exceptions.UserAlreadyExists:
            raise address_taken(email) from None

    async def change(
        self, user: User, told: AuditEvent, *, email: str | None = None, password: str | None = None
    ) -> User:
        """Give an account another address or password; errors as `create`."""
        given = {name: value for name, value in (("email", email), ("password", password)) if value}
        wanted = BaseUserUpdate.model_validate(given)
        try:
            return await self._thread.run(lambda: self._manager(told).update(wanted, user))
        except exceptions.UserAlreadyExists:
            raise address_taken(email or "") from None

    async def reset_token(self, user: User) -> str:
        """Return a token that sets a new password, once; it ends with the present password or after an hour.

        Raises:
            Conflict: The account is switched off.
        """
        manager = self._manager(None)
        try:
            await self._thread.run(lambda: manager.forgot_password(user))
        except exceptions.UserInactive:
            raise Conflict(f"the account {user.email} is switched off: switch it on first") from None
        return manager.made_token

    async def reset(self, token: str, password: str, told: AuditEvent) -> User:
        """Set a new password by a reset token; raise Refused where the token is none, was used, or has expired."""
        try:
            return await self._thread.run(lambda: self._manager(told).reset_password(token, password))
        except (
            exceptions.InvalidResetPasswordToken,
            exceptions.UserNotExists,
            exceptions.UserInactive,
        ):
            message = "is no reset token, was used, or has expired: ask an administrator for a new one"
            raise Refused.of(Problem("token", None, message)) from None

    def _manager(self, told: AuditEvent | None) -> _Manager:
        return _Manager(_Table(self._store, told), self._hasher, self._reset_secret)


class _Manager(UUIDIDMixin, BaseUserManager[User, UUID]):
    """fastapi-users' logic over our table; one an operation."""

    reset_password_token_lifetime_seconds = RESET_SECONDS

    def __init__(self, table: _Table, hasher: PasswordHelperProtocol, reset_secret: str) -> None:
        super().__init__(table, hasher)
        self.reset_password_token_secret = reset_secret
        self.made_token = ""

    async def validate_password(self, password: str, user: BaseUserCreate | User) -> None:
        """Apply our rules (fastapi-users has none of its own)."""
        check_password(password, user.email)

    async def on_after_forgot_password(
        self, _user: User, token: str, _request: Request | None = None
    ) -> None:
        """Keep the token for who asked for it."""
        self.made_token = token


class _Table(BaseUserDatabase[User, UUID]):
    """The accounts as fastapi-users reads and writes them. It blocks: for the passwords' thread only."""

    def __init__(self, store: AccountStore, told: AuditEvent | None) -> None:
        self._store = store
        self._told = told

    async def get(self, id: UUID) -> User | None:  # noqa: A002 - fastapi-users' name
        return self._store.get(id)

    async def get_by_email(self, email: str) -> User | None:
        return self._store.by_email(email)

    async def create(self, create_dict: dict[str, Any]) -> User:
        kept = {name: value for name, value in create_dict.items() if name not in {*_NOT_KEPT, "is_active"}}
        return self._store.create(**kept, told=self._told)

    async def update(self, user: User, update_dict: dict[str, Any]) -> User:
        kept = {name: value for name, value in update_dict.items() if name not in _NOT_KEPT}
        told = replace(self._told, subject=user.principal) if self._told else None
        return self._store.change(user.id, kept, told)
