"""Named places where a test may kill the process, to show what a crash right there leaves behind.

`GPT_TRADER_CRASH_AT=lake.before_manifest` makes the process end at that place as SIGKILL would: no `finally`,
no flush, no cleanup. Without the variable a crash point costs one look into the environment.
"""

from __future__ import annotations

import os

#: The status a shell reports for SIGKILL (128 + 9).
KILLED = 137


def crash_point(name: str) -> None:
    """End the process here and now if the environment asks for a crash at `name`."""
    if os.environ.get("GPT_TRADER_CRASH_AT") == name:
        os._exit(KILLED)
