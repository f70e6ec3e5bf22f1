"""A backtest's series as Arrow tables, one row a bar or a trade, for the Parquet files of its run."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gpt_trader.backtesting.result import SCHEMA_VERSION, BacktestResult

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
            "time": _times(result.time),
            "close": result.close,
            "equity": result.equity,
            "benchmark_equity": result.benchmark_equity,
            "drawdown": result.drawdown,
            "position": result.position,
        }
    )
    columns = {name: [getattr(trade, name, None) for trade in result.trades] for name in _TRADES}
    columns["across_gap"] = _across_gap(result)
    trades = pa.table(
        {
            name: _times(columns[name]) if type_ == _TIME else pa.array(columns[name], type_)
            for name, type_ in _TRADES.items()
        }
    )
    version = {"schema_version": str(SCHEMA_VERSION)}
    return {
        "equity": equity.replace_schema_metadata(version),
        "trades": trades.replace_schema_metadata(version),
    }


def _across_gap(result: BacktestResult) -> list[bool | None]:
    marked = (result.data_quality or {}).get("affected_trades")
    if marked is None:
        return [None] * len(result.trades)
    return [number in set(marked) for number in range(len(result.trades))]


def _times(values: npt.NDArray[np.datetime64] | list[Any]) -> pa.Array:
    return pa.array(np.asarray(values, dtype="datetime64[us]")).cast(_TIME)
