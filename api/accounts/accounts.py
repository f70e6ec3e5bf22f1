"""The parts that accounts are made of, as one API has them; the operations are in the modules beside."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from uuid import UUID

from fastapi_users.password import PasswordHelperProtocol
from sqlalchemy import Engine

from api.accounts.holders import KeyHolders, TokenHolders
from api.accounts.passwords import PasswordThread
from api.accounts.remembered import Remembered
from api.accounts.secrets_file import SecretsFile
from api.accounts.shared_throttle import SharedThrottle
from api.accounts.tickets import Tickets
from api.accounts.tokens import AccessTokens
from api.accounts.users import Users
from api.principals import Authenticator
from gpt_trader.settings import Home, Settings
from storage.accounts import AccountStore
from storage.api_keys import ApiKeyStore, KeyStanding
from storage.audit import AuditLog
from storage.logins import LoginStanding, LoginStore
from storage.tickets import TicketStore


@dataclass(frozen=True)
class Accounts:
    """Everything that knows of accounts."""

    settings: Settings
    store: AccountStore
    users: Users
    logins: LoginStore
    api_keys: ApiKeyStore
    tickets: Tickets
    audit: AuditLog
    keys: SecretsFile
    tokens: AccessTokens
    throttle: SharedThrottle
    thread: PasswordThread
    login_standings: Remembered[UUID, LoginStanding]
    key_standings: Remembered[str, KeyStanding]

    @property
    def authenticators(self) -> tuple[Authenticator, ...]:
        """The ways in of accounts: access tokens and API keys."""
        return TokenHolders(self.tokens, self.login_standings), KeyHolders(self.key_standings)

    def forget_standings(self) -> None:
        """Ask the database again who every caller is: an account has changed."""
        self.login_standings.forget()
        self.key_standings.forget()

    async def close(self) -> None:
        """End the passwords' thread, and the throttle's connections."""
        await self.throttle.close()
        await asyncio.to_thread(self.thread.close)


def open_accounts(
    settings: Settings, home: Home, engine: Engine, hasher: PasswordHelperProtocol | None = None
) -> Accounts:
    """Return the accounts in a database; the home's keys are made where they are missing.

    Raises:
        Denied: The home's `account-keys.json` is not private, or is malformed.
    """
    keys = SecretsFile(home.account_keys)
    store, logins, api_keys = AccountStore(engine), LoginStore(engine), ApiKeyStore(engine)
    thread = PasswordThread()
    storage = settings.rate_limit_storage
    audit = AuditLog(engine)
    audit.forget(settings.keep_audit_days)
    return Accounts(
        settings=settings,
        store=store,
        users=Users(store, thread, keys.derived("reset tokens"), hasher),
        logins=logins,
        api_keys=api_keys,
        tickets=Tickets(TicketStore(engine)),
        audit=audit,
        keys=keys,
        tokens=AccessTokens(keys, settings.access_token_minutes * 60),
        throttle=SharedThrottle(storage.get_secret_value() if storage else None),
        thread=thread,
        login_standings=Remembered(lambda login_id: asyncio.to_thread(logins.standing, login_id)),
        key_standings=Remembered(lambda digest: asyncio.to_thread(api_keys.standing, digest)),
    )
