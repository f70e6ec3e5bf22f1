"""Tasks of paper sessions: what feeds them, their certificate, their result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from gpt_trader.backtesting.engine import require_shortable
from gpt_trader.backtesting.result import Metrics
from gpt_trader.bars import Bars
from gpt_trader.errors import NotFound
from gpt_trader.runs import LOCAL, SYSTEM
from gpt_trader.trading.certificate import Certificate, certify
from gpt_trader.trading.events import LedgerEvent
from gpt_trader.trading.record import Record, record
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.trading.state import State
from storage.runs import RunOutput
from storage.session_ledger import load, warm_bars
from storage.session_rows import Session, ledger_event
from tasks.artifacts import report_lines, run_artifact
from tasks.bars import ensure_series, load_bars
from tasks.feeds import Feed, Newest, Replay
from tasks.live_feed import Stream, bring_warm_up
from tasks.passing import whole
from tasks.pins import pinned_snapshot
from tasks.provenance import code_version, library_versions
from tasks.run import CurrentRun
from tasks.sessions import Running, open_session, request_of, sessions, strategies_of
from tasks.stores import stores

_PAGE: Final = 5_000


def begin_session(run: CurrentRun, request: PaperTradeRequest) -> Session:
    """Return the session to go on with, or open one: a run that is tried again goes on with its own.

    Raises NotFound for a session that there is not, or that is somebody else's; UnknownName, NotEnoughBars or Refused
    where bars are missing; Refused for a strategy that is wrong.
    """
    if request.session is not None:
        return own_session(run, request.session)
    try:
        return sessions().get(run.id)
    except NotFound:
        pass
    strategies_of(request)
    if request.feed == "stream":
        bring_warm_up(request)
    else:
        ensure_series(request.symbols, request)
    with pinned_snapshot(request) as pinned:
        warm = _warm(pinned)
        for leg in request.legs:
            require_shortable(warm[leg.symbol], request.backtest(leg))
        return open_session(run, request, whole(warm), pinned.snapshot)


def own_session(run: CurrentRun, session_id: UUID) -> Session:
    """Return a session; raise NotFound if there is none, or the run's owner may not have it."""
    session = sessions().get(session_id)
    if run.owner not in (session.owner, LOCAL, SYSTEM):
        raise NotFound(f"there is no session {session_id}: `gpt-trader paper list` lists them")
    return session


def _warm(request: PaperTradeRequest) -> dict[str, Bars]:
    """Return the bars before the session by symbol: what its strategies are warmed up with."""
    legs = {leg.symbol: leg for leg in request.legs}
    if request.feed != "replay":
        stored = {symbol: stores().lake.bars(symbol, request.timeframe) for symbol in request.symbols}
        return {
            symbol: bars[: bars.between(request.start, None)[0]] if request.start else bars
            for symbol, bars in stored.items()
        }
    loaded = {symbol: load_bars(request.backtest(legs[symbol])) for symbol in request.symbols}
    return {symbol: each.bars[: each.first] for symbol, each in loaded.items()}


def feed_of(running: Running) -> Feed:
    """Return what feeds a session."""
    feeds: dict[str, type[Replay | Newest | Stream]] = {
        "replay": Replay,
        "schedule": Newest,
        "stream": Stream,
    }
    return feeds[running.request.feed](running)


def events_of(session_id: UUID) -> list[LedgerEvent]:
    """Return all events of a ledger."""
    found: list[LedgerEvent] = []
    while True:
        page = sessions().events(session_id, after=len(found), limit=_PAGE)
        found += [ledger_event(each) for each in page]
        if len(page) < _PAGE:
            return found


@task(name="certificate", cache_policy=NO_CACHE)
def certificate_of(session_id: UUID) -> Certificate:
    """Replay a session and compare it with its backtest; keep what came of it."""
    session = sessions().get(session_id)
    request = request_of(session)
    events = events_of(session_id)[: session.seq]  # a session that is traded meanwhile has more by now
    history = warm_bars(stores().engine, session_id)
    warm = {symbol: history.bars(symbol)[0] for symbol in request.symbols}
    found = certify(request, strategies_of(request), warm, events, session.ledger_hash)
    sessions().certify(session_id, found.as_dict(), len(events))
    return found


@dataclass(frozen=True)
class Kept:
    """A session as its ledger tells it by now: read once, for what is saved of it and what the report shows."""

    session: Session
    request: PaperTradeRequest
    events: list[LedgerEvent]
    state: State
    record: Record
    metrics: Metrics | None


def kept(session_id: UUID) -> Kept:
    """Read a session and its whole ledger; raise GptTraderError where that is damaged."""
    session = sessions().get(session_id)
    request, events = request_of(session), events_of(session_id)
    ledger, _ = load(stores().engine, session_id)
    found = record(events, dict(ledger.state.closes))
    year = ledger.history.bars(request.symbols[0])[0].periods_a_year
    return Kept(session, request, events, ledger.state, found, found.metrics(float(request.capital), year))


@task(name="save session", cache_policy=NO_CACHE)
def save_session(run: CurrentRun, told: Kept, certificate: Certificate) -> dict[str, Any]:
    """Keep what the session came to as the run's result; return its summary."""
    shown = {"run_id": str(run.id), **summary(told, certificate)}
    output = RunOutput(
        result_hash=shown["result_hash"],
        summary=shown,
        series={
            "equity": _equity_table(told.record),
            "trades": _trades_table(told.record),
            "fills": _fills_table(told.events),
        },
        snapshot_id=told.session.snapshot_id,
        code_version=code_version(),
        libraries=library_versions(),
    )
    stores().runs.save_result(run.id, output)
    return shown


def summary(told: Kept, certificate: Certificate) -> dict[str, Any]:
    """Return what is shown of a session, JSON-ready. Fractions, not percent; undefined numbers are None."""
    session, request, found = told.session, told.request, told.record
    content = {
        "request": request.model_dump(
            mode="json",
            exclude={"name", "speed", "until", "hours", "grace", "session", *request.output_options},
        ),
        "time": [str(at) for at in found.time],
        "equity": [repr(value) for value in found.equity.tolist()],
        "trades": len(found.trades),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {
        "schema_version": 1,
        "flow": session.slice,
        "session_id": str(session.session_id),
        "name": session.name,
        "state": session.status,
        "reason": session.reason,
        "timeframe": request.timeframe,
        "legs": [leg.model_dump(mode="json") for leg in request.legs],
        "snapshot_id": session.snapshot_id,
        "start": str(found.time[0].astype("datetime64[D]")) if len(found.time) else None,
        "end": str(found.time[-1].astype("datetime64[D]")) if len(found.time) else None,
        "bars": session.steps,
        "orders": session.orders,
        "fills": session.fills,
        "capital": float(request.capital),
        "final_equity": float(session.equity),
        "metrics": None if told.metrics is None else told.metrics.as_dict(),
        "ledger_hash": session.ledger_hash,
        "certificate": certificate.as_dict(),
        "result_hash": hashlib.sha256(f"gpt-trader session 1\n{text}".encode()).hexdigest(),
        "warnings": [],
    }


def _equity_table(found: Record) -> pa.Table:
    return pa.table({"time": pa.array(found.time), "equity": found.equity, "cash": found.cash})


def _trades_table(found: Record) -> pa.Table:
    rows: dict[str, list[Any]] = {
        name: [getattr(trade, name) for trade in found.trades]
        for name in ("leg", "symbol", "side", "size", "entry_price", "exit_price", "pnl", "return_", "bars")
    }
    rows |= {"exit_reason": [trade.exit_reason for trade in found.trades]}
    times = {
        name: pa.array([getattr(trade, name) for trade in found.trades], type=pa.timestamp("us"))
        for name in ("entry_time", "exit_time")
    }
    return pa.table({**times, **rows})


def _fills_table(events: list[LedgerEvent]) -> pa.Table:
    names = ("time", "leg", "symbol", "units", "price", "reference", "commission", "purpose", "order_id")
    fills = [event.data for event in events if event.type == "fill"]
    return pa.table({name: [fill[name] for fill in fills] for name in names})


def publish(run: CurrentRun, shown: Mapping[str, Any]) -> None:
    """Show where the session stands as an artifact of the flow run in the Prefect UI."""
    certificate = shown["certificate"]
    rows = [
        f"| {name.replace('_', ' ')} | {shown[name]} |"
        for name in ("state", "bars", "orders", "fills", "final_equity")
    ]
    run_artifact(
        run,
        [
            f"## {shown['name']}",
            f"Session `{shown['session_id']}`, {shown['start']} to {shown['end']}",
            "",
            "| | |",
            "|---|---:|",
            *rows,
            f"| certificate | {certificate['verdict']} |",
            "",
            *report_lines(run),
            f"Ledger `{shown['ledger_hash']}`",
        ],
    )
