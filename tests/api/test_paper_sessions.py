"""Paper sessions over the API: begun, watched, killed, gone on with, told to stop; real runs in real processes."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from api.principals import Principal
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars
from gpt_trader.settings import Home
from gpt_trader.trading.orders import plain
from storage.cluster import Cluster
from storage.session_ledger import load
from storage.sessions import SessionStore
from tests.api.account_samples import account_settings
from tests.api.conftest import OTHERS, Engine, Prefect, fill_lake, serving
from tests.api.session_samples import (
    ASKED,
    Worker,
    begin,
    end,
    expire_lease,
    run_of,
    shown,
    written_down,
)
from tests.api.sockets import Plain
from tests.api.test_health_and_errors import problem
from tests.waiting import eventually

pytestmark = pytest.mark.house

BOB = {"Authorization": "Bearer key-of-bob"}
SESSIONS = "/paper-trade/sessions"


@pytest.fixture
def tia() -> Iterator[dict[str, str]]:
    """The headers of somebody who may read and trade, and nothing else."""
    key = f"key-of-tia-{uuid4().hex[:8]}"
    OTHERS.hand_out(key, Principal("user:7f3b6f0e-6a5e-4a52-9a57-1f0f2f0d9c11", frozenset({"read", "trade"})))
    yield {"Authorization": f"Bearer {key}"}
    OTHERS.take_back(key)


@pytest.fixture(scope="module")
def worker(engine_api: Engine, prefect: Prefect) -> Iterator[Worker]:
    found = Worker(engine_api, prefect)
    yield found
    found.close()


class Watcher:
    """A client that notes everything that it gets, and when."""

    def __init__(self, engine: Engine) -> None:
        self.client = Plain(engine, engine.key)
        self.got: list[tuple[float, dict[str, Any]]] = []
        for channel in ("trades.live", "portfolio.updates", "system.events"):
            answer = self.client.subscribe(channel)
            assert answer["type"] == "subscribed", answer
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            while True:
                message = self.client.take(seconds=300)
                self.got.append((time.time(), message))
        except (ConnectionClosed, TimeoutError):
            return

    def of(self, channel: str, session_id: str, *types: str) -> list[tuple[float, dict[str, Any]]]:
        """Return the publications of a channel about a session."""
        return [
            (at, message)
            for at, message in list(self.got)
            if message["type"] == "publication"
            and message["channel"] == channel
            and message["data"].get("session_id") == session_id
            and (not types or message["event"] in types)
        ]

    def close(self) -> None:
        self.client.socket.close()
        self._thread.join(5)


@pytest.fixture
def watcher(engine_api: Engine) -> Iterator[Watcher]:
    found = Watcher(engine_api)
    yield found
    found.close()


def fills_of(engine: Engine, session_id: str) -> list[dict[str, Any]]:
    return list(reversed(shown(engine, session_id, "fills", limit=500)["items"]))


def test_a_killed_session_goes_on_by_itself_and_a_client_sees_each_fill_once(
    engine_api: Engine, prefect: Prefect, worker: Worker, watcher: Watcher, figure: Callable[[str], None]
) -> None:
    begun = begin(engine_api, speed=8e6)  # a bar each 11 ms
    session_id, run_id = begun["session_id"], begun["run_id"]
    assert session_id == run_id
    pid = worker.begin(run_id)
    eventually(lambda: len(watcher.of("trades.live", session_id, "fill")) >= 8, seconds=90, what="fills")
    os.kill(pid, signal.SIGKILL)
    killed_at = time.time()
    eventually(lambda: not Path(f"/proc/{pid}").exists(), what="the process's end")
    before = shown(engine_api, session_id)
    assert before["state"] == "active"
    expire_lease(engine_api, session_id)

    resumed = run_of(engine_api, session_id)

    # Nobody told Prefect that the process is gone: the keeper did.
    eventually(
        lambda: prefect.http.get(f"/flow_runs/{run_id}").json()["state"]["type"] == "CRASHED",
        what="the orphaned run's end",
    )
    assert engine_api.http.get(f"/workflows/runs/{resumed}").json()["owner"] == "local"
    worker.run(resumed)
    eventually(lambda: watcher.of("system.events", session_id, "session.ended"), what="the session's end")

    after = shown(engine_api, session_id)
    assert after["state"] == "completed"
    assert after["certificate"] == {
        "verdict": "equal",
        "events": after["events"],
        "bars": after["bars"],
        "grown": False,
        "missed": 0,
    }
    assert before["fills"] < after["fills"]
    got = [message["data"] for _, message in watcher.of("trades.live", session_id, "fill")]
    fills = fills_of(engine_api, session_id)
    assert [each["execution_id"] for each in got] == [each["execution_id"] for each in fills]
    assert len({each["execution_id"] for each in got}) == after["fills"]
    offsets = [message["offset"] for _, message in watcher.of("trades.live", session_id)]
    assert offsets == sorted(set(offsets))
    last = watcher.of("portfolio.updates", session_id)[-1][1]["data"]
    assert (last["equity"], last["status"]) == (after["equity"], "completed")
    states = [message["event"] for _, message in watcher.of("system.events", session_id)]
    assert states[0] == "session.begun"
    assert states[-1] == "session.ended"
    _say_latency(engine_api, watcher, session_id, killed_at, figure)

    undisturbed = begin(engine_api)["session_id"]
    worker.run(undisturbed)
    whole = fills_of(engine_api, undisturbed)
    assert [_same(each) for each in whole] == [_same(each) for each in fills]
    for name in ("time", "equity", "cash"):
        curves = [shown(engine_api, each, "equity")[name] for each in (session_id, undisturbed)]
        assert curves[0] == curves[1]


def _same(fill: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fill.items() if name not in ("number", "order_id", "execution_id")}


def _say_latency(
    engine: Engine, watcher: Watcher, session_id: str, killed_at: float, figure: Callable[[str], None]
) -> None:
    events = SessionStore(engine.context.database).events(UUID(session_id), types=("fill",))
    committed = {each.data["execution_id"]: each.at.timestamp() for each in events}
    took = [
        1000 * (at - since)
        for at, message in watcher.of("trades.live", session_id, "fill")
        # What was committed in the kill's last moment is told when the session goes on.
        if not killed_at - 0.5 < (since := committed[message["data"]["execution_id"]]) < killed_at
    ]
    p50, p95 = np.percentile(took, [50, 95])
    figure(f"a fill's commit to the client: p50 {p50:.1f} ms, p95 {p95:.1f} ms ({len(took)} fills)")
    assert p50 < 1000


def test_a_session_by_schedule_is_seen_whole_and_stops_when_told(engine_api: Engine, worker: Worker) -> None:
    begun = begin(engine_api, feed="schedule", stop_loss=0.2)
    session_id = begun["session_id"]
    worker.run(begun["run_id"])

    view = shown(engine_api, session_id)
    assert (view["state"], view["feed"], view["traded"]) == ("active", "schedule", False)
    _look_at_ledger(engine_api, session_id, view)
    _look_at_portfolio(engine_api, session_id)

    paused = engine_api.http.post(f"{SESSIONS}/{session_id}/pause")
    assert paused.status_code == 202, paused.text
    stopping = engine_api.http.delete(f"{SESSIONS}/{session_id}")
    assert stopping.status_code == 202, stopping.text
    assert paused.json()["run"]["run_id"] == stopping.json()["run"]["run_id"], "one run obeys both"
    worker.run(stopping.json()["run"]["run_id"])

    after = shown(engine_api, session_id)
    assert after["state"] == "stopped"
    assert "stopped by local" in after["reason"]
    assert after["certificate"]["grown"] is False
    problem(engine_api.http.post(f"{SESSIONS}/{session_id}/resume"), 409, "conflict")
    told = engine_api.http.get("/system/audit", params={"limit": 10}).json()["items"]
    mine = [each["event"] for each in told if each["details"].get("session_id") == session_id]
    assert mine == ["session.stop", "session.pause"]
    listed = engine_api.http.get(SESSIONS, params={"state": "open", "limit": 200}).json()["items"]
    assert session_id not in {each["session_id"] for each in listed}


def _look_at_ledger(engine: Engine, session_id: str, view: dict[str, Any]) -> None:
    """Compare what is shown with the fold of the whole ledger."""
    ledger, _ = load(engine.context.database, UUID(session_id), snapshots=False)
    state = ledger.state
    positions = shown(engine, session_id, "positions")
    assert (positions["cash"], positions["equity"]) == (plain(state.cash), view["equity"])
    held = {each["leg"]: Decimal(each["units"]) for each in positions["items"]}
    assert held == {number: leg.units for number, leg in enumerate(state.legs) if leg.units}
    assert held, "the sample holds something at its end"
    for each in positions["items"]:
        assert each["close"] == state.closes[each["symbol"]]
        assert Decimal(each["value"]) == state.value_of(each["leg"])
        assert Decimal(each["entry_price"]) == state.legs[each["leg"]].entry_price

    orders = shown(engine, session_id, "orders", limit=500)["items"]
    assert len(orders) == view["orders"]
    working = {each["id"] for each in orders if each["state"] in ("sent", "working", "partially_filled")}
    assert working == set(state.working)
    filled = {each["order_id"] for each in fills_of(engine, session_id)}
    assert {each["id"] for each in orders if each["state"] == "filled"} == filled
    first = shown(engine, session_id, "orders", limit=3)
    second = shown(engine, session_id, "orders", limit=3, cursor=first["next_cursor"])
    assert [*first["items"], *second["items"]] == orders[:6]

    pages, after = [], 0
    while after is not None:
        page = shown(engine, session_id, "equity", limit=70, after=after)
        pages.append(page)
        after = page["next_after"]
    equity = [value for page in pages for value in page["equity"]]
    assert len(equity) == view["bars"]
    assert equity[-1] == view["equity"]

    certificate = shown(engine, session_id, "certificate")
    assert certificate["certificate"]["verdict"] == "equal"
    assert (certificate["events"], certificate["bars"]) == (view["events"], view["bars"])
    path = f"{SESSIONS}/{session_id}"
    tag = engine.http.get(path).headers["ETag"]
    assert engine.http.get(path, headers={"If-None-Match": tag}).status_code == 304


def _look_at_portfolio(engine: Engine, session_id: str) -> None:
    http = engine.http
    whole = http.get("/portfolio").raise_for_status().json()
    (mine,) = [each for each in whole["sessions"] if each["session_id"] == session_id]
    (total,) = [each for each in whole["totals"] if each["currency"] == "USD"]
    none = http.get("/portfolio", params={"limit": 0}).raise_for_status().json()
    assert (none["sessions"], none["open_sessions"]) == ([], len(whole["sessions"]))
    assert Decimal(total["equity"]) >= Decimal(mine["equity"])
    positions = http.get("/portfolio/positions").raise_for_status().json()["items"]
    held = [each for each in positions if each["session_id"] == session_id]
    assert held == shown(engine, session_id, "positions")["items"]
    (exposure,) = [
        each for each in http.get("/portfolio/exposure").json()["items"] if each["currency"] == "USD"
    ]
    assert Decimal(exposure["gross"]) == sum(abs(Decimal(each["value"])) for each in positions)
    trades = http.get("/portfolio/trades", params={"session": session_id, "limit": 1000}).json()["items"]
    assert trades[0]["exit_time"] is None
    fills = len(fills_of(engine, session_id))
    assert 2 * len(trades) - 1 == fills
    curves = http.get("/portfolio/equity", params={"limit": 5}).json()["items"]
    (curve,) = [each for each in curves if each["currency"] == "USD"]
    assert len(curve["time"]) == len(curve["equity"]) == len(curve["sessions"])
    with Plain(engine, engine.key) as client:
        assert client.subscribe("portfolio.updates")["type"] == "subscribed"
        (snapshot,) = client.take_until(lambda message: message["type"] == "snapshot")
        (standing,) = [each for each in snapshot["data"]["sessions"] if each["session_id"] == session_id]
        assert (standing["equity"], standing["cash"]) == (mine["equity"], mine["cash"])
        assert standing["positions"] == {"ACME": held[0]["units"]}
        assert snapshot["data"]["omitted"] == 0


def test_a_snapshot_of_thousands_of_sessions_fits_and_says_what_it_leaves_out(
    engine_api: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [{"session_id": str(uuid4()), "number": n, "filler": "x" * 250} for n in range(4_000)]
    views = engine_api.context.sessions.views
    monkeypatch.setattr(views, "standings", lambda owner: many)
    with Plain(engine_api, engine_api.key) as client:
        client.subscribe("portfolio.updates")
        (snapshot,) = client.take_until(lambda message: message["type"] == "snapshot")
    data = snapshot["data"]
    assert [each["number"] for each in data["sessions"]] == list(range(4_000 - data["omitted"]))
    assert 0 < data["omitted"] < 4_000
    assert 500 * 1024 < len(json.dumps(data["sessions"], separators=(",", ":"))) <= 520 * 1024


def test_whoever_starts_a_session_needs_the_scope_trade(engine_api: Engine, tia: dict[str, str]) -> None:
    http = engine_api.http
    for path in (SESSIONS, "/workflows/paper-trade/runs"):
        denied = problem(http.post(path, json=ASKED, headers=BOB), 403, "denied")
        assert "'trade'" in denied["detail"]
        begun = http.post(path, json=ASKED, headers=tia)
        assert begun.status_code == 202, begun.text
    problem(http.post("/strategies/backtest", json={"symbol": "ACME"}, headers=tia), 403, "denied")
    cancelled = http.post(f"/workflows/runs/{begun.json()['run_id']}/cancel", headers=tia)
    assert cancelled.status_code == 202
    key = {"Idempotency-Key": uuid4().hex}
    twice = [begin(engine_api, tia | key)["session_id"] for _ in range(2)]
    assert twice[0] == twice[1]


def test_a_request_is_checked_before_a_run_is_started(engine_api: Engine) -> None:
    def refused(**more: Any) -> dict[str, Any]:
        answer = engine_api.http.post(SESSIONS, json=ASKED | more)
        assert answer.status_code == 422, answer.text
        (first, *_) = problem(answer, 422, answer.json()["type"].rpartition(":")[2])["errors"]
        return dict(first)

    assert refused(strategy="ma_crosover")["nearest"] == "ma_crossover"
    assert refused(params={"fats": 3})["nearest"] == "fast"
    assert "NOPE" in str(refused(symbol="NOPE"))
    nobodys = {"session": str(uuid4())}
    for path in (SESSIONS, "/paper-trade/certificates"):
        problem(engine_api.http.post(path, json=nobodys), 404, "not-found")
    problem(
        engine_api.http.post("/paper-trade/daily", json={"sessions": [nobodys["session"]]}), 404, "not-found"
    )


def test_nobody_sees_or_commands_another_owners_session(engine_api: Engine, tia: dict[str, str]) -> None:
    session = written_down(engine_api)
    path = f"{SESSIONS}/{session.session_id}"
    for part in ("", "/orders", "/fills", "/positions", "/equity", "/certificate"):
        problem(engine_api.http.get(path + part, headers=tia), 404, "not-found")
    for part in ("/pause", "/resume"):
        problem(engine_api.http.post(path + part, headers=tia), 404, "not-found")
        problem(engine_api.http.post(path + part, headers=BOB), 403, "denied")
    problem(engine_api.http.delete(path, headers=tia), 404, "not-found")
    for named in (SESSIONS, "/paper-trade/certificates"):
        answer = engine_api.http.post(named, json={"session": str(session.session_id)}, headers=tia)
        problem(answer, 404, "not-found")
    assert engine_api.http.get("/portfolio", headers=tia).json() == {
        "open_sessions": 0,
        "totals": [],
        "sessions": [],
    }
    answer = engine_api.http.get(
        "/portfolio/trades", params={"session": str(session.session_id)}, headers=tia
    )
    problem(answer, 404, "not-found")
    detail = problem(engine_api.http.get(f"{path}/certificate"), 404, "not-found")["detail"]
    assert "no certificate yet" in detail
    end(engine_api, session.session_id)


def test_lists_page_through_sessions(engine_api: Engine, tia: dict[str, str]) -> None:
    owner = "user:7f3b6f0e-6a5e-4a52-9a57-1f0f2f0d9c11"
    made = [written_down(engine_api, owner, feed="schedule") for _ in range(5)]
    found: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": 2, "feed": "schedule", "state": "open"} | ({"cursor": cursor} if cursor else {})
        page = engine_api.http.get(SESSIONS, params=params, headers=tia).raise_for_status().json()
        found += [each["session_id"] for each in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert found == [str(each.session_id) for each in reversed(made)]
    problem(engine_api.http.get(SESSIONS, params={"cursor": "x"}), 422, "refused-input")
    for each in made:
        end(engine_api, each.session_id)


def test_open_sessions_keep_their_snapshot(postgres: Cluster, prefect: Prefect, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    fill_lake(home)
    with serving(account_settings(postgres), home, prefect.url) as engine:
        _collect(engine)


def _collect(engine: Engine) -> None:
    old = engine.context.lake.current()
    assert old is not None
    days = np.arange("2020-01-01", 5, dtype="datetime64[D]").astype("datetime64[us]")
    price = np.full(5, 9.0)
    raw = RawBars(days, price, price, price, price, np.full(5, 1.0), np.ones(5))
    engine.context.lake.upsert(Instrument(symbol="LATER"), "1d", raw, source="csv")

    def collected() -> list[str]:
        body = {"older_than_days": 0, "dry_run": True}
        found: list[str] = engine.http.post("/market/collect", json=body).json()["snapshots"]
        return found

    assert old.id in collected()
    session = written_down(engine, snapshot_id=old.id)
    assert old.id not in collected()
    end(engine, session.session_id)
    assert old.id in collected()


def test_metrics_tell_of_sessions(engine_api: Engine) -> None:
    session = written_down(engine_api)
    store = SessionStore(engine_api.context.database)
    store.lease(session.session_id, "run of a test", seconds=60)
    exposed = engine_api.http.get("/system/metrics").text
    end(engine_api, session.session_id)
    lines = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in exposed.splitlines()
        if line[0] != "#"
    }
    assert lines['gpt_trader_sessions{feed="replay",status="active"}'] >= 1
    assert lines['gpt_trader_session_seconds_since_commit{feed="replay"}'] >= 0
    assert "gpt_trader_ledger_events" in lines
