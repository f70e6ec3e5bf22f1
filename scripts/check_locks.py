"""Refuses locks that name a host, lack hashes, or differ between user and development."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pins(lock: str) -> dict[str, str]:
    """Return package → version of a lock; every pin must carry a hash."""
    text = (ROOT / lock).read_text()
    found = dict(re.findall(r"^([a-z0-9][a-z0-9._-]*(?:\[[a-z,]+\])?)==(\S+)", text, flags=re.M | re.I))
    if text.count("--hash=sha256:") < len(found):
        sys.exit(f"{lock}: some pins have no hash")
    if "://" in text or "--index" in text or "--find-links" in text:
        sys.exit(f"{lock}: records an address")
    return found


def main() -> None:
    """Check both locks against each other."""
    user, development = pins("requirements.lock"), pins("requirements-dev.lock")
    if not user:
        sys.exit("requirements.lock is empty")
    wrong = [n for n, version in user.items() if development.get(n) != version]
    if wrong:
        sys.exit(f"requirements-dev.lock differs from requirements.lock in {wrong}: run `make lock`")
    if (ROOT / "uv.lock").exists():
        sys.exit("uv.lock must not be here: it records addresses")


if __name__ == "__main__":
    main()
