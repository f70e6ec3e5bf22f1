"""The folder of a run's series: written aside, forced to disk, moved into place; swept if its writer was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from storage.durable import make_folder, sync_folder

_STAGED: Final = ".new-"
#: Younger leftovers may belong to a writer that has not locked its folder yet.
_LEFTOVER_SECONDS: Final = 60
#: Rows of a table that are written together: what the writer needs beside the table grows with them.
_ROWS: Final = 65_536


@contextlib.contextmanager
def staged_folder(runs: Path, run_id: UUID) -> Iterator[Path]:
    """Yield a folder of our own beside the runs, locked as long as we live; removed unless it was moved away."""
    make_folder(runs)
    staged = Path(tempfile.mkdtemp(prefix=f"{_STAGED}{run_id}-", dir=runs))
    handle = os.open(staged, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        os.close(handle)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write one table durably (zstd, page checksums).

    Dictionaries are for words alone: of numbers that are all different they take more room than the numbers do, in the
    file and, above all, in memory.
    """
    words = [field.name for field in table.schema if pa.types.is_string(field.type)]
    with path.open("wb") as file:
        pq.write_table(
            table,
            file,
            compression="zstd",
            compression_level=3,
            write_page_checksum=True,
            row_group_size=_ROWS,
            use_dictionary=words,
        )
        file.flush()
        os.fsync(file.fileno())


def move_into_place(staged: Path, target: Path) -> None:
    """Make the folder the run's own; what a writer killed between its move and its commit left there gives way."""
    if target.exists():
        shutil.rmtree(target)
    staged.rename(target)
    sync_folder(target.parent)


def sweep(runs: Path) -> int:
    """Remove the folders that killed writers left aside; return how many."""
    removed = 0
    for folder in runs.glob(f"{_STAGED}*"):
        with contextlib.suppress(FileNotFoundError):  # its writer has just finished
            if time.time() - folder.stat().st_mtime > _LEFTOVER_SECONDS and _abandoned(folder):
                shutil.rmtree(folder)
                removed += 1
    return removed


def _abandoned(folder: Path) -> bool:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(handle)
