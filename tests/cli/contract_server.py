"""A real HTTP server on loopback that speaks the contract of the API (docs/architecture.md), with fault switches.

It checks requests with the program's own models, keeps runs and their events by `epoch:offset`, and streams them
as server-sent events. What a run does depends on its symbol: `FAIL` fails, `SLOW` runs until it is cancelled,
`STUCK` cannot be cancelled, `WAITS` begins when somebody has asked for the worker, anything else completes.
"""

from __future__ import annotations

import json
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from gpt_trader.backtesting.findings import Finding, Length, StrategyCheck, WarmUp
from gpt_trader.comparison.comparing import compare
from gpt_trader.comparison.contenders import Contender, contender
from gpt_trader.errors import Conflict, Denied, GptTraderError, NotFound, Problem, Refused, UnknownName
from gpt_trader.slices import SLICES
from gpt_trader.strategies.check_request import CheckRequest
from gpt_trader.validation import validated
from tests.cli.contract_sessions import Sessions

KEY = "gtk_a-key-of-the-tests"
METRICS: dict[str, Any] = {
    "total_return": 0.5,
    "annualized_return": 0.1,
    "annualized_volatility": 0.2,
    "sharpe": 0.75,
    "sortino": 1.1,
    "calmar": None,
    "max_drawdown": -0.25,
    "win_rate": 0.5,
    "profit_factor": 1.25,
    "trades": 42,
    "exposure": 0.61,
    "final_equity": 15000.0,
    "benchmark_return": 0.9,
}


@dataclass
class Run:
    """One run and what has been told of it."""

    id: str
    flow: str
    request: dict[str, Any]
    state: str = "SCHEDULED"
    message: str | None = None
    reproduces: str | None = None
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def tell(self, kind: str, **values: Any) -> None:
        self.events.append((kind, values))
        if kind == "state":
            self.state, self.message = values["state"], values.get("message")


def _set(event: threading.Event) -> threading.Event:
    event.set()
    return event


@dataclass
class Contract:
    """The server's memory, its fault switches, and a record of what was asked of it."""

    key: str = KEY
    runs: dict[str, Run] = field(default_factory=dict)
    by_key: dict[str, str] = field(default_factory=dict)
    strategies: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    resumed_after: list[str | None] = field(default_factory=list)
    #: Cut the event stream after so many events, once for each entry.
    cuts: list[int] = field(default_factory=list)
    #: Drop the connection after a run was accepted, before the answer, so many times.
    lost_answers: int = 0
    #: Until it is set, a run that was accepted gets no answer.
    answering: threading.Event = field(default_factory=lambda: _set(threading.Event()))
    #: Where a run's report is, as its result says.
    report: str = "/runs/report.html"
    #: What a reproduced run has otherwise than its original, as the API says it.
    differences: list[dict[str, Any]] = field(default_factory=list)
    #: Its result hash: the original's, unless a test says otherwise.
    reproduced_hash: str = "f" * 64
    #: The lake's snapshots, newest first, as the API shows each.
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    #: Answer 404 to the event stream: an older server.
    without_stream: bool = False
    #: Symbols that the lake lacks until they are ingested.
    lacking: set[str] = field(default_factory=set)
    sessions: Sessions = field(default_factory=Sessions)
    changed: threading.Condition = field(default_factory=threading.Condition)
    url: str = ""

    def start(self, flow: str, body: dict[str, Any], key: str, reproduces: str | None = None) -> Run:
        request = validated(SLICES[flow].request_type(), body)
        with self.changed:
            if key in self.by_key:
                return self.runs[self.by_key[key]]
            run = Run(str(uuid.uuid4()), flow, request.model_dump(mode="json"), reproduces=reproduces)
            self.by_key[key] = run.id
            self.runs[run.id] = run
            if flow == "paper_trade":
                self.sessions.begin(run.id, run.request)
            self._play(run, request)
            self.changed.notify_all()
        return run

    def cancel(self, run: Run) -> None:
        with self.changed:
            if run.state in ("COMPLETED", "FAILED", "CANCELLED"):
                raise Conflict(f"run {run.id} has ended already: it is {run.state}")
            run.tell("state", state="CANCELLING", name="Cancelling", message=None)
            if run.request.get("symbol") != "STUCK":
                run.tell("state", state="CANCELLED", name="Cancelled", message="cancelled by local")
            self.changed.notify_all()

    def begin_all(self) -> None:
        """Let what waits for a worker begin."""
        with self.changed:
            for run in self.runs.values():
                if run.state == "SCHEDULED":
                    self._play(run, validated(SLICES[run.flow].request_type(), run.request), begun=True)
            self.changed.notify_all()

    @staticmethod
    def _play(run: Run, request: Any, *, begun: bool = False) -> None:
        if getattr(request, "symbol", "") == "WAITS" and not begun:
            run.tell("state", state="SCHEDULED", name="Scheduled", message=None)
            return
        run.tell("state", state="PENDING", name="Pending", message=None)
        run.tell("state", state="RUNNING", name="Running", message=None)
        run.tell("log", level="INFO", message="reading bars")
        run.tell("progress", stage="bars", done=0, total=4, message=None)
        symbol = next((leg.symbol for leg in getattr(request, "legs", ())), getattr(request, "symbol", ""))
        if symbol in ("SLOW", "STUCK"):
            return
        if symbol == "EMPTY":
            message = "Flow run encountered an exception: NotEnoughBars: start: no bars in this range"
            run.tell("state", state="FAILED", name="Failed", message=message)
            return
        if symbol == "FAIL":
            run.tell("log", level="ERROR", message="no bars of FAIL")
            run.tell(
                "state",
                state="FAILED",
                name="Failed",
                message="symbol: 'FAIL' is not known; allowed: AAPL, MSFT",
            )
            return
        run.tell("progress", stage="done", done=4, total=4, message=None)
        run.tell("result", result_hash="f" * 64, metrics=METRICS)
        run.tell("state", state="COMPLETED", name="Completed", message=None)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    contract: Contract

    def log_message(self, *args: Any) -> None:
        """Stay silent: stderr belongs to the tests."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.contract.asked.append((self.command, self.path))
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        try:
            if self.headers.get("Authorization") != f"Bearer {self.contract.key}":
                raise _unauthenticated()
            body = json.loads(raw) if raw else None
            self.contract.bodies.append(body)
            path = [unquote(part) for part in parts.path.removeprefix("/api/v1/").split("/")]
            self._route(path, parse_qs(parts.query), body)
        except GptTraderError as error:
            self._problem(error)

    def _route(self, path: list[str], query: dict[str, list[str]], body: Any) -> None:
        match (self.command, *path):
            case ("POST", "strategies", "backtest"):
                self._start("backtest", body)
            case ("POST", "strategies", "optimize"):
                self._start("optimize", body)
            case ("POST", "portfolio", "backtest"):
                self._start("portfolio", body)
            case ("POST", "paper-trade", "sessions"):
                self._start("paper_trade", body)
            case ("POST", "paper-trade", "certificates"):
                self._start("paper_certificate", body)
            case ("POST", "paper-trade", "daily"):
                self._start("paper_daily", body)
            case (_, "paper-trade", "sessions", *below):
                self._json(*self.contract.sessions.answer(self.command, below, query))
            case ("POST", "strategies", name, "check"):
                self._check(name, body)
            case ("POST", "market", "ingest"):
                self.contract.lacking -= set(body["symbols"])
                self._start("data", body)
            case ("POST", "workflows", name, "runs"):
                self._start(name, body)
            case ("POST", "strategies"):
                self.contract.strategies[body["filename"]] = body["source"]
                self._json(201, {"filename": body["filename"]})
            case ("GET", "system", "health", "ready"):
                worker = {"state": "down", "detail": "no worker is running"}
                self._json(200, {"status": "ready", "parts": {"worker": worker}})
                self.contract.begin_all()
            case ("GET", "workflows"):
                self._json(200, _listing([_workflow(name) for name in SLICES]))
            case ("GET", "workflows", "runs"):
                self._runs(query)
            case ("GET", "workflows", "runs", run_id):
                self._json(200, {**self._view(self._run(run_id)), "snapshot_id": "s1"})
            case ("GET", "workflows", "runs", run_id, "events"):
                self._events(self._run(run_id))
            case ("GET", "workflows", "runs", run_id, "result"):
                self._json(200, self._result(self._run(run_id)))
            case ("GET", "workflows", "runs", run_id, "report"):
                self._run(run_id)
                self._send(200, b"<html>the report</html>", **{"Content-Type": "text/html"})
            case ("GET", "workflows", "runs", run_id, "logs"):
                lines = [values for kind, values in self._run(run_id).events if kind == "log"]
                self._json(200, _listing([{"at": "2026-01-02T03:04:05Z", **line} for line in lines]))
            case ("POST", "workflows", "runs", run_id, "cancel"):
                run = self._run(run_id)
                self.contract.cancel(run)
                self._json(202, self._view(run))
            case ("POST", "workflows", "runs", run_id, "reproduce"):
                before = self._run(run_id)
                self._start(before.flow, before.request, reproduces=run_id)
            case ("GET", "workflows", "runs", run_id, "reproduction"):
                self._json(200, self._reproduction(self._run(run_id)))
            case ("GET", "workflows", name):
                if name not in SLICES:
                    raise NotFound(f"no workflow {name}")
                self._json(200, _workflow(name))
            case ("GET", "market", "snapshots"):
                names = ("id", "created_at", "parent")
                listed = [{name: each[name] for name in names} for each in self.contract.snapshots]
                self._json(200, _listing(listed))
            case ("GET", "market", "snapshots", wanted):
                self._snapshot(wanted)
            case ("POST", "market", "collect"):
                self._collect(body)
            case ("GET", "market", "symbols"):
                self._json(200, _listing([_symbol("AAPL", 2), _symbol("MSFT", 0)]))
            case ("GET", "market", "bars", symbol):
                self._bars(symbol)
            case ("GET", "strategies", "compare"):
                self._compare(query)
            case ("GET", "strategies"):
                self._json(200, _listing([{"name": "theirs", "summary": "a plugin", "origin": "plugin"}]))
            case _:
                raise NotFound(f"{self.command} {self.path} does not exist")

    def _result(self, run: Run) -> dict[str, Any]:
        if run.state == "COMPLETED" and run.flow in ("paper_trade", "paper_certificate"):
            return self.contract.sessions.result(run.id, run.request)
        if run.state == "COMPLETED" and run.flow == "paper_daily":
            return self.contract.sessions.day(run.id)
        return _result(run, self.contract.report)

    def _compare(self, query: dict[str, list[str]]) -> None:
        runs = [self._run(run_id) for run_id in query["runs"]]
        found = compare([_contender(run) for run in runs], query.get("sort", [None])[0])
        if "text/html" in self.headers.get("Accept", ""):
            self._send(200, b"<html>compared</html>", **{"Content-Type": "text/html"})
        else:
            self._json(200, found.document(50))

    def _check(self, name: str, body: Any) -> None:
        asked = validated(CheckRequest, body)
        if asked.symbol in self.contract.lacking:
            raise UnknownName.among("symbol", asked.symbol, ["MSFT"])
        self._json(200, _checked(name, asked.model_dump(mode="json")))

    def _start(self, flow: str, body: Any, *, reproduces: str | None = None) -> None:
        key = self.headers.get("Idempotency-Key")
        if not key:
            raise Refused.of(Problem("Idempotency-Key", None, "is missing"))
        if flow not in SLICES:
            raise NotFound(f"no workflow {flow}")
        run = self.contract.start(flow, body, key, reproduces)
        if self.contract.lost_answers:
            self.contract.lost_answers -= 1
            self.close_connection = True
            self.connection.close()
            return
        self.contract.answering.wait(20)
        accepted = {"run_id": run.id, "flow": flow, "state": "SCHEDULED", "links": self._links(run)}
        self._json(202, accepted, Location=self._links(run)["self"])

    def _runs(self, query: dict[str, list[str]]) -> None:
        runs = list(self.contract.runs.values())[::-1]
        states = query.get("state")
        found = [self._view(run) for run in runs if not states or run.state in states]
        first = int(query.get("cursor", ["0"])[0])
        page = found[first : first + 2]
        more = str(first + 2) if first + 2 < len(found) else None
        self._json(200, {"items": page, "next_cursor": more})

    def _reproduction(self, run: Run) -> dict[str, Any]:
        if run.reproduces is None:
            raise NotFound(f"run {run.id} reproduces no other")
        return {
            "run_id": run.id,
            "original_run_id": run.reproduces,
            "snapshot_id": "s1",
            "result_hash": self.contract.reproduced_hash,
            "equal": self.contract.reproduced_hash == "f" * 64,
            "differences": self.contract.differences,
        }

    def _snapshot(self, wanted: str) -> None:
        for each in self.contract.snapshots:
            if each["id"] == wanted and not each.get("collected"):
                return self._json(200, each)
        raise NotFound(f"no snapshot {wanted}")

    def _collect(self, body: Any) -> None:
        done = {"snapshots": ["a" * 32, "b" * 32], "files": 3, "bytes": 1_250_000, "kept": 5}
        days = body["older_than_days"]
        self._json(200, {"dry_run": body["dry_run"], "older_than_days": 90 if days is None else days} | done)

    def _bars(self, symbol: str) -> None:
        if symbol != "AAPL":
            raise NotFound(f"no bars of {symbol}")
        columns = {"time": ["2005-01-03T00:00:00Z", "2005-01-04T00:00:00Z"]}
        columns |= {name: [1.0, 2.0] for name in ("open", "high", "low", "close", "volume")}
        self._json(
            200, {"symbol": symbol, "timeframe": "1d", "bars": 2, "truncated": False, "columns": columns}
        )

    def _events(self, run: Run) -> None:
        if self.contract.without_stream:
            raise NotFound("GET …/events does not exist")
        last = self.headers.get("Last-Event-ID")
        self.contract.resumed_after.append(last)
        offset = int(last.rpartition(":")[2]) if last else 0
        if offset == len(run.events) and run.state in ("COMPLETED", "FAILED", "CANCELLED"):
            self.send_response(204)
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        cut = self.contract.cuts.pop(0) if self.contract.cuts else None
        while True:
            with self.contract.changed:
                self.contract.changed.wait_for(lambda after=offset: len(run.events) > after, timeout=20)
                kind, values = run.events[offset]
            offset += 1
            self._chunk(
                f"id: epoch:{offset}\nevent: {kind}\ndata: {json.dumps(values)}\n\n: heartbeat\n\n".encode()
            )
            if cut is not None and (cut := cut - 1) == 0:
                self.close_connection = True
                return
            if kind == "state" and values["state"] in ("COMPLETED", "FAILED", "CANCELLED"):
                self._chunk(b"")
                return

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")

    def _run(self, run_id: str) -> Run:
        if run_id not in self.contract.runs:
            raise NotFound(f"no run {run_id}")
        return self.contract.runs[run_id]

    def _view(self, run: Run) -> dict[str, Any]:
        return {
            "run_id": run.id,
            "name": run.flow,
            "flow": run.flow,
            "state": run.state,
            "message": run.message,
            "owner": "local",
            "tags": ["owner:local"],
            "request": run.request,
            "created_at": "2026-01-02T03:04:05Z",
            "links": self._links(run),
        }

    def _links(self, run: Run) -> dict[str, str]:
        here = f"/api/v1/workflows/runs/{run.id}"
        parts = ("events", "result", "report", "logs", "cancel")
        prefect = f"http://127.0.0.1:4200/runs/flow-run/{run.id}"
        return {"self": here, "prefect": prefect} | {part: f"{here}/{part}" for part in parts}

    def _json(self, status: int, value: Any, **headers: str) -> None:
        kind = "application/json" if status < 400 else "application/problem+json"
        self._send(status, json.dumps(value).encode(), **{"Content-Type": kind}, **headers)

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, header in headers.items():
            self.send_header(name, header)
        self.end_headers()
        self.wfile.write(content)

    def _problem(self, error: GptTraderError) -> None:
        document = {
            "type": f"urn:gpt-trader:problem:{error.type}",
            "title": error.title,
            "status": error.http_status,
            "detail": error.detail,
            "request_id": "req-1",
            "errors": [problem.as_dict() for problem in error.problems],
        }
        self._json(error.http_status, document)


class _Unauthenticated(Denied):
    type = "unauthenticated"
    http_status = 401


def _unauthenticated() -> GptTraderError:
    return _Unauthenticated("nobody knows this key")


def _listing(items: list[Any]) -> dict[str, Any]:
    return {"items": items, "next_cursor": None}


def _symbol(symbol: str, bars: int) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "name": "",
        "timeframe": "1d",
        "stored": bars > 0,
        "source": "sample",
        "bars": bars,
    }


def _workflow(name: str) -> dict[str, Any]:
    row = SLICES[name]
    return {
        "name": name,
        "summary": row.summary,
        "route": row.route,
        "command": row.command,
        "request_schema": row.request_type().model_json_schema(),
    }


def _result(run: Run, report: str) -> dict[str, Any]:
    if run.state != "COMPLETED":
        raise Conflict(f"run {run.id} is {run.state}")
    if run.flow == "data":
        counts = {"added": 2, "restated": 0, "unchanged": 0, "quarantined": 0}
        said = {"quality": "ok", "reasons": {}, "remarks": [], "error": None}
        series = [
            {"symbol": symbol, "timeframe": "1d", "source": "csv", **counts, **said}
            for symbol in run.request["symbols"]
        ]
        found = {"series": series, "failed": 0, "skipped": [], "findings": []}
        return {"run_id": run.id, "flow": "data", "state": run.state, "snapshot_id": "s1", **found}
    if run.flow == "optimize":
        return _optimized(run, report)
    if run.flow == "portfolio":
        return _allocated(run, report)
    return {
        "run_id": run.id,
        "flow": run.flow,
        "state": run.state,
        "symbol": run.request["symbol"],
        "strategy": run.request["strategy"],
        "params": run.request["params"],
        "snapshot_id": "s1",
        "result_hash": "f" * 64,
        "start": "2005-01-03T00:00:00Z",
        "end": "2012-12-31T00:00:00Z",
        "bars": 2013,
        "metrics": METRICS,
        "artifacts": {"report": report, "equity": "/runs/equity.parquet", "trades": None},
    }


def _allocated(run: Run, report: str) -> dict[str, Any]:
    request = run.request
    share = 1 / len(request["symbols"])
    holdings = [
        {
            "symbol": symbol,
            "weight": share,
            "average_weight": share,
            "highest_weight": 0.5,
            "target": share,
            "pnl": 1000.0 * place,
            "costs": 12.5,
            "fills": 96,
            "trades": 50,
            "first": "2005-01-03T00:00:00Z",
            "last": "2012-12-31T00:00:00Z",
        }
        for place, symbol in enumerate(request["symbols"])
    ]
    return {
        "run_id": run.id,
        "flow": "portfolio",
        "state": run.state,
        **{
            name: request[name] for name in ("symbols", "weights", "strategy", "params", "rebalance", "drift")
        },
        "snapshot_id": "s1",
        "result_hash": "f" * 64,
        "start": "2005-01-03",
        "end": "2012-12-31",
        "bars": 2013,
        "metrics": METRICS,
        "final_equity": METRICS["final_equity"],
        "turnover": 0.7,
        "rebalances": 96,
        "fills": 192,
        "holdings": holdings,
        "warnings": [],
        "artifacts": {"report": report, "equity": "/runs/equity.parquet", "trades": "/runs/trades.parquet"},
    }


def _contender(run: Run) -> Contender:
    """Return a run as the API compares it; the higher its seed, the higher its Sharpe ratio."""
    summary = _result(run, "")
    place = run.request.get("seed", 0)
    if run.flow == "backtest":
        summary["metrics"] = {**METRICS, "sharpe": 0.5 + place}
    time = np.arange("2005-01-03", 5, dtype="datetime64[D]").astype("datetime64[us]")
    equity = 10_000 * np.cumprod([1.0, 1.1, 0.9, 1.2 + place, 1.0])
    return contender(run.id, run.flow, run.request, summary, (time, equity))


def _checked(name: str, request: dict[str, Any]) -> dict[str, Any]:
    finding = Finding(
        check="look-ahead",
        severity="error",
        bar="2005-01-04T00:00:00Z",
        column="close",
        message="it reads the close of bars to come",
    )
    short = Length(bars=20, times=1, starts=122, differing=41, largest=1.0, first="2005-01-03T00:00:00Z")
    return StrategyCheck(
        strategy=name,
        params=request["params"],
        direction=request["direction"],
        symbol=request["symbol"],
        timeframe=request["timeframe"],
        snapshot_id="s1",
        start="2005-01-03T00:00:00Z",
        end="2012-12-31T00:00:00Z",
        bars=2013,
        history=1200,
        verdict="problems",
        findings=(finding,),
        cuts=64,
        warmup=WarmUp(declared=20, suffices=False, stable_from=100, lengths=(short,)),
        entries=42,
    ).model_dump(mode="json")


def _optimized(run: Run, report: str) -> dict[str, Any]:
    request = run.request
    top = [_choice(fast, objective) for fast, objective in ((10, 0.75), (5, 0.5))]
    walked = {
        "windows": 8,
        "anchored": False,
        "purge": 0,
        "embargo": (request["walk_forward"] or {}).get("embargo", 0),
        "bars": 1336,
        "total_return": 0.31,
        "annualized_return": 0.05,
        "sharpe": 0.4,
        "max_drawdown": -0.3,
        "trades": 40,
        "efficiency": None,
        "consistency": 0.625,
        "robustness": 0.5,
        "each": [{"params": None, "test_return": 0.0, "trades": 0}],
    }
    stopped = {"patience": request["patience"], "trials": 16, "of": 200, "best_trial": 6}
    judged = {
        "trials": 14,
        "effective_trials": 3.5,
        "sharpe": 0.75,
        "expected_by_luck": 0.21,
        "held_sharpe": 1.1,
        "probabilistic_sharpe": 0.99,
        "deflated_sharpe": 0.93,
        "min_track_record": None,
        "bars": 2013,
        "pbo": 0.4,
        "loss_probability": 0.125,
        "neighborhood": 0.9,
        "verdict": "reject",
        "reasons": ["The probability that it is more than luck is 93% (deflated Sharpe ratio)."],
    }
    return {
        **{name: request[name] for name in ("symbol", "strategy", "direction", "method", "objective")},
        "run_id": run.id,
        "flow": run.flow,
        "state": run.state,
        "space": {"fast": [5, 10], "slow": [20, 30]},
        "snapshot_id": "s1",
        "result_hash": "f" * 64,
        "start": "2005-01-03",
        "end": "2012-12-31",
        "bars": 2013,
        "trials": {"run": 13, "skipped": 2, "failed": 1},
        "stopped": stopped if request["patience"] else None,
        "optuna_study": "AAPL ma_crossover 0123456789abcdef" if request["method"] == "tpe" else None,
        "verified": 12,
        "reasons": [{"reason": "params: fast 20 must be below slow 20", "trials": 2, "first": 12}],
        "best": top[0],
        "top": top,
        "overfitting": judged,
        "walk_forward": walked if request["walk_forward"] else None,
        "warnings": ["[2 bars] are missing"],
        "artifacts": {"report": report, "trials": "/runs/trials.parquet"},
    }


def _choice(fast: int, objective: float) -> dict[str, Any]:
    params = {"fast": fast, "slow": 30}
    return {"params": params, "objective": objective, "metrics": METRICS, "result_hash": "e" * 64}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        """Stay silent where a client hangs up, as one does that has seen a run's last state."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*args)


@contextmanager
def serving(contract: Contract) -> Iterator[Contract]:
    """Serve the contract on a free port of loopback."""
    handler = type("BoundHandler", (Handler,), {"contract": contract})
    server = _Server(("127.0.0.1", 0), handler)
    contract.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield contract
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
