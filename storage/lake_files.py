"""The files of a lake: written once, verified on every read."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.crash_points import crash_point
from gpt_trader.errors import CorruptLake
from gpt_trader.raw_bars import Quarantine, RawBars
from storage.durable import sync_folder, write_file
from storage.manifest import Entry, FileRef
from storage.parquet import decode_actions, decode_bars, encode_actions, encode_bars, encode_quarantine

#: Bytes of files from which they are checked and unpacked side by side, and by how many threads.
_WORTH_THREADS: Final = 2**20
_MOST_THREADS: Final = 4


class LakeFiles:
    """Reads and writes the Parquet files below a lake's root; paths come from a manifest or from their content.

    Reading is safe at any time; writing belongs to the holder of the lake's lock.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._verified: dict[str, tuple[str, int, int, int]] = {}
        self._put_now: list[Path] = []

    def read(self, entry: Entry, file: FileRef) -> RawBars:
        """Return the bars of one file; raise CorruptLake if it is not what the manifest says."""
        return decode_bars(self._content(entry, file))

    def read_all(self, entry: Entry, files: Sequence[FileRef]) -> RawBars:
        """Return the bars of several files, in their order, as one; errors as `read`."""
        if len(files) == 1:
            return self.read(entry, files[0])
        if sum(file.bytes for file in files) < _WORTH_THREADS:
            return RawBars.joined(*(self.read(entry, file) for file in files))
        with ThreadPoolExecutor(_MOST_THREADS) as threads:
            # What takes longest about joining them is that the memory is new, and threads share that.
            return RawBars.joined(*threads.map(partial(self.read, entry), files), mapping=threads.map)

    def verified_path(self, entry: Entry, file: FileRef) -> Path:
        """Return a file's path once its sha256 is checked.

        A file checked before is checked again only if its inode, size or time changed.
        """
        path = self._root / file.path
        try:
            state = path.stat()
        except OSError as error:
            raise _damaged(path, entry, _reason(error)) from error
        seen = (file.sha256, state.st_ino, state.st_size, state.st_mtime_ns)
        if self._verified.get(file.path) != seen:
            self._content(entry, file)
            self._verified[file.path] = seen
        return path

    def write_bars(self, symbol: str, timeframe: str, part: str, rows: RawBars, logical_hash: str) -> FileRef:
        """Write the bars of one part to a file named by its content, and return how the manifest names it."""
        content = encode_bars(symbol, rows)
        sha256 = hashlib.sha256(content).hexdigest()
        path = f"bars/{timeframe}/{symbol}/{part}-{sha256[:24]}.parquet"
        self._put(path, content)
        first, last = bar_time(rows.time[0]), bar_time(rows.time[-1])
        return FileRef(part, path, sha256, logical_hash, len(rows), first, last, len(content))

    def read_actions(self, symbol: str, file: FileRef) -> CorporateActions:
        """Return the corporate actions of one file; raise CorruptLake if it is not what the manifest says."""
        return decode_actions(
            self._checked(file, lambda what: _damaged_actions(self._root / file.path, symbol, what))
        )

    def write_actions(self, symbol: str, actions: CorporateActions) -> FileRef:
        """Write corporate actions to a file named by its content, and return how the manifest names it."""
        content = encode_actions(actions)
        sha256 = hashlib.sha256(content).hexdigest()
        path = f"actions/{symbol}/{sha256[:24]}.parquet"
        self._put(path, content)
        days = (str(actions.ex_date[0]), str(actions.ex_date[-1])) if len(actions) else ("", "")
        return FileRef("actions", path, sha256, actions.logical_hash, len(actions), *days, len(content))

    def write_quarantine(self, symbol: str, timeframe: str, quarantined: Quarantine) -> Path:
        """Write rows that are no bars to a file named by its content."""
        content = encode_quarantine(quarantined)
        name = hashlib.sha256(content).hexdigest()[:24]
        return self._put(f"quarantine/{timeframe}/{symbol}/{name}.parquet", content)

    def begin(self) -> None:
        """Begin a write: remove what a killed writer left; the lock is ours, so nobody else writes there."""
        self._put_now = []
        unfinished = self._root / "tmp"
        if unfinished.is_dir():
            for path in unfinished.iterdir():
                path.unlink()

    def take_back(self, needed: set[str]) -> None:
        """Remove what a write put down before it failed, but for what a snapshot needs: the disk may be full."""
        for path in self._put_now:
            if str(path.relative_to(self._root)) not in needed:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def _put(self, path: str, content: bytes) -> Path:
        """Write an immutable file, unless it is there already, whole, from an attempt that did not end."""
        target = self._root / path
        if target.is_file() and target.read_bytes() == content:
            sync_folder(target.parent)  # that attempt may have ended before its name was durable
            return target
        if not target.exists():
            self._put_now.append(target)
        write_file(
            target,
            content,
            temporary=self._root / "tmp",
            crash_point=lambda: crash_point("lake.before_rename"),
        )
        return target

    def _content(self, entry: Entry, file: FileRef) -> bytes:
        return self._checked(file, lambda what: _damaged(self._root / file.path, entry, what))

    def _checked(self, file: FileRef, damaged: Callable[[str], CorruptLake]) -> bytes:
        """Return a file's bytes; raise `damaged` with what is wrong if they are not those that the manifest names."""
        try:
            content = (self._root / file.path).read_bytes()
        except OSError as error:
            raise damaged(_reason(error)) from error
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise damaged("is damaged: its sha256 is not the one in the manifest")
        return content


def bar_time(time: np.datetime64) -> str:
    """Return a bar's time as UTC ISO 8601 with `Z`, to the second where it is a whole one."""
    whole = time == time.astype("datetime64[s]")
    return f"{np.datetime_as_string(time, unit='s' if whole else 'us')}Z"


def _reason(error: OSError) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"


def _damaged_actions(path: Path, symbol: str, what: str) -> CorruptLake:
    return CorruptLake(
        f"{path} {what}. It holds the splits and dividends of {symbol}; restore it from a backup, or give them anew: "
        f"gpt-trader data actions {symbol} --file FILE"
    )


def _damaged(path: Path, entry: Entry, what: str) -> CorruptLake:
    file = " --file FILE" if entry.source == "csv" else ""
    timeframe = "" if entry.timeframe == "1d" else f" --timeframe {entry.timeframe}"
    return CorruptLake(
        f"{path} {what}. Fetch it again with: gpt-trader data ingest --symbol {entry.symbol}{timeframe} "
        f"--source {entry.source}{file} (bars from {entry.first} to {entry.last})"
    )
