"""Files that are wholly there or not there at all, and the lock that lets one writer in at a time.

Content goes to a temporary file, is forced to disk, and is then renamed into place; the folder is forced to disk as
well, because a rename is durable only when its folder is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt_trader.errors import Conflict, GptTraderError


def write_file(path: Path, content: bytes, *, temporary: Path, crash_point: Callable[[], None]) -> None:
    """Put `content` at `path` durably; a crash leaves what was there before, and at most a file in `temporary`.

    `temporary` is a folder of the same file system; `crash_point` is called between writing and renaming. The file
    may be read only: it is replaced as a whole, never changed.
    Raises OSError (disk full, no permission); nothing is at `path` then that was not there before.
    """
    make_folder(temporary)
    make_folder(path.parent)
    unfinished = temporary / f"{path.name}.{os.getpid()}.tmp"
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o444)
            os.fsync(file.fileno())
        crash_point()
        unfinished.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make the folder and its parents durably: each new name is forced to disk in its own parent."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Force the names in a folder to disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def write_lock(path: Path, *, wait_seconds: float) -> Iterator[None]:
    """Hold the lock file exclusively, among processes and threads; the kernel lets it go when its holder dies.

    Raises Conflict that names the holder after `wait_seconds`.
    """
    make_folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _wait_for(handle, path, wait_seconds)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def _wait_for(handle: int, path: Path, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    pause = 0.001
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(handle, 32, 0).decode(errors="replace") or "unknown"
                raise Conflict(
                    f"{path} is held by another writer (process {holder}) for more than {wait_seconds:g} s: "
                    "wait until its ingest has ended, then try again"
                ) from None
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        else:
            return


@contextlib.contextmanager
def explained(what: str, path: Path) -> Iterator[None]:
    """Turn an OSError of a write into an error that says what could not be written, why, and what to do."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "free some space and try again",
            errno.EDQUOT: "your quota is used up: free some space and try again",
            errno.EFBIG: "the process may not write files of this size (ulimit -f)",
            errno.EACCES: "give this user the right to write there, or choose another GPT_TRADER_HOME",
            errno.EPERM: "give this user the right to write there, or choose another GPT_TRADER_HOME",
            errno.EROFS: "the file system is read-only: choose another GPT_TRADER_HOME",
            errno.EIO: "the disk reports a fault: check it before you go on",
        }.get(error.errno or 0, "what was committed before is untouched")
        reason = error.strerror or str(error)
        raise GptTraderError(f"cannot write {what} below {path}: {reason}; {advice}") from error
