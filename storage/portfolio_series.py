"""A portfolio's series as Arrow tables, for the Parquet files of its run."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gpt_trader.portfolio.result import SCHEMA_VERSION, PortfolioResult
from storage.series import times, trades_table


def portfolio_series(result: PortfolioResult) -> dict[str, pa.Table]:
    """Return `equity`, `trades`, `fills` and `weights` of a portfolio, as in `PortfolioResult`.

    `equity` has a row a bar (time, equity, benchmark_equity, drawdown, cash, held: how many symbols, turnover: what
    was traded at its opens over the equity, rebalanced), `trades` one a sale and one for what is left, `fills` one an
    order, `weights` one for each symbol that is held at the close of a bar with fills. Times are UTC.
    """
    fills, bars = result.fills, len(result.time)
    traded = np.bincount(fills.bar, np.abs(fills.units) * fills.price, minlength=bars)
    names = np.array(result.symbols)
    when = np.unique(fills.bar)
    held = result.weights[when]
    row, column = np.nonzero(held)
    tables = {
        "equity": pa.table(
            {
                "time": times(result.time),
                "equity": result.equity,
                "benchmark_equity": result.benchmark_equity,
                "drawdown": result.drawdown,
                "cash": result.cash,
                "held": np.count_nonzero(result.weights, axis=1),
                "turnover": np.divide(traded, result.equity, out=np.zeros(bars), where=result.equity > 0),
                "rebalanced": result.rebalanced,
            }
        ),
        "trades": trades_table(result.trades, result.data_quality, {"symbol": pa.string()}),
        "fills": pa.table(
            {
                "time": times(result.time[fills.bar]),
                "symbol": pa.array(names[fills.symbol].tolist(), pa.string()),
                "units": fills.units,
                "price": fills.price,
                "reference": fills.reference,
                "commission": fills.commission,
            }
        ),
        "weights": pa.table(
            {
                "time": times(result.time[when[row]]),
                "symbol": pa.array(names[column].tolist(), pa.string()),
                "weight": held[row, column],
            }
        ),
    }
    version = {"schema_version": str(SCHEMA_VERSION)}
    return {name: table.replace_schema_metadata(version) for name, table in tables.items()}
