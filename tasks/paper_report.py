"""The report of a paper session, beside the series of the run that traded or certified it."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import task
from prefect.cache_policies import NO_CACHE

from gpt_trader.trading.certificate import Certificate
from gpt_trader.trading.outcome import Outcome
from gpt_trader.trading.page import render_html
from tasks.paper import Kept
from tasks.provenance import code_version, library_versions
from tasks.run import CurrentRun
from tasks.stores import stores


@task(name="report", cache_policy=NO_CACHE)
def write_report(run: CurrentRun, told: Kept, certificate: Certificate) -> None:
    """Put the session's HTML report beside the run's series, unless the session was asked for without one."""
    session = told.session
    if not told.request.report:
        return
    outcome = Outcome(
        name=session.name,
        request=told.request,
        events=told.events,
        state=told.state,
        record=told.record,
        metrics=told.metrics,
        certificate=certificate,
        provenance={
            "snapshot id": session.snapshot_id,
            "begun at": session.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "code version": code_version(),
            "libraries": library_versions(),
        },
    )
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    page = render_html(outcome, run_id=str(run.id), created_at=created)
    stores().runs.save_artifact(run.id, "report", page.encode())
