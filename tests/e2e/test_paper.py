"""Paper sessions through the whole house: what one shows, a slow replay that is told what to do, the day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import PAPER_RANGE
from tests.e2e.house import House
from tests.waiting import eventually


def test_what_a_session_shows_of_itself(house: House, traded: dict[str, Any]) -> None:
    session = house.json("paper", "show", traded["session_id"])
    assert (session["state"], session["ledger_hash"]) == ("completed", traded["ledger_hash"])
    orders = house.json("paper", "orders", traded["session_id"], "--limit", "10000")
    assert len(orders) == traded["orders"]
    assert len(house.json("paper", "fills", traded["session_id"], "--limit", "10000")) == traded["fills"]
    curve = house.json("paper", "equity", traded["session_id"])
    assert len(curve["time"]) == traded["bars"]
    assert float(curve["equity"][-1]) == pytest.approx(traded["final_equity"], rel=1e-12)
    page = Path(traded["artifacts"]["report"]).read_text(encoding="utf-8")
    assert traded["ledger_hash"] in page
    served = house.api("GET", f"/workflows/runs/{traded['run_id']}/report")
    assert served.text == page


@pytest.mark.parametrize("command", [("paper", "start", "--replay"), ("run",)], ids=["paper", "run"])
def test_all_there_is_of_a_symbol_is_traded_from_its_first_bar(
    house: House, command: tuple[str, ...]
) -> None:
    """Without a range, so that the strategy knows less than it needs at first: the shortest command of all."""
    begun = house.json(*command, "--symbol", "AAPL", "--strategy", "momentum", "--speed", "max", "--follow")
    assert (begun["state"], begun["bars"]) == ("completed", 3270)
    whole = house.json("backtest", "--symbol", "AAPL", "--strategy", "momentum", "--no-report")
    assert begun["final_equity"] == pytest.approx(whole["metrics"]["final_equity"], rel=1e-9)
    assert house.json("paper", "certificate", begun["session_id"])["verdict"] == "equal"


def in_state(house: House, session_id: str, state: str) -> dict[str, Any]:
    """Return the session if it is in this state, else nothing."""
    answer = house.api("GET", f"/paper-trade/sessions/{session_id}")
    session: dict[str, Any] = answer.json() if answer.is_success else {}
    return session if session.get("state") == state else {}


def test_a_slow_replay_is_paused_resumed_and_stopped(house: House) -> None:
    """At this speed a day takes a fifth of a second: the session lives for as long as the test wants."""
    started = house.json(
        "paper", "start", *PAPER_RANGE[:4], "--start", "2005-01-03", "--speed", "432000", "--name", "slow"
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
