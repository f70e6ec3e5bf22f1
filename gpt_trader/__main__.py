"""`python -m gpt_trader` is the same program as the console script."""

from __future__ import annotations

import sys
from pathlib import Path


def _forget_working_directory() -> None:
    """Take the working directory off the front of `sys.path`, where `python -m` put it.

    A user's own `tasks.py` or `flows.py` there would be imported instead of ours. It stays where it is our own
    checkout, from which we may have been found in no other way.
    """
    if sys.flags.safe_path or not sys.path:
        return
    ours = Path(__file__).resolve().parents[1]
    if Path(sys.path[0] or ".").resolve() != ours:
        del sys.path[0]


if __name__ == "__main__":
    _forget_working_directory()
    from cli.main import app

    sys.exit(app())
