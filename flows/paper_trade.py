"""The paper flow: a session is opened or gone on with → traded bar by bar → certificate → stored run."""

from __future__ import annotations

from prefect import flow

from flows.hooks import HOOKS, progress
from gpt_trader.trading.request import PaperTradeRequest
from tasks.paper import begin_session, certificate_of, feed_of, kept, publish, save_session
from tasks.paper_report import write_report
from tasks.passing import whole
from tasks.run import begin_run, session_run_name
from tasks.sessions import trade, trading


@flow(name="paper_trade", flow_run_name=session_run_name, **HOOKS)
def paper_trade(request: PaperTradeRequest) -> str:
    """Trade on paper until the feed ends; return the ledger's hash. A session that there is already is gone on with."""
    run = begin_run("paper_trade", request)
    progress("bars", 0, 1)
    session = begin_session(run, request)
    with trading(session, f"run {run.id}") as running:
        feed = feed_of(running)
        trade(whole(running), whole(feed), whole(progress))
        feed.end(running)
    progress("certificate", 1, 1)
    certificate = certificate_of(session.session_id)
    told = kept(session.session_id)
    shown = save_session(run, whole(told), certificate)
    write_report(run, whole(told), certificate)
    publish(run, shown)
    progress("done", 1, 1)
    return str(shown["ledger_hash"])
