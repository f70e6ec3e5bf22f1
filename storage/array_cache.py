"""Arrays kept by the hash of what they were computed from: memory-mapped, verified, bounded in size.

    KEY/NAME.npy     the arrays, read-only
    KEY/seal.json    the sha256 of each; its time says when the entry was last used
    bytes            how much all entries have
    tmp/, lock       a writer's unfinished entry; one writer at a time

Everything here can be computed again: what is damaged counts as missing. Readers take no lock, and what they have
mapped stays theirs when the entry is removed. Nothing is forced to disk: the seal tells after a crash what is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from storage.durable import write_lock

LOCK_WAIT_SECONDS: Final = 10.0

_SEAL: Final = "seal.json"

#: File with the bytes of all entries. After a crash it may be a little off; the next shrinking sets it right.
_TOTAL: Final = "bytes"

#: Files whose sha256 this process has checked: hash, inode, size and time of each.
_verified: dict[Path, tuple[str, int, int, int]] = {}


@dataclass(frozen=True)
class CacheSize:
    """How much is kept: entries, and bytes in all."""

    entries: int
    bytes: int


class ArrayCache:
    """The cache in one folder, for any number of processes and threads. Making one touches no file."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes

    def get(self, key: str, names: Sequence[str]) -> list[NDArray[Any]] | None:
        """Return the arrays of an entry, memory-mapped and read-only; None where it is missing or damaged."""
        entry = self.folder / key
        try:
            seal = json.loads((entry / _SEAL).read_bytes())
            arrays = [_opened(entry / f"{name}.npy", seal[name]) for name in names]
            os.utime(entry / _SEAL)
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return None
        return arrays

    def put(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep the arrays, in the place of a damaged entry if there is one, and remove what was used longest ago.

        Arrays beyond the limit are not kept. Raises Conflict (another writer does not end) and OSError.
        """
        if sum(array.nbytes for array in arrays.values()) > self.limit_bytes:
            return
        with write_lock(self.folder / "lock", wait_seconds=LOCK_WAIT_SECONDS):
            unfinished = self._emptied() / key
            unfinished.mkdir()
            seal = {name: _written(unfinished / f"{name}.npy", array) for name, array in arrays.items()}
            (unfinished / _SEAL).write_text(json.dumps(seal), encoding="ascii")
            size = _size(unfinished) - _size(self.folder / key)
            self._remove(self.folder / key)
            unfinished.rename(self.folder / key)
            self._make_room(size)

    def size(self) -> CacheSize:
        """Return how much is kept."""
        sizes = [_size(entry) for entry in self._entries()]
        return CacheSize(len(sizes), sum(sizes))

    def clear(self) -> CacheSize:
        """Remove everything and return how much it was; errors as `put`."""
        if not self.folder.is_dir():
            return CacheSize(0, 0)
        with write_lock(self.folder / "lock", wait_seconds=LOCK_WAIT_SECONDS):
            self._emptied()
            removed = self.size()
            for entry in self._entries():
                self._remove(entry)
            self._emptied()
            (self.folder / _TOTAL).unlink(missing_ok=True)
        return removed

    def _entries(self) -> list[Path]:
        """Return the entries, that which was used longest ago first."""
        found = []
        if self.folder.is_dir():
            for entry in self.folder.iterdir():
                try:
                    found.append(((entry / _SEAL).stat().st_mtime_ns, entry))
                except OSError:  # no entry, or one that is being removed
                    continue
        return [entry for _, entry in sorted(found)]

    def _make_room(self, added: int) -> None:
        """Remove entries until the limit is kept; they are looked at only where the sum that is kept says so."""
        try:
            kept = int((self.folder / _TOTAL).read_text("ascii")) + added
        except (OSError, ValueError):
            kept = self.limit_bytes + 1
        if kept > self.limit_bytes:
            kept = self._shrunk()
        (self.folder / _TOTAL).write_text(str(kept), encoding="ascii")

    def _shrunk(self) -> int:
        """Remove what was used longest ago, but for the newest entry, until the limit is kept; return what is left."""
        sizes = {entry: _size(entry) for entry in self._entries()}
        kept = sum(sizes.values())
        for entry, size in list(sizes.items())[:-1]:
            if kept <= self.limit_bytes:
                break
            self._remove(entry)
            kept -= size
        return kept

    def _remove(self, entry: Path) -> None:
        """Take an entry away as one: a reader finds all of it or nothing. The lock is ours."""
        if entry.exists():
            doomed = self.folder / "tmp" / f"{entry.name}.removed"
            entry.rename(doomed)
            shutil.rmtree(doomed)

    def _emptied(self) -> Path:
        """Return the folder for unfinished entries without what a killed writer left. The lock is ours."""
        folder = self.folder / "tmp"
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
        return folder


def _opened(path: Path, sha256: str) -> NDArray[Any]:
    """Return the array of a file; raise ValueError for one that is not what was written."""
    state = path.stat()
    seen = (sha256, state.st_ino, state.st_size, state.st_mtime_ns)
    if _verified.get(path) != seen:
        if _sha256(path) != sha256:
            raise ValueError("damaged")
        _verified[path] = seen
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _written(path: Path, array: NDArray[Any]) -> str:
    with path.open("xb") as file:
        np.save(file, array, allow_pickle=False)
        os.fchmod(file.fileno(), 0o444)
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(entry: Path) -> int:
    try:
        return sum(file.stat().st_size for file in entry.iterdir())
    except OSError:  # it is being removed
        return 0
