"""The report of a paper session, beside the series of the run that traded or certified it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE

from gpt_trader.trading.certificate import Certificate
from gpt_trader.trading.outcome import Outcome
from gpt_trader.trading.page import render_html
from gpt_trader.trading.record import record
from storage.session_ledger import load
from tasks.paper import events_of
from tasks.provenance import code_version, library_versions
from tasks.run import CurrentRun
from tasks.sessions import request_of, sessions
from tasks.stores import stores


@task(name="report", cache_policy=NO_CACHE)
def write_report(run: CurrentRun, session_id: UUID, certificate: Certificate) -> None:
    """Put the session's HTML report beside the run's series, unless the session was asked for without one."""
    session = sessions().get(session_id)
    request = request_of(session)
    if not request.report:
        return
    events = events_of(session_id)
    ledger, _ = load(stores().engine, session_id)
    found = record(events, dict(ledger.state.closes))
    year = ledger.history.bars(request.symbols[0])[0].periods_a_year
    outcome = Outcome(
        name=session.name,
        request=request,
        events=events,
        state=ledger.state,
        record=found,
        metrics=found.metrics(float(request.capital), year),
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
