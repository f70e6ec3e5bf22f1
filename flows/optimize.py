"""The optimize flow: bars → trials in chunks → walk forward → the best, verified and judged → stored run."""

from __future__ import annotations

import os
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.hooks import HOOKS, progress
from gpt_trader.requests import OptimizeRequest
from tasks.bars import ensure_bars, load_bars
from tasks.optimize import (
    chunks,
    conclude,
    gathered,
    publish,
    save_optimization,
    screen,
    study_of,
    walk_forward,
    write_report,
)
from tasks.passing import whole
from tasks.pins import pinned_snapshot
from tasks.run import begin_run, run_name

#: A chunk's simulations run beside each other: the kernel lets go of Python's lock.
_THREADS: Any = ThreadPoolTaskRunner(max_workers=os.cpu_count() or 1)


@flow(name="optimize", flow_run_name=run_name, task_runner=_THREADS, **HOOKS)
def optimize(request: OptimizeRequest) -> str:
    """Search a strategy's parameters on stored bars; return the result hash."""
    run = begin_run("optimize", request)
    progress("bars", 0, 1)
    ensure_bars(request)
    with pinned_snapshot(request) as pinned:
        loaded = load_bars(pinned)
        study, numbers = study_of(request, loaded)
        parts = chunks(numbers)
        futures = [screen.submit(whole(study), part, place) for place, part in enumerate(parts)]
        screened = gathered(study, futures, progress)
        walked = walk_forward(whole(study), numbers)
        result = conclude(whole(study), whole(screened), walked, whole(loaded))
        progress("save", len(parts), len(parts))
        shown = save_optimization(run, whole(result))
    if request.report:
        progress("report", len(parts), len(parts))
        write_report(run, whole(result))
    publish(run, shown)
    progress("done", len(parts), len(parts))
    return result.result_hash
