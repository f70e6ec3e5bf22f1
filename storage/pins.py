"""Snapshots that somebody is reading right now: collection leaves them alone.

A pin is a file named by its snapshot and locked by its holder; the kernel lets the lock go when the holder dies, so a
pin never outlives whoever it protects. Only long readers need one (a run, a query): a short read that meets a collected
file looks again (`storage.lake`).

Order makes it safe: a reader writes its pin, then looks whether the snapshot is doomed; collection writes down what is
doomed, then looks for pins. One of the two always sees the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_numbers: Final = itertools.count()


@contextlib.contextmanager
def pinned(folder: Path, snapshot_id: str) -> Iterator[None]:
    """Hold a pin on a snapshot until the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{snapshot_id}.{os.getpid()}.{threading.get_native_id()}.{next(_numbers)}"
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_SH)
        if os.fstat(handle).st_nlink:  # collection may have cleared it away between the two calls
            break
        os.close(handle)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def pins(folder: Path) -> set[str]:
    """Return the ids of the snapshots that are pinned, and clear away what dead holders left."""
    held: set[str] = set()
    if not folder.is_dir():
        return held
    for path in folder.iterdir():
        try:
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # its holder has just finished
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            held.add(path.name.partition(".")[0])
        finally:
            os.close(handle)
    return held
