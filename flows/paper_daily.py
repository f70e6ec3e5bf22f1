"""The daily flow, for cron: new bars → each open session trades what it has not seen → certificates → stored run."""

from __future__ import annotations

from prefect import flow

from flows.hooks import HOOKS, progress
from gpt_trader.trading.request import PaperDailyRequest
from tasks.paper import certificate_of, feed_of
from tasks.paper_daily import Day, due_sessions, refresh_bars, save_day
from tasks.passing import whole
from tasks.run import begin_run
from tasks.sessions import trade, trading


@flow(name="paper_daily", **HOOKS)
def paper_daily(request: PaperDailyRequest) -> str:
    """Bring sessions that trade by a schedule up to date; return how many there were and what failed."""
    run = begin_run("paper_daily", request)
    due = due_sessions(run, request)
    progress("ingest", 0, len(due))
    if request.refresh:
        refresh_bars(due)
    day = Day()
    for number, session in enumerate(due):
        progress("trade", number, len(due), session.name)
        with day.one(session):
            with trading(session, f"run {run.id}") as running:
                feed = feed_of(running)
                trade(whole(running), whole(feed), None)
                feed.end(running)
            certificate_of(session.session_id)
    shown = save_day(run, day)
    progress("done", len(due), len(due))
    return f"{shown['sessions']} sessions, {shown['failed']} failed"
