"""The data flow: bars from a source into the lake."""

from __future__ import annotations

from prefect import flow

from flows.hooks import HOOKS, progress
from gpt_trader.requests import DataRequest
from tasks.ingest import ingest, publish_ingest, save_ingest
from tasks.passing import whole
from tasks.run import begin_run
from tasks.stores import stores


@flow(name="data", **HOOKS)
def data(request: DataRequest) -> str:
    """Bring the request's series up to date; return the lake's snapshot afterwards."""
    run = begin_run("data", request)
    before = stores().lake.current()
    progress("ingest", 0, 1)
    outcomes, plan = ingest(request, whole(_tell))
    progress("check", len(outcomes), len(outcomes))
    summary = save_ingest(run, whole(outcomes), whole(plan), before.id if before else None)
    publish_ingest(run, summary)
    progress("done", len(outcomes), len(outcomes))
    return str(summary["snapshot_id"])


def _tell(done: int, total: int, name: str) -> None:
    progress("ingest", done, total, name)
