"""One's own account: who one is, its password, one-time codes, and tickets for streams."""

from __future__ import annotations

import asyncio
from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, EmailStr, Field, SecretStr

from api.accounts import second_factor
from api.accounts.callers import Anybody, From, Login, SignedIn
from api.accounts.origin import Origin
from api.accounts.roles import ordered
from api.accounts.signing_in import Attempt, end_logins, prove
from api.accounts.tickets import SECONDS
from api.context import Context
from api.dependencies import Parts, Reader
from api.errors import declared
from api.principals import Scope
from api.routes.users import UserView
from gpt_trader.errors import Problem, Refused
from storage.accounts import User

router = APIRouter(prefix="/api/v1/auth", tags=["auth"])


class Me(BaseModel):
    """Who asks, and what the credential may do; a principal that is no account has no `account`."""

    id: str = Field(description="The owner of what is started with this credential.")
    scopes: list[Scope]
    expires_at: datetime | None = Field(description="When the credential ends; null: not by itself.")
    account: UserView | None


class Proof(BaseModel):
    """Shows that it is the account's owner who asks, not somebody with a token of theirs."""

    model_config = ConfigDict(extra="forbid")

    current_password: SecretStr
    otp: SecretStr | None = Field(default=None, description="A one-time code, where the account wants one.")


class MyChange(Proof):
    """What to change; what is left out stays."""

    email: EmailStr | None = None
    password: SecretStr | None = Field(default=None, description="12 to 200 characters.")


class OtpEnrollment(BaseModel):
    """For the authenticator app; it is shown this once."""

    secret: str = Field(description="Base 32, to be typed in.")
    uri: str = Field(description="`otpauth://…`, to be shown as a QR code.")


class OtpCode(BaseModel):
    """The app's present code."""

    model_config = ConfigDict(extra="forbid")

    code: SecretStr


class StreamTicket(BaseModel):
    """Opens one stream, once: `?ticket=…`."""

    ticket: str
    expires_in: int = Field(description="Seconds.")


@router.get("/me", summary="Who am I", responses=declared(401, 403, 500))
async def show_me(context: Parts, principal: Anybody) -> Me:
    """Works with any credential."""
    user = None
    if principal.user_id is not None:
        user = await asyncio.to_thread(context.accounts.store.get, principal.user_id)
    return Me.model_validate(
        {
            "id": principal.id,
            "scopes": ordered(principal.scopes),
            "expires_at": principal.expires_at,
            "account": UserView.of(user) if user else None,
        }
    )


@router.patch(
    "/me",
    summary="Change one's own email or password",
    responses=declared(400, 401, 403, 409, 413, 422, 429, 500),
)
async def change_me(body: MyChange, context: Parts, user: SignedIn, login: Login, origin: From) -> UserView:
    """The present password comes with it. A new password ends every other login of the account."""
    password = body.password.get_secret_value() if body.password else None
    if body.email is None and password is None:
        raise Refused.of(Problem("email", None, "nothing to change: give email or password"))
    await _proven(context, user, body, origin)
    changed = [name for name, value in (("email", body.email), ("password", password)) if value]
    told = origin.tells("account.changed", user.principal, fields=changed)
    found = await context.accounts.users.change(user, told, email=body.email, password=password)
    if password is not None:
        await end_logins(context.accounts, found, "the password was changed", but=login)
    return UserView.of(found)


@router.post(
    "/otp/enroll",
    status_code=201,
    summary="Set one-time codes up",
    responses=declared(400, 401, 403, 413, 422, 500),
)
async def enroll_otp(body: Proof, context: Parts, user: SignedIn, origin: From) -> OtpEnrollment:
    """Nothing changes until `otp/confirm`. An account that has codes brings one of them, and gets a new secret."""
    await _proven(context, user, body, origin)
    found = await second_factor.enroll(context.accounts, user, origin)
    return OtpEnrollment(secret=found.secret, uri=found.uri)


@router.post(
    "/otp/confirm",
    summary="Want one-time codes from now on",
    responses=declared(400, 401, 403, 409, 413, 422, 500),
)
async def confirm_otp(body: OtpCode, context: Parts, user: SignedIn, origin: From) -> UserView:
    """Bring the first code of the app; the next login wants the next one."""
    await second_factor.confirm(context.accounts, user, body.code.get_secret_value(), origin)
    found = await asyncio.to_thread(context.accounts.store.get, user.id)
    return UserView.of(found or user)


@router.post(
    "/stream-tickets",
    status_code=201,
    summary="Get a ticket for a stream",
    responses=declared(401, 403, 500),
)
async def make_ticket(context: Parts, principal: Reader) -> StreamTicket:
    """For a browser's EventSource or WebSocket, which send no `Authorization` header."""
    return StreamTicket(ticket=await context.accounts.tickets.issue(principal), expires_in=SECONDS)


async def _proven(context: Context, user: User, proof: Proof, origin: Origin) -> None:
    """Raise WrongCredentials unless it is the owner; wrong ones are counted as failed logins are."""
    code = proof.otp.get_secret_value() if proof.otp else None
    attempt = Attempt(user.email, proof.current_password.get_secret_value(), code)
    await prove(context.accounts, attempt, origin)
