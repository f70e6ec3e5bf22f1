"""A table that is written to a file of the user's page by page: whole at the end, or not there at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gpt_trader.errors import Conflict, Problem, Refused

if TYPE_CHECKING:
    import pyarrow as pa

_KINDS: Final = (".parquet", ".csv")


def target(file: str, *, force: bool) -> Path:
    """Return where to write; raise Refused for another kind of file, and Conflict for one that exists."""
    path = Path(file).expanduser().absolute()
    if path.suffix not in _KINDS:
        raise Refused.of(
            Problem("file", file, "is of no kind that can be written", allowed=", ".join(_KINDS))
        )
    if not path.parent.is_dir():
        raise Refused.of(Problem("file", file, f"the folder {path.parent} does not exist"))
    if path.is_dir() or (path.exists() and not force):
        raise _exists(path)
    return path


@contextmanager
def written(path: Path, *, force: bool) -> Iterator[TableFile]:
    """Give a file to write tables to, which takes its name at the end of the block; after an error it is gone.

    Raises Refused where it cannot be written, Conflict where the name has been taken meanwhile and `force` is off.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    growing = TableFile(draft, path.suffix)
    try:
        try:
            yield growing
        except BaseException:
            with suppress(OSError):
                growing.close()
            raise
        growing.close()
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        if force:
            draft.replace(path)
        else:
            _take(draft, path)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)


class TableFile:
    """A Parquet or CSV file that grows by tables of one schema, the first table's."""

    def __init__(self, path: Path, suffix: str) -> None:
        self._path = path
        self._suffix = suffix
        self._writer: pa.parquet.ParquetWriter | pa.csv.CSVWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Write some rows behind those before."""
        if self._writer is None:
            self._writer = self._opened(table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        """Write what is held back, and the end of the file."""
        if self._writer is not None:
            self._writer.close()

    def _opened(self, schema: pa.Schema) -> pa.parquet.ParquetWriter | pa.csv.CSVWriter:
        if self._suffix == ".csv":
            from pyarrow import csv

            return csv.CSVWriter(self._path, schema)
        from pyarrow import parquet

        return parquet.ParquetWriter(
            self._path, schema, compression="zstd", use_dictionary=["symbol"], write_page_checksum=True
        )


def _take(draft: Path, path: Path) -> None:
    """Give the draft its name unless the name has been taken meanwhile."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        if path.exists():  # a file system without hard links: the best there is
            raise _exists(path) from None
        draft.replace(path)


def _exists(path: Path) -> Conflict:
    return Conflict(f"{path} exists: choose another name, or write over it with --force")
