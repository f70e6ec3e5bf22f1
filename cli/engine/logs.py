"""The log files of an engine: private, appended to, and bounded while their writers go on."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import IO, Final

#: What a log may hold, and once more what was put aside of it.
LOG_LIMIT: Final = 10 * 1024 * 1024
_TAIL_LINES: Final = 12


def open_log(path: Path) -> IO[bytes]:
    """Return a log opened for appending, mode 0600."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    return os.fdopen(descriptor, "ab")


def rotate(path: Path) -> None:
    """Empty a log that has grown beyond `LOG_LIMIT`; the last of it, as much, is kept aside as `<name>.1`.

    Its writers keep it open for appending, so they go on at its new start. A line written in the moment between the
    copy and the emptying is lost, as with any rotation that cannot ask the writers.
    """
    if not path.exists() or path.stat().st_size <= LOG_LIMIT:
        return
    import shutil

    draft = path.with_name(f".{path.name}.1")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with path.open("r+b") as log, os.fdopen(descriptor, "wb") as aside:
        log.seek(-LOG_LIMIT, os.SEEK_END)
        shutil.copyfileobj(log, aside, 1 << 20)
        log.truncate(0)
    draft.replace(path.with_name(f"{path.name}.1"))


def last_lines(path: Path) -> tuple[str, ...]:
    """Return the last lines of a log, cut to a readable length."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16_384))
        text = file.read().decode(errors="replace")
    return tuple(deque((line[:500] for line in text.splitlines() if line.strip()), maxlen=_TAIL_LINES))
