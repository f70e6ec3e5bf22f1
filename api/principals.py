"""Who is calling and what they may do; routes only know `Principal`.

`LocalKey`, here, is whoever can read the home's key; accounts come with a token or an API key (`api.accounts`).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol, get_args
from uuid import UUID

import structlog

from gpt_trader import report_links
from gpt_trader.errors import Denied
from gpt_trader.runs import LOCAL

Scope = Literal["read", "research", "trade", "live", "admin"]
ALL_SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))

_log = structlog.get_logger("api")
_KEY: Final = re.compile(r"gtk_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class Principal:
    """The owner of whatever the request starts: an id and what it may do.

    `login` is the login that an access token comes from, `key` the digest of an API key (None: another kind of
    credential), `expires_at` when the credential ends (seconds, epoch; None: it does not end by itself).
    """

    id: str
    scopes: frozenset[Scope]
    login: UUID | None = None
    expires_at: float | None = None
    key: str | None = field(default=None, repr=False)

    @property
    def user_id(self) -> UUID | None:
        """The account that this is, None for the local key and others that are none."""
        kind, _, rest = self.id.partition(":")
        return UUID(rest) if kind == "user" else None

    @property
    def owns_everything(self) -> bool:
        """Whether other owners' runs are visible (scope `admin`)."""
        return "admin" in self.scopes

    def may_see(self, owner: str) -> bool:
        """Return whether a run of `owner` exists as far as this principal is concerned."""
        return self.owns_everything or owner == self.id

    def must(self, scope: Scope) -> None:
        """Raise Denied unless the principal has `scope`."""
        if scope not in self.scopes:
            held = ", ".join(sorted(self.scopes)) or "none"
            raise Denied(f"this needs the scope {scope!r}; {self.id!r} has: {held}")


#: Whoever has a report's link; sees the report whoever ran it, as the link was made by the engine itself.
_TICKET_HOLDER: Final = Principal("ticket", frozenset({"read", "admin"}))


class Authenticator(Protocol):
    """One way to tell who holds a credential."""

    async def authenticate(self, credential: str) -> Principal | None:
        """Return the holder, or None where this way does not know the credential."""
        ...


class LocalKey:
    """The key in the engine's home: its reader is the machine's own user and may do everything."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._digest = _digest(key)
        self._principal = Principal(LOCAL, ALL_SCOPES)

    async def authenticate(self, credential: str) -> Principal | None:
        """Return the local principal if the credential is the key (compared in constant time)."""
        return self._principal if hmac.compare_digest(_digest(credential), self._digest) else None

    def opens_report(self, run_id: str, ticket: str) -> Principal | None:
        """Return who may read this run's report if `ticket` was made for it."""
        return _TICKET_HOLDER if report_links.opens(self._key, run_id, ticket) else None


async def identify(authenticators: Iterable[Authenticator], credential: str) -> Principal | None:
    """Return the first principal that any of the ways finds for the credential."""
    for way in authenticators:
        found = await way.authenticate(credential)
        if found is not None:
            return found
    return None


def ensure_key(path: Path) -> str:
    """Return the local key, made on first use with mode 0600.

    A key that others could read may have been read: it is replaced by a new one, and a warning says so.

    Raises:
        Denied: the file belongs to another user or is not a regular file.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        kept = _read_private(path)
    except FileNotFoundError:
        return _create(path)
    if kept is not None:
        return kept
    path.unlink()
    _log.warning("the local key was readable by others or malformed: it has been replaced", path=str(path))
    return _create(path)


def _read_private(path: Path) -> str | None:
    """Return the key, or None if it is malformed or its mode is too open."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Denied(f"the local key {path} cannot be read ({error.strerror}): move it away") from None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
            raise Denied(f"the local key {path} is not a regular file of yours: use another GPT_TRADER_HOME")
        key = os.read(descriptor, 200).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)
    return key if not facts.st_mode & 0o077 and _KEY.fullmatch(key) else None


def _create(path: Path) -> str:
    """Write a new key under a private name and link it in place: no reader ever sees half a key."""
    key = f"gtk_{secrets.token_urlsafe(32)}"
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:  # another API of this home was faster: its key stands
            return _existing(path)
    finally:
        draft.unlink()
    return key


def _existing(path: Path) -> str:
    kept = _read_private(path)
    if kept is None:
        raise Denied(f"the local key {path} is malformed: remove it and start again")
    return kept


def _digest(credential: str) -> bytes:
    return hashlib.sha256(credential.encode("utf-8", "surrogateescape")).digest()
