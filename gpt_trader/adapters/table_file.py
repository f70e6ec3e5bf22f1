"""Reads the columns of a user's CSV or Parquet file in bounded pieces, and says plainly what is wrong with it."""

from __future__ import annotations

import csv as stdlib_csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from gpt_trader.errors import BadBars, Problem, Refused

#: Larger files are refused: 20 million rows are 38 years of minutes, and fit in memory (1.1 GB).
MAX_ROWS: Final = 20_000_000
MAX_BYTES: Final = 4 * 2**30
_BLOCK: Final = 8 * 2**20
_HEAD: Final = 64 * 2**10
_BAD_CELL: Final = re.compile(r"In CSV column #(\d+): .*invalid value '(.*)'", re.DOTALL)


class TableFile:
    """One regular CSV file (also .gz, .bz2, .zst) or Parquet file, told apart by its first bytes.

    Raises Refused where there is no readable regular file of a sane size.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        head = _head(path)
        self.parquet = head.startswith(b"PAR1")

    def columns(self) -> list[str]:
        """Return the names of the columns; raise BadBars if there is no header or a name stands twice."""
        names = list(self._parquet().schema_arrow.names) if self.parquet else self._header()[1]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BadBars(f"{self.path}: column {', '.join(map(repr, twice))} stands there more than once")
        return names

    def batches(self, time: str, numbers: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the column `time` as it is (text in CSV) and `numbers` as float64, empty cells null.

        Raises BadBars for a damaged file, text where a number belongs, or more than MAX_ROWS rows.
        """
        rows = 0
        for batch in (
            self._parquet_batches(time, numbers) if self.parquet else self._csv_batches(time, numbers)
        ):
            rows += batch.num_rows
            if rows > MAX_ROWS:
                raise BadBars(f"{self.path} has more than {MAX_ROWS:,} rows: split it, e.g. by year")
            yield batch
        if not rows:
            raise BadBars(f"{self.path} has no rows")

    def _parquet(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.path, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise BadBars(
                f"{self.path} is cut off or damaged, not a whole Parquet file: {_line(error)}"
            ) from None

    def _parquet_batches(self, time: str, numbers: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with self._parquet() as file:
            schema = file.schema_arrow
            for name in numbers:
                kind = schema.field(name).type
                if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
                    raise BadBars(f"{self.path}: column {name!r} holds {kind}, not numbers")
            try:
                for batch in file.iter_batches(columns=[time, *numbers]):
                    cells = [batch.column(name).cast(pa.float64(), safe=False) for name in numbers]
                    yield pa.RecordBatch.from_arrays([batch.column(time), *cells], names=[time, *numbers])
            except (pa.ArrowException, OSError) as error:
                raise BadBars(f"{self.path} is damaged: {_line(error)}") from None

    def _header(self) -> tuple[str, list[str]]:
        """Return the delimiter of a CSV file and the names in its first line."""
        try:
            with pa.input_stream(str(self.path), compression="detect") as stream:
                text = stream.read(_HEAD).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            if error.end < _HEAD - 4:  # a character cut in two at the end of what was read is no fault
                raise BadBars(f"{self.path} is neither Parquet nor CSV text in UTF-8") from None
            text = error.object[: error.start].decode("utf-8-sig")
        except (pa.ArrowException, OSError) as error:
            raise BadBars(f"{self.path} cannot be unpacked: {_line(error)}") from None
        if "\0" in text:
            raise BadBars(f"{self.path} is neither Parquet nor CSV text")
        line = next((line for line in text.splitlines() if line.strip()), "")
        if not line:
            raise BadBars(f"{self.path} is empty")
        delimiter = max(",;\t|", key=line.count)
        return delimiter, next(stdlib_csv.reader([line], delimiter=delimiter))

    def _csv_batches(self, time: str, numbers: Sequence[str]) -> Iterator[pa.RecordBatch]:
        delimiter, names = self._header()
        wanted = [time, *numbers]
        try:
            with (
                pa.input_stream(str(self.path), compression="detect") as stream,
                csv.open_csv(
                    stream,
                    read_options=csv.ReadOptions(block_size=_BLOCK),
                    parse_options=csv.ParseOptions(delimiter=delimiter),
                    convert_options=csv.ConvertOptions(
                        column_types={time: pa.string(), **dict.fromkeys(numbers, pa.float64())},
                        include_columns=wanted,
                        strings_can_be_null=True,
                    ),
                ) as reader,
            ):
                yield from reader
        except (pa.ArrowException, OSError) as error:
            raise BadBars(f"{self.path}: {_explained(error, names)}") from None


def _head(path: Path) -> bytes:
    """Return the first bytes of a regular file of a sane size; raise Refused otherwise."""
    try:
        if path.is_dir():
            raise Refused.of(Problem("file", str(path), f"{path} is a folder: name the file in it"))
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "does not exist"
            raise Refused.of(Problem("file", str(path), f"{path} {what}"))
        size = path.stat().st_size
        if size > MAX_BYTES:
            advice = f"has {size / 2**30:.1f} GiB, more than {MAX_BYTES / 2**30:.0f}: split it, e.g. by year"
            raise Refused.of(Problem("file", str(path), f"{path} {advice}"))
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise Refused.of(Problem("file", str(path), f"{path} cannot be read: {error.strerror}")) from None


def _explained(error: Exception, names: list[str]) -> str:
    """Return pyarrow's complaint in words of the file: which column, which cell, what is expected."""
    cell = _BAD_CELL.search(str(error))
    if cell:
        number, value = int(cell[1]), cell[2].replace("\0", "�")
        name = names[number] if number < len(names) else f"number {number + 1}"
        return f"column {name!r}: {value[:80]!r} is not a number (write 1234.5; an empty cell is a missing value)"
    return _line(error)


def _line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
