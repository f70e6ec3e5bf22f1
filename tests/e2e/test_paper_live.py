"""A live session in a whole house, on minutes as they pass: told when its bars do not come, ended by its own close."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from storage.alerts import AlertStore
from storage.sessions import SessionStore
from tests.e2e.house import House
from tests.fakes.alpaca_server import KEY, SECRET, AlpacaServer
from tests.live_market import MINUTE, LiveMarket
from tests.waiting import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the engine's processes in /proc"),
]

BTC = "BTC-USD"


class Clockwork:
    """Lets a market's minutes pass with the clock's: each bar is there once its minute is over, unless it is halted."""

    def __init__(self, alpaca: AlpacaServer) -> None:
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        self.market = LiveMarket(alpaca, [BTC], now - 30 * MINUTE, history=30)
        self.halted = threading.Event()
        self.over = threading.Event()
        self._held: list[datetime] = []
        self._thread = threading.Thread(target=self._run, name="market")
        self._thread.start()

    def _run(self) -> None:
        while True:
            ends = self.market.begin + (self.market.minute + 1) * MINUTE
            if self.over.wait(max(0.0, (ends - datetime.now(UTC)).total_seconds())):
                return
            if self.halted.is_set():  # the minute passes, and neither stream nor history has it yet
                self._held.append(self.market.begin + self.market.minute * MINUTE)
                self.market.minute += 1
                continue
            for late in self._held:  # the history has it by now, the stream does not tell it
                self.market.tell(BTC, late, live=False)
            self._held.clear()
            self.market.go()

    def close(self) -> None:
        self.over.set()
        self._thread.join()


@pytest.fixture
def alpaca() -> Iterator[AlpacaServer]:
    with AlpacaServer().serving() as fake:
        yield fake


@pytest.fixture
def clockwork(alpaca: AlpacaServer) -> Iterator[Clockwork]:
    one = Clockwork(alpaca)
    yield one
    one.close()


@pytest.fixture
def live_house(alpaca: AlpacaServer, tmp_path: Path) -> Iterator[House]:
    """An engine of its own that asks the fake, and that a second of silence is told of."""
    house = House.in_folder(tmp_path)
    house.environment |= {
        "GPT_TRADER_SOURCE_URLS": json.dumps({"alpaca": alpaca.url}),
        "GPT_TRADER_CREDENTIAL_ALPACA_KEY": KEY,
        "GPT_TRADER_CREDENTIAL_ALPACA_SECRET": SECRET,
        "GPT_TRADER_ALERTS": json.dumps({"stale_seconds": 1}),
    }
    house.ensure_up()
    yield house
    down = house.run("down")
    left = house.processes()
    assert (down.returncode, left) == (0, {}), down.stderr


@pytest.fixture
def records(live_house: House) -> Iterator[Engine]:
    with live_house.database() as engine:
        yield engine


def test_a_session_waits_for_its_bars_is_told_of_when_they_stop_and_ends_at_its_close(
    live_house: House, records: Engine, clockwork: Clockwork, alpaca: AlpacaServer
) -> None:
    """Four minutes as they pass. The second one's bar does not come before the third's."""
    house = live_house
    first = datetime.now(UTC).replace(second=0, microsecond=0) + MINUTE
    closes = first + 4 * MINUTE
    started = house.json(
        "paper", "start", "--live", "--symbol", BTC, "--strategy", "ma_crossover", "--param", "fast=2", "--param",
        "slow=4", "--timeframe", "1m", "--source", "alpaca", "--until", closes.isoformat(),
    )  # fmt: skip
    run_id = str(started["run_id"])

    store, kept = SessionStore(records), AlertStore(records)  # waited on here: over REST it would be a flood

    def bars() -> int:
        return store.get(UUID(run_id)).steps

    def alerts(**params: Any) -> list[dict[str, Any]]:
        answer = house.api("GET", "/system/alerts", params=params).raise_for_status()
        return [each for each in answer.json()["items"] if each["rule"] == "stale_data"]

    eventually(lambda: alpaca.heard, seconds=120, what="a subscription")
    eventually(bars, seconds=120, what="the first bar")
    clockwork.halted.set()
    eventually(kept.list, seconds=120, what="the alert")
    (told,) = alerts()
    assert "no bar of BTC-USD for" in told["message"]
    (shown,) = house.json("alerts", "list")
    assert (shown["id"], shown["rule"], shown["data"]["session_id"]) == (told["id"], "stale_data", run_id)
    assert house.run("alerts", "ack", str(told["id"])).returncode == 0
    assert alerts() == []
    before = bars()
    clockwork.halted.clear()
    eventually(lambda: bars() > before, seconds=120, what="a bar after the silence")
    eventually(lambda: datetime.now(UTC) >= closes, seconds=300, what="the session's close")
    house.await_state(run_id, {"COMPLETED"})
    session = house.api("GET", f"/paper-trade/sessions/{run_id}").json()
    assert session["state"] == "completed"
    assert session["reason"] == f"its close has come: {closes:%Y-%m-%d %H:%M} UTC"
    (only,) = alerts(acknowledged=True)
    assert only["id"] == told["id"]
    assert only["acknowledged_by"] == "local"
