"""Whether what somebody came in with still stands: a stream is opened once and lasts, its credential may not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

from api.accounts.roles import held
from api.principals import Principal

if TYPE_CHECKING:
    from api.accounts.accounts import Accounts

_LOGIN, _KEY = "login:", "key:"


def origin_of(principal: Principal) -> str | None:
    """Return the login or key that a principal came with, as text; None for the local key."""
    if principal.login is not None:
        return f"{_LOGIN}{principal.login}"
    return None if principal.key is None else f"{_KEY}{principal.key}"


def with_origin(principal: Principal, origin: str | None) -> Principal:
    """Return the principal with the login or key that `origin_of` wrote down."""
    if origin is None:
        return principal
    if origin.startswith(_LOGIN):
        return replace(principal, login=UUID(origin.removeprefix(_LOGIN)))
    return replace(principal, key=origin.removeprefix(_KEY))


async def standing_of(accounts: Accounts, principal: Principal) -> Principal | None:
    """Return the principal with what it may do now; None where its login, key or account has ended.

    A change that this process made counts at once, another's within `remembered.SECONDS`. Raises what the database
    raises while it does not answer.
    """
    if principal.login is not None:
        login = await accounts.login_standings.get(principal.login)
        return None if login is None else _now(principal, login.role, login.scopes)
    if principal.key is not None:
        key = await accounts.key_standings.get(principal.key)
        return None if key is None else _now(principal, key.role, key.key.scopes)
    if principal.user_id is None:
        return principal
    user = await asyncio.to_thread(accounts.store.get, principal.user_id)
    if user is None or not user.is_active:
        return None
    return replace(principal, scopes=held(principal.scopes, user.role))


def _now(principal: Principal, role: str, granted: tuple[str, ...]) -> Principal:
    return replace(principal, scopes=held(principal.scopes.intersection(granted), role))
