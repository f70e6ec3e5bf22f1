"""The portfolio flow: prices of many symbols → simulation → stored run → report."""

from __future__ import annotations

from prefect import flow

from flows.hooks import HOOKS, progress
from gpt_trader.portfolio.request import PortfolioRequest
from tasks.bars import ensure_series
from tasks.passing import whole
from tasks.pins import pinned_snapshot
from tasks.portfolio import load_panel, publish, save_portfolio, simulate_portfolio, write_report
from tasks.run import begin_run, run_name


@flow(name="portfolio", flow_run_name=run_name, **HOOKS)
def portfolio(request: PortfolioRequest) -> str:
    """Simulate a portfolio on stored bars; return the result hash. The run's folder holds everything else."""
    run = begin_run("portfolio", request)
    progress("bars", 0, 4)
    ensure_series(request.symbols, request)
    with pinned_snapshot(request) as pinned:
        loaded = load_panel(pinned)
        progress("simulate", 1, 4, f"{len(request.symbols)} symbols")
        result = simulate_portfolio(request, whole(loaded))
        progress("save", 2, 4)
        shown = save_portfolio(run, whole(result))
    if request.report:
        progress("report", 3, 4)
        write_report(run, whole(result))
    publish(run, shown)
    progress("done", 4, 4)
    return result.result_hash
