"""The certificate flow: a session's recorded inputs → replay and backtest → verdict."""

from __future__ import annotations

from prefect import flow

from flows.hooks import HOOKS, progress
from gpt_trader.trading.request import PaperCertificateRequest
from tasks.paper import certificate_of, kept, own_session, publish, save_session
from tasks.paper_report import write_report
from tasks.passing import whole
from tasks.run import begin_run


@flow(name="paper_certificate", **HOOKS)
def paper_certificate(request: PaperCertificateRequest) -> str:
    """Replay a session and compare it with a backtest over the same bars; return the verdict."""
    run = begin_run("paper_certificate", request)
    progress("replay", 0, 1)
    own_session(run, request.session)
    certificate = certificate_of(request.session)
    told = kept(request.session)
    shown = save_session(run, whole(told), certificate)
    write_report(run, whole(told), certificate)
    publish(run, shown)
    progress("done", 1, 1)
    return certificate.verdict
