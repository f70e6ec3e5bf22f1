"""What routes of accounts may ask for: where the request comes from, and the account behind it."""

from __future__ import annotations

import asyncio
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request

from api.accounts.origin import Origin
from api.dependencies import Administrator, Asking, Parts, authenticated
from api.principals import Principal
from gpt_trader.errors import Denied
from storage.accounts import User

#: Whoever holds any credential.
Anybody = Annotated[Principal, Depends(authenticated)]


async def origin_of(request: Request, asking: Asking) -> Origin:
    """Return where the request comes from; open routes have it too."""
    address = request.client.host if request.client else "nowhere"
    actor = asking.principal.id if asking.principal else None
    return Origin(actor, address, request.scope["state"]["request_id"])


async def account(context: Parts, principal: Anybody) -> User:
    """Return the caller's account; raise Denied for a principal that is none (the local key)."""
    user = None
    if principal.user_id is not None:
        user = await asyncio.to_thread(context.accounts.store.get, principal.user_id)
    if user is None:
        raise Denied(f"{principal.id!r} is no account: log in with `gpt-trader login` to have keys and codes")
    return user


async def signed_in(principal: Anybody, user: Annotated[User, Depends(account)]) -> User:
    """Return the caller's account if it has logged in: a key must not make itself keys, codes or passwords."""
    if principal.login is None:
        raise Denied("an API key may not do this: log in and send the access token")
    return user


async def accounts_administrator(principal: Administrator) -> Principal:
    """Return an administrator who has logged in, or reads the local key.

    An API key, `admin` or not, must not make passwords, and with them more than it was given.
    """
    if principal.user_id is not None and principal.login is None:
        raise Denied("an API key may not change accounts: log in and send the access token")
    return principal


async def login_of(principal: Anybody) -> UUID | None:
    """Return the login that the caller's access token comes from."""
    return principal.login


From = Annotated[Origin, Depends(origin_of)]
Account = Annotated[User, Depends(account)]
SignedIn = Annotated[User, Depends(signed_in)]
AccountsAdministrator = Annotated[Principal, Depends(accounts_administrator)]
Login = Annotated[UUID | None, Depends(login_of)]
