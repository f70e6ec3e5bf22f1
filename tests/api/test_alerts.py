"""Alerts: counted, sent to a webhook on loopback by Apprise itself, acknowledged, each owner's own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine as Database
from sqlalchemy import text

from api.alerting import Alerting
from gpt_trader.alerts import Alert, AlertRules, Standing, of_abandoned, of_skew, of_standing
from gpt_trader.settings import Settings
from storage.alerts import AlertStore
from storage.session_care import SessionCare
from storage.session_rows import Session
from storage.sessions import SessionStore
from tests.api.conftest import Engine
from tests.api.test_health_and_errors import problem

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


@contextmanager
def webhook(status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A receiver of JSON: its address for Apprise, and what came."""
    got: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"json://hook:s3cret@127.0.0.1:{server.server_port}/", got
        finally:
            server.shutdown()
            thread.join()


def session(**changes: Any) -> Session:
    made = Session(
        session_id=uuid4(), owner="ann", slice="paper_trade", name="momentum on ACME", feed="replay", request={},
        snapshot_id=None, code_version=None, status="active", reason="", seq=9, ledger_hash="", told=0, cash="1",
        equity="1", steps=3, orders=0, fills=0, bar="2026-11-26T00:00:00Z", certificate=None, certified=0,
        lease_token=1, lease_holder="run x", lease_until=NOW, created_at=NOW, updated_at=NOW, ended_at=None,
    )  # fmt: skip
    return replace(made, **changes)


def rules_of(alerts: Iterator[Alert]) -> list[str]:
    return [alert.rule for alert in alerts]


def test_a_session_is_dead_once_it_is_given_up_or_nobody_took_it_up_in_time() -> None:
    def told(seconds: float, deaths: int = 0, *, given_up: bool = False) -> list[str]:
        return rules_of(of_abandoned(session(), seconds, deaths, given_up=given_up, rules=AlertRules()))

    assert told(60) == []
    assert told(60.1) == ["session_dead"]
    assert told(1, 5) == []
    assert told(1, 5, given_up=True) == ["session_dead"]


def test_hours_of_silence_are_measured_by_the_databases_clock(engine: Database) -> None:
    """Row 12: an API whose clock is wrong raises nothing for it, and misses nothing."""
    store, care = SessionStore(engine), SessionCare(engine)
    ids = [uuid4() for _ in range(4)]
    for each, feed in zip(ids, ("replay", "replay", "schedule", "replay"), strict=True):
        store.create(each, "ann", "paper_trade", {"feed": feed}, {}, name=feed, capital="1")
    with engine.begin() as connection:
        for each, change in zip(
            ids,
            (
                "lease_until = clock_timestamp() - interval '90 s'",
                "lease_until = clock_timestamp() + interval '9 s', updated_at = clock_timestamp() - interval '3 min'",
                "bar = to_char(clock_timestamp() - interval '6 days', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
                "lease_until = clock_timestamp() - interval '9 min', ended_at = clock_timestamp()",
            ),
            strict=True,
        ):
            connection.execute(text(f"UPDATE sessions SET {change} WHERE session_id = :id"), {"id": each})
    for found, expected, seconds in (
        (care.abandoned(), ids[0], 90),
        (care.silent(timedelta(minutes=1)), ids[1], 180),
        (care.stale(timedelta(days=5)), ids[2], 6 * 86_400),
    ):
        ((one, since),) = found
        assert one.session_id == expected
        assert seconds <= since < seconds + 60


def test_falls_and_losses_are_told_from_their_thresholds_on() -> None:
    def told(equity: str, status: str = "active") -> list[str]:
        standing = Standing(Decimal(equity), Decimal(1000), Decimal(970), "2026-11-27")
        return rules_of(of_standing(session(status=status, reason="why"), AlertRules(), standing))

    assert told("960") == []
    assert told("950.6") == ["daily_loss"]
    assert told("950") == ["drawdown", "daily_loss"]
    assert told("960", "halted") == ["session_halted"]


def alerting(engine: Database, url: str | None, **settings: Any) -> Alerting:
    channels = None if url is None else SecretStr(url)
    return Alerting(Settings(alert_channels=channels, **settings), AlertStore(engine))


@pytest.mark.parametrize(
    ("ahead", "early", "says"),
    [
        (300.0, -60.0, "300 s ahead of the database's"),
        (-300.0, -60.0, "300 s behind the database's"),
        (0.0, 30.0, "came 30 s before it can be over"),
        (1.9, 1.9, None),
        (-1.9, -600.0, None),
    ],
)
def test_a_clock_that_is_off_is_told_from_its_threshold_on(
    ahead: float, early: float, says: str | None
) -> None:
    found = list(of_skew(session(), AlertRules(), ahead, early))
    assert [says in each.message for each in found if says] == ([True] if says else [])
    assert len(found) == (says is not None)


def test_an_alert_is_sent_once_counted_when_it_repeats_and_sent_again_later(engine: Database) -> None:
    store = AlertStore(engine)
    alert = Alert("drawdown", "warning", "ann", "session:1", "it fell", {"drawdown": 0.06})
    with webhook() as (url, got):
        sender = alerting(engine, url)
        first = store.put(alert, 300)
        sender.look()
        assert store.put(replace(alert, message="it fell more"), 300) == first
        sender.look()
        assert [each["message"] for each in got] == ["it fell"]
        store.put(replace(alert, severity="critical"), 300)  # worse: at once
        sender.look()
        assert len(got) == 2
        assert "3 times since" in got[1]["message"]
        store.put(replace(alert, severity="critical"), 0)
        sender.look()
        assert len(got) == 3
        store.acknowledge(first, "ann")
        assert store.put(alert, 300) != first
        sender.look()
        assert len(got) == 4
    (known,) = store.list("ann")
    assert (known.count, known.sending_error) == (1, None)


def test_what_cannot_be_sent_stays_due_and_the_channels_secret_is_not_told(
    engine: Database, caplog: pytest.LogCaptureFixture
) -> None:
    store = AlertStore(engine)
    with webhook(500) as (url, got):
        sender = alerting(engine, url)
        store.put(Alert("drawdown", "warning", "ann", "session:1", "it fell", {}), 300)
        sender.look()
        sender.look()  # not at once again
        assert len(got) == 1
    (known,) = store.list("ann")
    assert known.sending_error == "a channel did not take it"
    assert "s3cret" not in caplog.text
    with webhook() as (url, got):
        with engine.begin() as connection:
            connection.execute(text("UPDATE alerts SET sent_at = sent_at - interval '2 minutes'"))
        alerting(engine, url).look()
        assert len(got) == 1
    assert store.list("ann")[0].sending_error is None


def test_mild_alerts_are_kept_and_not_sent(engine: Database) -> None:
    store = AlertStore(engine)
    store.put(Alert("by_hand", "info", "ann", "x", "so you know", {}), 300)
    with webhook() as (url, got):
        alerting(engine, url).look()
        assert got == []
        alerting(engine, url, alert_severity="info").look()
        assert [each["message"] for each in got] == ["so you know"]


def test_alerts_over_rest_are_their_owners(engine_api: Engine) -> None:
    http = engine_api.http
    bob = {"Authorization": "Bearer key-of-bob"}
    made = http.post("/system/alerts", json={"message": "look here"}, headers=bob)
    assert made.status_code == 201
    again = http.post(
        "/system/alerts", json={"message": "look here", "severity": "error"}, headers=bob
    ).json()
    assert (again["id"], again["count"], again["severity"]) == (made.json()["id"], 2, "error")
    path = f"/system/alerts/{again['id']}"
    eve = {"Authorization": "Bearer key-of-eve"}
    assert http.get("/system/alerts", headers=eve).json()["items"] == []
    problem(http.delete(path, headers=eve), 403, "denied")
    assert again["id"] in [each["id"] for each in http.get("/system/alerts").json()["items"]]
    closed = http.delete(path, headers=bob).json()
    assert closed["acknowledged_by"] == "bob"
    assert http.delete(path, headers=bob).json() == closed
    assert http.get("/system/alerts", headers=bob).json()["items"] == []
    assert len(http.get("/system/alerts?acknowledged=true", headers=bob).json()["items"]) == 1
    problem(http.delete("/system/alerts/999999999"), 404, "not-found")
    problem(http.post("/system/alerts", json={"message": "x", "severity": "bad"}), 422, "refused-input")
