"""Paper sessions through the whole house: the contract for scripts, a slow replay that is told what to do, the day."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.e2e.house import House
from tests.waiting import eventually

RANGE = shlex.split("--symbol AAPL --strategy momentum --start 2012-01-03 --end 2012-12-31")
TERMS = shlex.split("--commission 0.001 --slippage 0.0005 --stop-loss 0.05")


@pytest.fixture(scope="module")
def found(session_house: House) -> dict[str, Any]:
    """What the contract for scripts printed."""
    session_house.ensure_up()
    words = ["--replay", *RANGE, *TERMS, "--speed", "max", "--follow"]
    printed: dict[str, Any] = session_house.json("paper", "start", *words)
    return printed


def test_the_contract_for_scripts(house: House, found: dict[str, Any]) -> None:
    assert found["session_id"] == found["run_id"]
    assert (found["state"], found["bars"]) == ("completed", 250)
    assert found["orders"] > found["fills"] > 0, "stops that were cancelled are orders too"
    certificate = house.json("paper", "certificate", found["session_id"])
    assert (certificate["verdict"], certificate["first_divergence"]) == ("equal", None)
    assert (certificate["replay_equal"], certificate["backtest_equal"]) == (True, True)
    assert certificate["ledger_hash"] == found["ledger_hash"]
    assert (certificate["current"], certificate["fills"]) == (True, found["fills"])

    again = house.json("paper", "replay", found["session_id"][:8])
    assert again["run_id"] != found["run_id"]
    assert {name: again[name] for name in ("verdict", "ledger_hash")} == {
        name: certificate[name] for name in ("verdict", "ledger_hash")
    }
    assert house.result(again["run_id"])["result_hash"] == found["result_hash"]


def test_it_is_the_backtest_of_the_same_request(house: House, found: dict[str, Any]) -> None:
    backtest = house.json("backtest", *RANGE, *TERMS, "--no-report")
    assert found["final_equity"] == pytest.approx(backtest["metrics"]["final_equity"], rel=1e-9)
    names = ("total_return", "sharpe", "max_drawdown", "win_rate", "trades", "exposure", "costs")
    assert {name: found["metrics"][name] for name in names} == pytest.approx(
        {name: backtest["metrics"][name] for name in names}, rel=1e-9
    )
    equity = pq.read_table(found["artifacts"]["equity"])["equity"].to_numpy()
    theirs = pq.read_table(backtest["artifacts"]["equity"])["equity"].to_numpy()
    assert equity == pytest.approx(theirs, rel=1e-9)


def test_what_a_session_shows_of_itself(house: House, found: dict[str, Any]) -> None:
    session = house.json("paper", "show", found["session_id"])
    assert (session["state"], session["ledger_hash"]) == ("completed", found["ledger_hash"])
    orders = house.json("paper", "orders", found["session_id"], "--limit", "10000")
    assert len(orders) == found["orders"]
    assert len(house.json("paper", "fills", found["session_id"], "--limit", "10000")) == found["fills"]
    curve = house.json("paper", "equity", found["session_id"])
    assert len(curve["time"]) == found["bars"]
    assert float(curve["equity"][-1]) == pytest.approx(found["final_equity"], rel=1e-12)
    page = Path(found["artifacts"]["report"]).read_text(encoding="utf-8")
    assert found["ledger_hash"] in page
    served = house.api("GET", f"/workflows/runs/{found['run_id']}/report")
    assert served.text == page


def in_state(house: House, session_id: str, state: str) -> dict[str, Any]:
    """Return the session if it is in this state, else nothing."""
    answer = house.api("GET", f"/paper-trade/sessions/{session_id}")
    session: dict[str, Any] = answer.json() if answer.is_success else {}
    return session if session.get("state") == state else {}


def test_a_slow_replay_is_paused_resumed_and_stopped(house: House) -> None:
    """At this speed a day takes a fifth of a second: the session lives for as long as the test wants."""
    started = house.json(
        "paper", "start", *RANGE[:4], "--start", "2005-01-03", "--speed", "432000", "--name", "slow"
    )
    session_id = started["session_id"]

    eventually(lambda: in_state(house, session_id, "active").get("fills"), seconds=60, what="a first fill")
    for command, state in (("pause", "paused"), ("resume", "active")):
        assert house.json("paper", command, "slow")["command"] == command
        eventually(lambda state=state: in_state(house, session_id, state), seconds=30, what=state)
    assert house.json("paper", "stop", "slow", "--flatten")["flatten"] is True
    ended = eventually(lambda: in_state(house, session_id, "stopped"), seconds=30, what="stopped")
    assert house.json("paper", "positions", "slow")["items"] == []
    assert ended["cash"] == ended["equity"]

    house.await_state(session_id, {"COMPLETED"})
    certificate = house.json("paper", "certificate", "slow")
    assert certificate["replay_equal"] is True
    late = house.run("paper", "pause", "slow")
    assert late.returncode != 0
    assert "it takes no commands" in late.stderr


def test_a_session_by_schedule_stays_open_and_is_stepped(house: House) -> None:
    words = ["--schedule", "--symbol", "IBM", "--start", "2013-01-02", "--name", "daily", "--follow"]
    opened = house.json("paper", "start", *words)
    assert opened["state"] == "active"
    assert opened["bars"] > 30, "what is stored from its start on is traded at once"
    stepped = house.json("paper", "step", "--session", "daily", "--no-refresh")
    (row,) = stepped["each"]
    assert (row["session_id"], row["bars"], row["error"]) == (opened["session_id"], 0, None)
    assert (row["ledger_hash"], row["certificate"]) == (opened["ledger_hash"], "equal")
    house.json("paper", "stop", "daily")
    eventually(lambda: in_state(house, opened["session_id"], "stopped"), seconds=60, what="stopped")
