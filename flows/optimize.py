"""The optimize flow: bars → trials, round by round → walk forward → the best, verified and judged → stored run."""

from __future__ import annotations

from prefect import flow

from flows.hooks import HOOKS, progress
from flows.runners import CONFIGURED
from gpt_trader.requests import OptimizeRequest
from tasks.bars import ensure_bars, load_bars
from tasks.optimize import conclude, publish, save_optimization, study_of, write_report
from tasks.passing import whole
from tasks.pins import first_snapshot
from tasks.run import begin_run, run_name
from tasks.search import search, walk_forward


@flow(name="optimize", flow_run_name=run_name, task_runner=CONFIGURED, **HOOKS)
def optimize(request: OptimizeRequest) -> str:
    """Search a strategy's parameters on stored bars; return the result hash."""
    run = begin_run("optimize", request)
    progress("bars", 0, 1)
    ensure_bars(request)
    with first_snapshot(run, request) as pinned:
        loaded = load_bars(pinned)
        study = study_of(request, loaded)
        found = search(study, progress)
        walked = walk_forward(whole(study), progress)
        result = conclude(whole(study), whole(found), walked, whole(loaded))
        trials = len(result.objective)
        progress("save", trials, trials)
        shown = save_optimization(run, whole(result))
    if request.report:
        progress("report", trials, trials)
        write_report(run, whole(result))
    publish(run, shown)
    progress("done", trials, trials)
    return result.result_hash
