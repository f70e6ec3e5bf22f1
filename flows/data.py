"""The data flow: bars from a source into the lake."""

from __future__ import annotations

from prefect import flow

from flows.hooks import HOOKS, progress
from gpt_trader.requests import DataRequest
from tasks.bars import ingest, symbols_of
from tasks.ingest import publish_ingest, save_ingest
from tasks.run import begin_run


@flow(name="data", **HOOKS)
def data(request: DataRequest) -> str:
    """Ingest every symbol of the request; return the lake's snapshot afterwards."""
    run = begin_run("data", request)
    symbols = symbols_of(request)
    ingested = []
    for done, symbol in enumerate(symbols):
        progress("ingest", done, len(symbols), symbol)
        ingested.append(ingest(symbol, request))
    summary = save_ingest(run, ingested)
    publish_ingest(run, summary)
    progress("done", len(symbols), len(symbols))
    return str(summary["snapshot_id"])
