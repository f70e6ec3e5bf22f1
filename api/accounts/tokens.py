"""Access tokens: JWTs (RFC 7519) that the engine's own keys signed. And random secrets that only a hash is kept of.

HS256: whoever verifies them is who makes them, and it costs a third of a signature with a key pair.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import jwt

from api.accounts.secrets_file import SecretsFile
from storage.accounts import principal_of

ALGORITHM: Final = "HS256"
ISSUER: Final = "gpt-trader"
AUDIENCE: Final = "gpt-trader-api"

REFRESH_PREFIX: Final = "gtr_"
KEY_PREFIX: Final = "gtp_"
TICKET_PREFIX: Final = "gtt_"

_REQUIRED: Final = ("iss", "aud", "exp", "iat", "jti", "sub", "scopes", "login")
#: No token of ours is longer; what is need not be taken apart.
_LONGEST: Final = 2000
#: Verified tokens that are remembered by their digests.
_PLACES: Final = 10_000


@dataclass(frozen=True)
class Claims:
    """What a valid access token says: the login it comes from, the scopes it was given, its end (seconds, epoch)."""

    login_id: UUID
    subject: str
    scopes: frozenset[str]
    expires_at: float


class AccessTokens:
    """Makes and reads access tokens."""

    def __init__(self, keys: SecretsFile, seconds: float) -> None:
        self._keys = keys
        self.seconds = seconds
        self._verified: OrderedDict[bytes, tuple[str, Claims]] = OrderedDict()

    def issue(self, user_id: UUID, login_id: UUID, scopes: Sequence[str]) -> str:
        """Return a token of a login, good for `seconds`."""
        now = time.time()
        key = self._keys.current()
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": principal_of(user_id),
            "iat": int(now),
            "exp": int(now + self.seconds),
            "jti": uuid4().hex,
            "login": str(login_id),
            "scopes": list(scopes),
        }
        return jwt.encode(claims, key.secret, ALGORITHM, headers={"kid": key.kid})

    def read(self, token: str) -> Claims | None:
        """Return what a token says, None where it is none, is not ours, or has expired.

        A signature is verified once: after that a token is known by its digest while its key is accepted.
        """
        if len(token) > _LONGEST or token.count(".") != 2:
            return None
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        known = self._verified.get(digest)
        if known is None:
            known = self._verify(token)
            if known is None:
                return None
            self._verified[digest] = known
            while len(self._verified) > _PLACES:
                self._verified.popitem(last=False)
        kid, claims = known
        if time.time() >= claims.expires_at or self._keys.by_kid(kid) is None:
            del self._verified[digest]
            return None
        return claims

    def _verify(self, token: str) -> tuple[str, Claims] | None:
        """Return the id of the key that signed a token, and what it says."""
        try:
            kid = str(jwt.get_unverified_header(token).get("kid"))
            key = self._keys.by_kid(kid)
            if key is None:
                return None
            # The algorithm is ours to choose, never the token's: `none` is not among them.
            claims = jwt.decode(
                token,
                key.secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": list(_REQUIRED)},
            )
            return kid, _claims(claims)
        except (jwt.PyJWTError, ValueError, TypeError):  # the last two: claims of another form
            return None


def _claims(claims: dict[str, Any]) -> Claims:
    return Claims(
        UUID(str(claims["login"])), str(claims["sub"]), frozenset(claims["scopes"]), float(claims["exp"])
    )


def fresh_secret(prefix: str) -> str:
    """Return a new secret: 256 random bits behind a prefix that says what it is (and that scanners can find)."""
    return prefix + secrets.token_urlsafe(32)


def following_secret(prefix: str, key: str, before: str, retry_key: str) -> str:
    """Return the secret that follows `before`: the same each time, to who has the engine's `key` and the client's."""
    made = hmac.new(key.encode(), f"{before}\0{retry_key}".encode("utf-8", "surrogateescape"), hashlib.sha256)
    return prefix + base64.urlsafe_b64encode(made.digest()).decode().rstrip("=")


def digest_of(secret: str) -> str:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
