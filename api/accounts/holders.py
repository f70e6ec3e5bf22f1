"""Who holds an access token or an API key: two more ways in beside the local key.

What a credential was given counts only as far as its account's role still goes, and only while the account is active:
a changed role or a switched-off account counts within seconds for tokens that were made before (`remembered`).
"""

from __future__ import annotations

import time
from uuid import UUID

from api.accounts.remembered import Remembered
from api.accounts.roles import held
from api.accounts.tokens import KEY_PREFIX, AccessTokens, digest_of
from api.principals import Principal
from storage.accounts import principal_of
from storage.api_keys import KeyStanding
from storage.logins import LoginStanding


class TokenHolders:
    """The way in by an access token."""

    def __init__(self, tokens: AccessTokens, standings: Remembered[UUID, LoginStanding]) -> None:
        self._tokens = tokens
        self._standings = standings

    async def authenticate(self, credential: str) -> Principal | None:
        """Return the account whose login the token comes from, None where either has ended."""
        claims = self._tokens.read(credential)
        if claims is None:
            return None
        standing = await self._standings.get(claims.login_id)
        if standing is None or principal_of(standing.user_id) != claims.subject:
            return None
        scopes = held(claims.scopes.intersection(standing.scopes), standing.role)
        return Principal(claims.subject, scopes, claims.login_id, claims.expires_at)


class KeyHolders:
    """The way in by an API key."""

    def __init__(self, standings: Remembered[str, KeyStanding]) -> None:
        self._standings = standings

    async def authenticate(self, credential: str) -> Principal | None:
        """Return the key's owner with the key's scopes."""
        if not credential.startswith(KEY_PREFIX):
            return None
        digest = digest_of(credential)
        standing = await self._standings.get(digest)
        if standing is None:
            return None
        key = standing.key
        end = key.expires_at.timestamp() if key.expires_at else None
        if end is not None and time.time() >= end:
            return None
        return Principal(
            principal_of(key.user_id), held(key.scopes, standing.role), expires_at=end, key=digest
        )
