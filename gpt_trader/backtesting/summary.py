"""The result as programs read it: one JSON object, the same for CLI, REST and the stored run."""

from __future__ import annotations

from typing import Any

from gpt_trader.backtesting.result import SCHEMA_VERSION, BacktestResult, drawdown_row

#: Worst falls in the summary; the report lists more.
DRAWDOWNS_SHOWN = 5


def summary(result: BacktestResult) -> dict[str, Any]:
    """Return what is shown of a result, JSON-ready; run id, state and artifacts are the run's to add.

    Fractions, not percent; undefined numbers are None. `start` and `end` are the days of the first and the last bar
    used, `bars` how many there are.
    """
    benchmark = result.benchmark.as_dict()
    return {
        "schema_version": SCHEMA_VERSION,
        "flow": "backtest",
        "symbol": result.symbol,
        "timeframe": result.timeframe,
        "strategy": result.strategy,
        "params": result.params,
        "direction": result.request["direction"],
        "snapshot_id": result.snapshot_id,
        "bars_hash": result.bars_hash,
        "result_hash": result.result_hash,
        "start": str(result.time[0].astype("datetime64[D]")),
        "end": str(result.time[-1].astype("datetime64[D]")),
        "bars": len(result.time),
        "periods_a_year": result.periods_a_year,
        "metrics": {
            **result.metrics.as_dict(),
            "benchmark_return": benchmark["total_return"],
        },
        "benchmark": benchmark,
        "warnings": list(result.warnings),
        "data_quality": result.data_quality,
        "drawdowns": [drawdown_row(d) for d in result.drawdowns[:DRAWDOWNS_SHOWN]],
        "provenance": result.provenance,
    }
