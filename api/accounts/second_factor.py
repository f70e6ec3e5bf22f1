"""The second factor: showing a secret, confirming it with a code, and taking codes, each once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from api.accounts.accounts import Accounts
from api.accounts.origin import Origin
from api.accounts.otp import enrollment_uri, fresh_otp_secret, step_of
from gpt_trader.errors import Conflict, Problem, Refused
from storage.accounts import User


@dataclass(frozen=True, repr=False)
class Enrollment:
    """A secret as its user puts it into an app; it is shown this once."""

    secret: str
    uri: str


async def take_code(accounts: Accounts, user: User, code: str) -> bool:
    """Return whether the code is right and was never taken before; it is taken with that.

    An account without a second factor has no right code.
    """
    if user.totp_secret is None:
        return False
    step = step_of(accounts.keys.open(user.totp_secret, str(user.id)), code)
    return step is not None and await asyncio.to_thread(accounts.store.take_step, user.id, step)


async def enroll(accounts: Accounts, user: User, origin: Origin) -> Enrollment:
    """Show a new secret; the account goes on as it was until `confirm`."""
    secret = fresh_otp_secret()
    sealed = accounts.keys.seal(secret, str(user.id))
    told = origin.tells("otp.enrolled", user.principal)
    await asyncio.to_thread(accounts.store.change, user.id, {"totp_pending": sealed}, told)
    return Enrollment(secret, enrollment_uri(secret, user.email))


async def confirm(accounts: Accounts, user: User, code: str, origin: Origin) -> None:
    """Want codes of the secret that was shown last from now on.

    Raises:
        Conflict: None was shown.
        Refused: The code is not one of it.
    """
    pending = user.totp_pending
    if pending is None:
        raise Conflict("no one-time code is being set up: POST /api/v1/auth/otp/enroll comes first")
    step = step_of(accounts.keys.open(pending, str(user.id)), code)
    if step is None:
        raise Refused.of(Problem("code", None, "is not the app's present code", allowed="6 digits"))
    told = origin.tells("otp.enabled", user.principal)
    if not await asyncio.to_thread(accounts.store.enable_otp, user.id, pending, step, told):
        raise Conflict("another secret has been shown meanwhile: confirm with a code of that one")


async def remove(accounts: Accounts, user: User, origin: Origin) -> None:
    """Want no codes of the account any more."""
    values = {"totp_secret": None, "totp_pending": None}
    told = origin.tells("otp.disabled", user.principal)
    await asyncio.to_thread(accounts.store.change, user.id, values, told)
