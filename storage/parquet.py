"""Bars as the bytes of one Parquet file, and back.

zstd level 3, sorted by time, page checksums; no dictionary but on `symbol`: prices hardly repeat, and a symbol never
changes within a file. Arrays cross between numpy and Arrow as buffers: pyarrow's own conversions import pandas,
which costs a fresh process more than the reading.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.raw_bars import VALUES, Quarantine, RawBars

_COLUMNS: Final = ["time", *VALUES]
_TIME: Final = pa.timestamp("us", tz="UTC")
#: Bytes of a file from which columns are unpacked side by side; a daily series is read faster in one thread.
_WORTH_THREADS: Final = 2**20


def encode_bars(symbol: str, raw: RawBars) -> bytes:
    """Return a Parquet file of the bars with a constant `symbol` column, for SQL over many files."""
    text = symbol.encode()
    offsets = pa.py_buffer(np.array([0, len(text)], np.int32))
    names = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(text)])
    codes = _arrow(np.zeros(len(raw), np.int32), pa.int32())
    table = pa.table({"symbol": pa.DictionaryArray.from_arrays(codes, names), **_columns(raw)})
    return _written(table, dictionary=["symbol"])


def decode_bars(content: bytes) -> RawBars:
    """Return the bars of a file that `encode_bars` wrote; raise pyarrow's errors for anything else."""
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        table = file.read(columns=_COLUMNS, use_threads=len(content) > _WORTH_THREADS)
    time = _numpy(table.column("time"), np.int64).view("datetime64[us]")
    return RawBars(time, *(_numpy(table.column(name), np.float64) for name in VALUES))


def encode_actions(actions: CorporateActions) -> bytes:
    """Return a Parquet file of splits and dividends."""
    days = _arrow(actions.ex_date.astype("datetime64[D]").astype(np.int32), pa.date32())
    columns = {name: _arrow(getattr(actions, name), pa.float64()) for name in ("split", "dividend")}
    return _written(pa.table({"ex_date": days, **columns}), dictionary=[])


def decode_actions(content: bytes) -> CorporateActions:
    """Return the actions of a file that `encode_actions` wrote; raise pyarrow's errors for anything else."""
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        table = file.read(use_threads=False)
    days = _numpy(table.column("ex_date"), np.int32).astype("datetime64[D]")
    return CorporateActions(days, *(_numpy(table.column(name), np.float64) for name in ("split", "dividend")))


def encode_quarantine(quarantined: Quarantine) -> bytes:
    """Return a Parquet file of the rows held back: their place in the source's input, values and reason."""
    reasons = pa.array(quarantined.reason, pa.string()).dictionary_encode()
    rows = pa.table(
        {"row": _arrow(quarantined.row, pa.int64()), **_columns(quarantined.rows), "reason": reasons}
    )
    return _written(rows, dictionary=["reason"])


def _columns(raw: RawBars) -> dict[str, pa.Array]:
    return {"time": _arrow(raw.time, _TIME), **{n: _arrow(getattr(raw, n), pa.float64()) for n in VALUES}}


def _arrow(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Return contiguous values as Arrow, without a copy."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values.view(np.uint8))])


def _numpy(column: pa.ChunkedArray, kind: type[np.generic]) -> NDArray[Any]:
    """Return a column without nulls as numpy, without a copy where it is one chunk."""
    pieces = [
        np.frombuffer(
            chunk.buffers()[1], kind, count=len(chunk), offset=chunk.offset * np.dtype(kind).itemsize
        )
        for chunk in column.chunks
    ]
    return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, kind), *pieces])


def _written(table: pa.Table, *, dictionary: list[str]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=3,
        use_dictionary=dictionary,
        write_page_checksum=True,
    )
    content: bytes = sink.getvalue().to_pybytes()
    return content
