"""Getting in and out: registering, logging in, refreshing, logging out, and passwords that were forgotten."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, BackgroundTasks, Form, Header
from pydantic import BaseModel, ConfigDict, EmailStr, Field, SecretStr

from api.accounts import resetting, signing_in
from api.accounts.callers import From
from api.accounts.roles import FIRST_ROLE
from api.accounts.signing_in import Attempt, Issued
from api.dependencies import Asking, Parts
from api.errors import RegistrationClosed, Unauthenticated, declared
from api.routes.users import UserView

router = APIRouter(prefix="/api/v1/auth", tags=["auth"])


RetryKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{16,200}$",
        description="Random, and as secret as the token: who knows both gets the same answer again.",
    ),
]


class Registration(BaseModel):
    """A new account."""

    model_config = ConfigDict(extra="forbid")

    email: EmailStr
    password: SecretStr = Field(description="12 to 200 characters.")


class TokenPair(BaseModel):
    """An access token for requests, and a refresh token that gives the next pair, once."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the kind of token
    expires_in: int = Field(description="Seconds.")
    refresh_token: str
    refresh_expires_in: int = Field(description="Seconds.")
    scope: str = Field(description="What the access token may do, separated by blanks.")

    @classmethod
    def of(cls, issued: Issued) -> TokenPair:
        """Return what a login or a refresh gave as it is sent."""
        return cls(
            access_token=issued.access_token,
            expires_in=int(issued.expires_in),
            refresh_token=issued.refresh_token,
            refresh_expires_in=int(issued.refresh_expires_in),
            scope=" ".join(issued.scopes),
        )


class RefreshRequest(BaseModel):
    """A refresh token, to be used up."""

    model_config = ConfigDict(extra="forbid")

    refresh_token: SecretStr


class LogoutRequest(BaseModel):
    """The login to end, by its refresh token; default: the one of the access token."""

    model_config = ConfigDict(extra="forbid")

    refresh_token: SecretStr | None = None


class ForgottenPassword(BaseModel):
    """Whose password."""

    model_config = ConfigDict(extra="forbid")

    email: EmailStr


class NewPassword(BaseModel):
    """A reset token and the password to set."""

    model_config = ConfigDict(extra="forbid")

    token: SecretStr
    password: SecretStr = Field(description="12 to 200 characters.")


class Noted(BaseModel):
    """What will happen, whoever asked."""

    detail: str


@router.post(
    "/register",
    status_code=201,
    summary="Register an account",
    responses=declared(400, 403, 409, 413, 422, 500),
)
async def register(body: Registration, context: Parts, origin: From) -> UserView:
    """Open where the setting `registration` says so, else 403; the account has the role `viewer`."""
    if not context.settings.registration:
        raise RegistrationClosed("accounts are made by an administrator: ask for one")
    password = body.password.get_secret_value()
    told = origin.tells("user.registered", role=FIRST_ROLE)
    return UserView.of(await context.accounts.users.create(body.email, password, FIRST_ROLE, told))


@router.post("/login", summary="Log in", responses=declared(400, 401, 403, 413, 422, 500))
async def login(
    context: Parts,
    origin: From,
    *,
    username: Annotated[str, Form(max_length=320, description="The account's email.")],
    password: Annotated[str, Form(max_length=1000, json_schema_extra={"format": "password"})],
    scope: Annotated[str, Form(max_length=200, description="Less than the role has; by blanks.")] = "",
    otp: Annotated[
        str | None, Form(max_length=20, description="A one-time code, where wanted (`otp-required`).")
    ] = None,
    grant_type: Annotated[Literal["password"], Form(description="OAuth2's name for this.")] = "password",
) -> TokenPair:
    """OAuth2's password form, and `otp` beside; 401 does not tell what was wrong."""
    attempt = Attempt(username, password, otp, tuple(scope.split()))
    return TokenPair.of(await signing_in.log_in(context.accounts, attempt, origin))


@router.post("/refresh", summary="Get the next pair of tokens", responses=declared(400, 401, 413, 422, 500))
async def refresh(body: RefreshRequest, context: Parts, origin: From, key: RetryKey = None) -> TokenPair:
    """Use a refresh token up. One that is brought twice ends its login, access tokens included.

    A client whose answer may be lost on the way sends a random `Idempotency-Key` of its own: the same token with the
    same key gives the same next token, until that is used.
    """
    token = body.refresh_token.get_secret_value()
    return TokenPair.of(await signing_in.refresh(context.accounts, token, origin, key))


@router.post("/logout", status_code=204, summary="Log out", responses=declared(400, 401, 413, 422, 500))
async def logout(context: Parts, origin: From, asking: Asking, body: LogoutRequest | None = None) -> None:
    """End the login: its refresh token and every access token of it. One that has ended is no error."""
    token = body.refresh_token.get_secret_value() if body and body.refresh_token else None
    of_token = asking.principal.login if asking.principal else None
    if token is None and of_token is None:
        raise Unauthenticated("nothing says which login: send its refresh_token, or its access token")
    await signing_in.log_out(context.accounts, token, of_token, origin)


@router.post(
    "/forgot-password",
    status_code=202,
    summary="Say that a password was forgotten",
    responses=declared(400, 413, 422, 500),
)
async def forgot_password(
    body: ForgottenPassword, context: Parts, origin: From, later: BackgroundTasks
) -> Noted:
    """The same answer whether the address has an account or not."""
    later.add_task(resetting.forgotten, context.accounts, body.email, origin)
    if context.settings.reset_outbox is None:
        return Noted(detail="no mail is sent from here: ask an administrator for a reset token")
    return Noted(detail="if the address has an account, a reset token is on its way there")


@router.post(
    "/reset-password",
    status_code=204,
    summary="Set a new password by a reset token",
    responses=declared(400, 413, 422, 500),
)
async def reset_password(body: NewPassword, context: Parts, origin: From) -> None:
    """Use the token up; all logins of the account end, its API keys stay."""
    token, password = body.token.get_secret_value(), body.password.get_secret_value()
    await resetting.reset(context.accounts, token, password, origin)
