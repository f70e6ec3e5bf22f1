"""Logging in, going on by refresh tokens, and logging out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from uuid import UUID

from api.accounts.accounts import Accounts
from api.accounts.origin import Origin
from api.accounts.roles import chosen, held, ordered, scopes_of
from api.accounts.second_factor import take_code
from api.accounts.tokens import REFRESH_PREFIX, digest_of, following_secret, fresh_secret
from api.errors import TooManyRequests, Unauthenticated, WrongCredentials
from api.principals import Scope
from gpt_trader.errors import OtpRequired
from storage.accounts import User, principal_of
from storage.logins import Reused


@dataclass(frozen=True, repr=False)
class Issued:
    """What a login or a refresh hands out."""

    access_token: str
    expires_in: float
    refresh_token: str
    refresh_expires_in: float
    scopes: tuple[Scope, ...]


@dataclass(frozen=True, repr=False)
class Attempt:
    """What somebody logs in with; no `scopes` means all that the account's role has."""

    email: str
    password: str
    otp: str | None = None
    scopes: tuple[str, ...] = ()


async def log_in(accounts: Accounts, attempt: Attempt, origin: Origin) -> Issued:
    """Begin a login.

    Raises:
        WrongCredentials: One of them is wrong.
        OtpRequired: The code is missing.
        TooManyRequests: There were too many wrong ones for this account from this address, or from this address.
        Refused: The scopes are more than the role has.
    """
    user = await prove(accounts, attempt, origin)
    granted = ordered(chosen(attempt.scopes, scopes_of(user.role)))
    refresh_token, seconds = fresh_secret(REFRESH_PREFIX), accounts.settings.refresh_token_days * 86_400
    told = origin.tells("login.succeeded", user.principal, scopes=list(granted))
    login_id = await asyncio.to_thread(
        accounts.logins.start, user.id, granted, digest_of(refresh_token), seconds, told
    )
    return _issued(accounts, user.id, login_id, granted, refresh_token)


async def prove(accounts: Accounts, attempt: Attempt, origin: Origin) -> User:
    """Return the account whose password, and code where it wants one, somebody knows; errors as `log_in`."""
    wait = await accounts.throttle.begin(attempt.email, origin.address)
    if wait:
        raise TooManyRequests(
            f"too many wrong passwords from this address: wait {wait} s; other addresses are not affected",
            retry_after=wait,
        )
    user = await accounts.users.check(attempt.email, attempt.password)
    if user is None or not user.is_active:
        await _failed(accounts, attempt, origin, "password" if user is None else "disabled")
        raise WrongCredentials("the email or the password is wrong")
    if user.totp_secret is not None:
        if not attempt.otp:
            # It stays counted as failed: who knows the password alone must not try codes without end.
            told = origin.tells(
                "login.code_missing", user.principal
            )  # the owner can see that somebody knows it
            await asyncio.to_thread(accounts.audit.record, told)
            raise OtpRequired("this account wants a one-time code as well: send it as the field `otp`")
        if not await take_code(accounts, user, attempt.otp):
            await _failed(accounts, attempt, origin, "one-time code")
            raise WrongCredentials("the one-time code is wrong or was used: wait for the next one")
    await accounts.throttle.succeeded(attempt.email, origin.address)
    return user


async def refresh(accounts: Accounts, token: str, origin: Origin, retry_key: str | None = None) -> Issued:
    """Return the next pair of tokens of a login; the refresh token is used up with that.

    With a `retry_key` the same request may be sent again until its answer has arrived and been used: it gives the same
    refresh token. Whoever has only stolen the token does not know the key, and is found out as ever.

    Raises:
        Unauthenticated: It is none, has expired, or was used before; the login ends with the latter.
    """
    following, seconds = fresh_secret(REFRESH_PREFIX), accounts.settings.refresh_token_days * 86_400
    if retry_key is not None:
        secret = accounts.keys.derived("refresh retries")
        following = following_secret(REFRESH_PREFIX, secret, token, retry_key)
    told = origin.tells("refresh.reused")
    found = await asyncio.to_thread(
        accounts.logins.rotate, digest_of(token), digest_of(following), seconds, told
    )
    if isinstance(found, Reused):
        accounts.login_standings.forget(found.login_id)
        raise Unauthenticated("this refresh token was used before: its login has been ended; log in again")
    if found is None:
        raise Unauthenticated("this refresh token is none, has expired, or its login has ended: log in again")
    granted = ordered(held(found.scopes, found.role))
    return _issued(accounts, found.user_id, found.login_id, granted, following)


async def log_out(accounts: Accounts, token: str | None, login: UUID | None, origin: Origin) -> None:
    """End the login of a refresh token (used or not) and that of an access token; one that has ended is no error."""
    ending = {login: origin.actor} if login is not None else {}
    if token is not None:
        found = await asyncio.to_thread(accounts.logins.login_of, digest_of(token))
        ending |= {found[0]: principal_of(found[1])} if found else {}
    for each, whose in ending.items():
        told = origin.tells("logout", whose, login=str(each))
        await asyncio.to_thread(accounts.logins.end, each, "logged out", told)
        accounts.login_standings.forget(each)


async def end_logins(accounts: Accounts, user: User, because: str, but: UUID | None = None) -> None:
    """End all logins of an account, or all but one."""
    await asyncio.to_thread(accounts.logins.end_all, user.id, because, but)
    accounts.login_standings.forget()


def _issued(
    accounts: Accounts, user_id: UUID, login_id: UUID, granted: tuple[Scope, ...], refresh_token: str
) -> Issued:
    return Issued(
        access_token=accounts.tokens.issue(user_id, login_id, granted),
        expires_in=accounts.tokens.seconds,
        refresh_token=refresh_token,
        refresh_expires_in=accounts.settings.refresh_token_days * 86_400,
        scopes=granted,
    )


async def _failed(accounts: Accounts, attempt: Attempt, origin: Origin, reason: str) -> None:
    """Write a failed login down; an address without an account is not: people type passwords there."""
    user = await asyncio.to_thread(accounts.store.by_email, attempt.email)
    told = origin.tells("login.failed", user.principal if user else None, reason=reason)
    await asyncio.to_thread(accounts.audit.record, told)
