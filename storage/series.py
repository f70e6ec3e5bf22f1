"""A backtest's series as Arrow tables, one row a bar or a trade, for the Parquet files of its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gpt_trader.backtesting.result import SCHEMA_VERSION, BacktestResult, Trade
from gpt_trader.bars import Floats, Times

_TIME: Final = pa.timestamp("us", tz="UTC")

_TRADES: Final = {
    "entry_time": _TIME,
    "exit_time": _TIME,  # null: still open at the end
    "side": pa.int8(),
    "size": pa.float64(),
    "entry_price": pa.float64(),
    "exit_price": pa.float64(),
    "entry_costs": pa.float64(),
    "exit_costs": pa.float64(),
    "pnl": pa.float64(),
    "return_": pa.float64(),
    "bars": pa.int64(),
    "exit_reason": pa.string(),
    "across_gap": pa.bool_(),  # bars are missing between entry and exit; null: nobody looked
}


def backtest_series(result: BacktestResult) -> dict[str, pa.Table]:
    """Return `equity` (a row a bar: time, close, equity, benchmark_equity, drawdown, position) and `trades`.

    Times are UTC with microseconds; units as in `BacktestResult` and `Trade`. Each table's metadata holds the
    schema version.
    """
    equity = pa.table(
        {
            "time": times(result.time),
            "close": result.close,
            "equity": result.equity,
            "benchmark_equity": result.benchmark_equity,
            "drawdown": result.drawdown,
            "position": result.position,
        }
    )
    version = {"schema_version": str(SCHEMA_VERSION)}
    return {
        "equity": equity.replace_schema_metadata(version),
        "trades": trades_table(result.trades, result.data_quality).replace_schema_metadata(version),
    }


def trades_table(
    trades: Sequence[Trade],
    data_quality: Mapping[str, Any] | None,
    more: Mapping[str, pa.DataType] | None = None,
) -> pa.Table:
    """Return a row a trade: its fields, `more` ones first, and whether bars are missing while it was held."""
    types = {**(more or {}), **_TRADES}
    columns = {name: [getattr(trade, name, None) for trade in trades] for name in types}
    columns["across_gap"] = _across_gap(trades, data_quality)
    return pa.table(
        {
            name: times(columns[name]) if type_ == _TIME else pa.array(columns[name], type_)
            for name, type_ in types.items()
        }
    )


def read_equity(path: Path) -> tuple[Times, Floats]:
    """Return the times (n,) and the equity (n,) of the `equity` that a run has kept."""
    table = pq.read_table(path, columns=["time", "equity"])
    time: Times = table["time"].to_numpy().astype("datetime64[us]")
    equity: Floats = table["equity"].to_numpy()
    return time, equity


def times(values: npt.NDArray[np.datetime64] | list[Any]) -> pa.Array:
    """Return times as Arrow's, in UTC with microseconds."""
    return pa.array(np.asarray(values, dtype="datetime64[us]")).cast(_TIME)


def _across_gap(trades: Sequence[Trade], data_quality: Mapping[str, Any] | None) -> list[bool | None]:
    marked = (data_quality or {}).get("affected_trades")
    if marked is None:
        return [None] * len(trades)
    touched = set(marked)
    return [number in touched for number in range(len(trades))]
