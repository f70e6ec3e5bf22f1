"""How many examples a property is tried on: a quarter by default, all with `TEST_EXAMPLES=all` (`make test-all`)."""

from __future__ import annotations

import os

_ALL = os.environ.get("TEST_EXAMPLES") == "all"


def examples(many: int) -> int:
    """Return how many of `many` examples to try."""
    return many if _ALL else max(4, many // 4)
