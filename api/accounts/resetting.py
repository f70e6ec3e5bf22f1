"""Passwords that were forgotten: tokens that set a new one, and how they reach their owner.

There is no mail here. An administrator makes a token and hands it out; or `reset_outbox` names a folder where a mailer
of the user's own finds one file a token (mode 0600), sends it, and removes it.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import structlog

from api.accounts.accounts import Accounts
from api.accounts.origin import Origin
from api.accounts.signing_in import end_logins
from api.accounts.users import RESET_SECONDS
from api.errors import TooManyRequests
from gpt_trader.errors import Denied
from gpt_trader.private_files import write_private
from storage.accounts import User

_log = structlog.get_logger("api")


async def forgotten(accounts: Accounts, email: str, origin: Origin) -> None:
    """Note that a password was forgotten and leave a token in the outbox, if there is one; nobody waits for it.

    Whoever asks cannot tell whether the address has an account.
    """
    user = await asyncio.to_thread(accounts.store.by_email, email)
    told = origin.tells("password.forgotten", user.principal if user else None)
    await asyncio.to_thread(accounts.audit.record, told)
    outbox = accounts.settings.reset_outbox
    if outbox is None or user is None or not user.is_active:
        return
    try:
        token = await accounts.users.reset_token(user)
        await asyncio.to_thread(_deliver, outbox, user.email, token)
    except (TooManyRequests, Denied) as error:
        _log.warning("a reset token could not be left in the outbox", reason=error.detail)


async def handed_out(accounts: Accounts, user: User, origin: Origin) -> str:
    """Return a token for an administrator to hand out."""
    token = await accounts.users.reset_token(user)
    await asyncio.to_thread(accounts.audit.record, origin.tells("reset.issued", user.principal))
    return token


async def reset(accounts: Accounts, token: str, password: str, origin: Origin) -> None:
    """Set a new password and end all logins; keys stay, and so does the second factor."""
    user = await accounts.users.reset(token, password, origin.tells("password.reset"))
    await end_logins(accounts, user, "the password was reset")


def _deliver(outbox: Path, email: str, token: str) -> None:
    expires = datetime.now(UTC) + timedelta(seconds=RESET_SECONDS)
    letter = {"schema_version": 1, "email": email, "token": token, "expires_at": expires.isoformat()}
    write_private(outbox / f"{uuid4()}.json", json.dumps(letter).encode() + b"\n")
