"""The engine's secrets of accounts: signing keys of access tokens, and what seals secrets in the database.

They are in the home (`account-keys.json`, mode 0600), not in the database: who can read a backup of the database can
neither make a token nor read the secret of anybody's one-time codes. Several APIs of one database share the file.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gpt_trader.errors import Denied
from gpt_trader.private_files import locked, read_private, write_private

_SCHEMA_VERSION: Final = 1
_BYTES: Final = 32

_log = structlog.get_logger("api")


@dataclass(frozen=True, repr=False)
class SigningKey:
    """One key, by its id; a retired one signs nothing more, and is accepted until its last tokens have expired."""

    kid: str
    secret: bytes
    accepted_until: float | None = None


class SecretsFile:
    """Reads the file, makes it where it is missing, and rotates its signing keys. Thread-safe.

    What another process rotates or discards counts here at once. A file that cannot be read then leaves the
    keys as they were: somebody who moves it away for a moment logs nobody out.

    Raises:
        Denied: The file is readable by others, another user's, or malformed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with locked(path):
            if read_private(path) is None:
                _write(path, [_fresh_key()], secrets.token_bytes(_BYTES))
        self._mark = _mark(path)
        self._signing, self._sealing = _read(path)

    def current(self) -> SigningKey:
        """Return the key that signs."""
        self._look()
        return self._signing[-1]

    def by_kid(self, kid: str) -> SigningKey | None:
        """Return the key of an id while tokens of it are accepted; another process may have rotated the keys."""
        self._look()
        return self._find(kid)

    def rotate(self, overlap_seconds: float) -> SigningKey:
        """Sign with a new key from now on; the present ones are accepted for `overlap_seconds` (0: not at all)."""
        with self._lock, locked(self._path):
            signing, sealing = _read(self._path)
            until = time.time() + overlap_seconds
            kept = [
                SigningKey(key.kid, key.secret, min(until, key.accepted_until or until)) for key in signing
            ]
            fresh = _fresh_key()
            signs = [*(key for key in kept if _accepted(key)), fresh]
            _write(self._path, signs, sealing)
            self._signing = signs
        return fresh

    def seal(self, text: str, bound_to: str) -> str:
        """Return `text` encrypted (AES-256-GCM); it opens only for the same `bound_to`."""
        nonce = secrets.token_bytes(12)
        sealed = AESGCM(self._sealing).encrypt(nonce, text.encode(), bound_to.encode())
        return base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, sealed: str, bound_to: str) -> str:
        """Return what was sealed; raise Denied where it was sealed by another engine's file."""
        whole = base64.urlsafe_b64decode(sealed)
        try:
            return AESGCM(self._sealing).decrypt(whole[:12], whole[12:], bound_to.encode()).decode()
        except InvalidTag:
            raise Denied(
                f"a secret in the database was sealed with another key than {self._path} has: bring that file back"
            ) from None

    def derived(self, purpose: str) -> str:
        """Return a secret for one purpose, made of the sealing key."""
        return hmac.new(self._sealing, purpose.encode(), hashlib.sha256).hexdigest()

    def _find(self, kid: str) -> SigningKey | None:
        return next((key for key in self._signing if key.kid == kid and _accepted(key)), None)

    def _look(self) -> None:
        """Read the file again where another process has replaced it; a look costs a microsecond or two."""
        mark = _mark(self._path)
        if mark in (None, self._mark):
            return
        with self._lock:
            self._mark = mark
            try:
                self._signing, self._sealing = _read(self._path)
            except Denied as error:
                _log.warning(
                    "the keys of accounts cannot be read again: those of before stand", reason=error.detail
                )


def _mark(path: Path) -> tuple[int, int] | None:
    """Return what changes when the file is replaced; None while it is missing: then what is known goes on."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns


def _accepted(key: SigningKey) -> bool:
    return key.accepted_until is None or time.time() < key.accepted_until


def _fresh_key() -> SigningKey:
    return SigningKey(secrets.token_hex(8), secrets.token_bytes(_BYTES))


def _read(path: Path) -> tuple[list[SigningKey], bytes]:
    written = read_private(path)
    try:
        content = json.loads(written or b"")
        if content["schema_version"] != _SCHEMA_VERSION:
            raise Denied(f"{path} is of a newer gpt-trader: install that again")
        signing = [_key(each) for each in content["signing"]]
        sealing = base64.b64decode(content["sealing"])
    except (ValueError, KeyError, TypeError):  # its own message would show a key
        raise Denied(f"{path} is malformed: bring it back from a backup") from None
    if not signing or len(sealing) != _BYTES:
        raise Denied(f"{path} is malformed: bring it back from a backup")
    return signing, sealing


def _key(entry: Mapping[str, Any]) -> SigningKey:
    return SigningKey(str(entry["kid"]), base64.b64decode(entry["secret"]), entry["accepted_until"])


def _write(path: Path, signing: list[SigningKey], sealing: bytes) -> None:
    content = {
        "schema_version": _SCHEMA_VERSION,
        "signing": [
            {
                "kid": key.kid,
                "secret": base64.b64encode(key.secret).decode(),
                "accepted_until": key.accepted_until,
            }
            for key in signing
        ],
        "sealing": base64.b64encode(sealing).decode(),
    }
    write_private(path, json.dumps(content, indent=1).encode() + b"\n")
