"""Bars in a session's rows: one Arrow IPC stream, compressed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from gpt_trader.bars import Bars
from gpt_trader.instruments import Instrument

_PRICES: Final = ("open", "high", "low", "close", "volume")


def packed(bars: Bars) -> bytes:
    """Return bars as bytes."""
    columns = {"time": pa.array(bars.time)} | {name: pa.array(getattr(bars, name)) for name in _PRICES}
    sink = pa.BufferOutputStream()
    table = pa.table(columns)
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def unpacked(content: bytes, instrument: Mapping[str, Any], timeframe: str) -> Bars:
    """Return the bars of `packed`."""
    table = pa.ipc.open_stream(content).read_all().combine_chunks()
    time = np.asarray(table["time"].to_numpy(), dtype="datetime64[us]")
    values: dict[str, Any] = {name: np.asarray(table[name].to_numpy(), dtype=np.float64) for name in _PRICES}
    return Bars(Instrument.model_validate(instrument), timeframe, time, **values)
