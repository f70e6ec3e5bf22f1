"""The logins to servers that this user has, in a file of the home (mode 0600), by address of the server.

A refresh token works once: whoever refreshes holds the file's lock, so that two commands at the same moment do not take
each other's for a thief's.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cli.client.wire import Target, Wire
from gpt_trader.errors import Denied
from gpt_trader.private_files import locked, read_private, write_private

_SCHEMA_VERSION: Final = 1
_REFRESH: Final = "/api/v1/auth/refresh"

#: Seconds before its end at which an access token is replaced: a request must not begin with one that ends under way.
_EARLY: Final = 30.0


@dataclass(frozen=True, repr=False)
class Login:
    """A login to one server; `expires_at` is the access token's end (seconds, epoch)."""

    email: str
    access_token: str
    expires_at: float
    refresh_token: str
    retry_key: str = ""  # sent with the refresh token: a lost answer can be asked for again

    @classmethod
    def of(cls, email: str, answer: Mapping[str, Any]) -> Login:
        """Read it from the API's answer."""
        expires_at = time.time() + float(answer["expires_in"])
        access, refresh = str(answer["access_token"]), str(answer["refresh_token"])
        return cls(email, access, expires_at, refresh, secrets.token_urlsafe(24))


def login_to(url: str, path: Path) -> Login | None:
    """Return the login that is kept for a server."""
    return _read(path).get(url)


def keep_login(url: str, login: Login, path: Path) -> None:
    """Keep a login, in the place of the one before."""
    with locked(path):
        _write(path, {**_read(path), url: login})


def forget_login(url: str, path: Path) -> Login | None:
    """Take a login out of the file and return it."""
    with locked(path):
        kept = _read(path)
        gone = kept.pop(url, None)
        if gone is not None:
            _write(path, kept)
    return gone


def access_token(url: str, path: Path, refused: str | None = None) -> str | None:
    """Return an access token that is still good, refreshed where need be; None where there is no login.

    `refused` is one that the server did not take.

    Raises:
        Denied: The login has ended; it is forgotten then.
    """
    kept = login_to(url, path)
    if kept is None:
        return None
    if _good(kept, refused):
        return kept.access_token
    with locked(path):
        logins = _read(path)
        kept = logins.get(url)
        if kept is None:
            return None
        if _good(kept, refused):  # another command was first
            return kept.access_token
        try:
            fresh = _refreshed(url, kept)
        except Denied:
            _write(path, {each: login for each, login in logins.items() if each != url})
            raise Denied(
                f"the login to {url} has ended: log in again with `gpt-trader login --server {url}`"
            ) from None
        _write(path, {**logins, url: fresh})
    return fresh.access_token


def _good(login: Login, refused: str | None) -> bool:
    return login.access_token != refused and time.time() < login.expires_at - _EARLY


def _refreshed(url: str, login: Login) -> Login:
    wire = Wire(Target(url))
    try:
        body, headers = {"refresh_token": login.refresh_token}, {}
        if login.retry_key:  # a login that was kept by an earlier version has none
            headers["Idempotency-Key"] = login.retry_key
        answer = wire.request("POST", _REFRESH, body=body, headers=headers).json()
    finally:
        wire.close()
    return Login.of(login.email, answer)


def _read(path: Path) -> dict[str, Login]:
    written = read_private(path)
    if written is None:
        return {}
    try:
        content = json.loads(written)
        if content["schema_version"] != _SCHEMA_VERSION:
            raise Denied(f"{path} is of a newer gpt-trader: install that again, or remove the file")
        return {url: Login(**fields) for url, fields in content["logins"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):  # its own message would show a token
        raise Denied(f"{path} is malformed: remove it and log in again") from None


def _write(path: Path, logins: Mapping[str, Login]) -> None:
    content = {
        "schema_version": _SCHEMA_VERSION,
        "logins": {url: asdict(login) for url, login in logins.items()},
    }
    write_private(path, json.dumps(content, indent=1).encode() + b"\n")
