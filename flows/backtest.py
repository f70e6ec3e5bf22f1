"""The backtest flow: bars → simulation → stored run → report."""

from __future__ import annotations

from prefect import flow

from flows.hooks import HOOKS, progress
from gpt_trader.requests import BacktestRequest
from tasks.backtest import publish, save_run, simulate, write_report
from tasks.bars import ensure_bars, load_bars
from tasks.passing import whole
from tasks.pins import pinned_snapshot
from tasks.run import begin_run, run_name


@flow(name="backtest", flow_run_name=run_name, **HOOKS)
def backtest(request: BacktestRequest) -> str:
    """Simulate a strategy on stored bars; return the result hash. The run's folder holds everything else."""
    run = begin_run("backtest", request)
    progress("bars", 0, 4)
    ensure_bars(request)
    with pinned_snapshot(request) as pinned:
        loaded = load_bars(pinned)
        progress("simulate", 1, 4, f"{len(loaded.bars) - loaded.first} bars of {request.symbol}")
        result = simulate(request, whole(loaded))
        progress("save", 2, 4)
        shown = save_run(run, whole(result))
    if request.report:
        progress("report", 3, 4)
        write_report(run, whole(result))
    publish(run, shown)
    progress("done", 4, 4)
    return result.result_hash
