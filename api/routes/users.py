"""Accounts as an administrator sees them, and the keys that sign access tokens."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, EmailStr, Field, SecretStr

from api.accounts import resetting, second_factor
from api.accounts.accounts import Accounts
from api.accounts.callers import AccountsAdministrator, From
from api.accounts.origin import Origin
from api.accounts.roles import Role
from api.accounts.signing_in import end_logins
from api.accounts.users import RESET_SECONDS
from api.dependencies import Administrator, Parts
from api.errors import declared
from api.models import Listing
from storage.accounts import User, no_account

router = APIRouter(prefix="/api/v1/auth", tags=["auth"])

PAGE_LIMIT = 200


class UserView(BaseModel):
    """An account."""

    id: UUID
    principal: str = Field(description="The owner of its runs, keys and sessions.")
    email: str
    role: str
    is_active: bool
    otp_enabled: bool = Field(description="Whether a one-time code is wanted beside the password.")
    created_at: datetime

    @classmethod
    def of(cls, user: User) -> UserView:
        """Return what may be shown of an account."""
        return cls(
            id=user.id,
            principal=user.principal,
            email=user.email,
            role=user.role,
            is_active=user.is_active,
            otp_enabled=user.totp_secret is not None,
            created_at=user.created_at,
        )


class NewUser(BaseModel):
    """An account to make."""

    model_config = ConfigDict(extra="forbid")

    email: EmailStr
    role: Role
    password: SecretStr = Field(description="12 to 200 characters.")


class UserChange(BaseModel):
    """What to change; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    role: Role | None = None
    is_active: bool | None = Field(default=None, description="False ends its logins and stops its keys.")
    otp_enabled: Literal[False] | None = Field(
        default=None, description="False for who has lost the app; its owner switches it on again."
    )


class ResetToken(BaseModel):
    """Sets a new password, once; to be handed to the account's owner."""

    token: str
    expires_in: int = Field(description="Seconds.")


class KeyRotation(BaseModel):
    """How to go on with access tokens that were signed before."""

    model_config = ConfigDict(extra="forbid")

    discard_present: bool = Field(
        default=False, description="Refuse them at once, as after a theft; default: until they expire."
    )


class SigningKeyView(BaseModel):
    """The key that signs from now on, by its id."""

    kid: str
    present_accepted_seconds: int = Field(description="How long tokens of the keys before are accepted.")


@router.get("/users", summary="List the accounts", responses=declared(401, 403, 422, 500))
async def list_users(
    context: Parts,
    _: Administrator,
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT)] = 50,
    cursor: Annotated[
        str | None, Query(pattern=r"^[^\x00]{1,320}$", description="A page's next_cursor.")
    ] = None,
) -> Listing[UserView]:
    """Return them by address."""
    found = await asyncio.to_thread(context.accounts.store.list, limit + 1, cursor)
    page = found[:limit]
    return Listing(
        items=[UserView.of(user) for user in page], next_cursor=page[-1].email if len(found) > limit else None
    )


@router.post(
    "/users",
    status_code=201,
    summary="Make an account",
    responses=declared(400, 401, 403, 409, 413, 422, 500),
)
async def create_user(body: NewUser, context: Parts, origin: From, _: AccountsAdministrator) -> UserView:
    """The first administrator is made this way by the local CLI, `gpt-trader user add EMAIL --role admin`."""
    password = body.password.get_secret_value()
    told = origin.tells("user.created", role=body.role)
    return UserView.of(await context.accounts.users.create(body.email, password, body.role, told))


@router.patch(
    "/users/{user_id}",
    summary="Change an account's role, or switch it off or on",
    responses=declared(400, 401, 403, 404, 409, 413, 422, 500),
)
async def change_user(
    user_id: UUID, body: UserChange, context: Parts, origin: From, _: AccountsAdministrator
) -> UserView:
    """What the role no longer may counts at once, for tokens and keys of before too. 409: the last administrator."""
    accounts = context.accounts
    user = await _user(accounts, user_id)
    user = await _changed(accounts, user, body, origin)
    if body.otp_enabled is False and (user.totp_secret or user.totp_pending):
        await second_factor.remove(accounts, user, origin)
    if body.is_active is False:
        await end_logins(accounts, user, "the account was switched off")
    accounts.forget_standings()
    return UserView.of(await _user(accounts, user_id))


@router.post(
    "/users/{user_id}/reset-token",
    status_code=201,
    summary="Make a reset token for an account",
    responses=declared(401, 403, 404, 409, 422, 500),
)
async def make_reset_token(
    user_id: UUID, context: Parts, origin: From, _: AccountsAdministrator
) -> ResetToken:
    """Its owner sets a new password with it at `reset-password`; no mail is sent."""
    user = await _user(context.accounts, user_id)
    token = await resetting.handed_out(context.accounts, user, origin)
    return ResetToken(token=token, expires_in=RESET_SECONDS)


@router.post(
    "/signing-keys",
    status_code=201,
    summary="Sign access tokens with a new key",
    responses=declared(400, 401, 403, 413, 422, 500),
)
async def rotate_signing_key(
    body: KeyRotation, context: Parts, origin: From, _: AccountsAdministrator
) -> SigningKeyView:
    """Logins go on: whose access token is refused gets the next one by its refresh token."""
    accounts = context.accounts
    overlap = 0.0 if body.discard_present else accounts.tokens.seconds
    key = await asyncio.to_thread(accounts.keys.rotate, overlap)
    told = origin.tells("signing_key.rotated", kid=key.kid, discarded_present=body.discard_present)
    await asyncio.to_thread(accounts.audit.record, told)
    return SigningKeyView(kid=key.kid, present_accepted_seconds=int(overlap))


async def _user(accounts: Accounts, user_id: UUID) -> User:
    found = await asyncio.to_thread(accounts.store.get, user_id)
    if found is None:
        raise no_account(user_id)
    return found


async def _changed(accounts: Accounts, user: User, body: UserChange, origin: Origin) -> User:
    """Set role and activity as far as they differ, and tell what they were and are."""
    wanted: dict[str, Any] = body.model_dump(include={"role", "is_active"}, exclude_none=True)
    changes = {name: value for name, value in wanted.items() if getattr(user, name) != value}
    if not changes:
        return user
    details = {name: {"was": getattr(user, name), "is": value} for name, value in changes.items()}
    told = origin.tells("user.changed", user.principal, **details)
    return await asyncio.to_thread(accounts.store.change, user.id, changes, told)
