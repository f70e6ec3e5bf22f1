"""One-time codes by the clock (TOTP, RFC 6238: SHA-1, 6 digits, 30 seconds, as every authenticator app does them)."""

from __future__ import annotations

import hmac
import time
from typing import Final

import pyotp

STEP_SECONDS: Final = 30
_ISSUER: Final = "gpt-trader"

#: Steps before and after the present one whose code is taken: clocks differ, and typing takes a while.
_DRIFT: Final = 1


def fresh_otp_secret() -> str:
    """Return a new secret, 160 random bits in base 32."""
    return pyotp.random_base32(32)


def enrollment_uri(secret: str, email: str) -> str:
    """Return the `otpauth://` address that an app reads from a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=_ISSUER)


def step_of(secret: str, code: str, now: float | None = None) -> int | None:
    """Return the time step whose code this is, None where it is of none near `now`.

    Whether the step was taken before is the database's to say (`AccountStore.take_step`): pyotp accepts a code twice.
    """
    present = int((time.time() if now is None else now) // STEP_SECONDS)
    totp = pyotp.TOTP(secret)
    given = code.replace(" ", "").encode()
    steps = range(present - _DRIFT, present + _DRIFT + 1)
    matching = [step for step in steps if hmac.compare_digest(totp.generate_otp(step).encode(), given)]
    return matching[-1] if matching else None
