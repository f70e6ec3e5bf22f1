"""Bars as the bytes of one Parquet file, and back.

zstd level 3, sorted by time, page checksums; no dictionary but on `symbol`: prices hardly repeat, and a symbol never
changes within a file.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gpt_trader.raw_bars import VALUES, Quarantine, RawBars

_COLUMNS: Final = ["time", *VALUES]
_TIME: Final = pa.timestamp("us", tz="UTC")


def encode_bars(symbol: str, raw: RawBars) -> bytes:
    """Return a Parquet file of the bars with a constant `symbol` column, for SQL over many files."""
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(raw), np.int32)), pa.array([symbol]))
    return _written(pa.table({"symbol": names, **_columns(raw)}), dictionary=["symbol"])


def decode_bars(content: bytes) -> RawBars:
    """Return the bars of a file that `encode_bars` wrote; raise pyarrow's errors for anything else."""
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        table = file.read(columns=_COLUMNS, use_threads=False)
    return RawBars(*(table.column(name).to_numpy() for name in _COLUMNS))


def encode_quarantine(quarantined: Quarantine) -> bytes:
    """Return a Parquet file of the rows held back: their place in the source's input, values and reason."""
    reasons = pa.array(quarantined.reason, pa.string()).dictionary_encode()
    rows = pa.table({"row": pa.array(quarantined.row), **_columns(quarantined.rows), "reason": reasons})
    return _written(rows, dictionary=["reason"])


def _columns(raw: RawBars) -> dict[str, pa.Array]:
    time = pa.array(raw.time.astype("datetime64[us]")).cast(_TIME)
    return {"time": time, **{name: pa.array(getattr(raw, name)) for name in VALUES}}


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
