"""Streams of a real engine, as outsiders use them, while its API is killed and ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt_trader.runs import channel_of
from tests.api.sockets import Plain
from tests.e2e.following import CHROMIUM, ByBrowser, ByCurl, ByPackedSocket, BySocket, browser
from tests.e2e.house import House
from tests.waiting import eventually

#: Long enough that the API's restart falls into the middle of it.
SEARCH = {
    "symbol": "AAPL",
    "strategy": "ma_crossover",
    "space": {"fast": list(range(5, 61)), "slow": list(range(61, 261))},
    "method": "random",
    "trials": 8000,
    "report": False,
}


@pytest.mark.slow
@pytest.mark.parametrize("part", ["api", "database"])
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on this machine")
def test_four_kinds_of_clients_follow_an_optimization_through_a_restart(
    house: House, tmp_path: Path, figure: Callable[[str], None], part: str
) -> None:
    """From the REST trigger to the result, a part killed in the middle: nothing lost, nothing twice.

    The API's clients come back; those of a killed PostgreSQL need not: their streams wait for it.
    """
    answer = house.api("POST", "/strategies/optimize", json=SEARCH)
    assert answer.status_code == 202, answer.text
    run_id = answer.json()["run_id"]
    site = ByBrowser(house, run_id)
    with browser(site, tmp_path):
        followers = [BySocket(house, run_id), ByPackedSocket(house, run_id), ByCurl(house, run_id)]
        every = [site, *followers]
        eventually(lambda: all(each.told for each in every), seconds=60, what="everybody's first event")
        house.await_state(run_id, {"RUNNING"})
        before = max(len(each.told) for each in followers)
        house.kill_part(part)
        stories = [each.all() for each in every]
    offsets = [int(position.partition(":")[2]) for position, _, _ in stories[1]]
    assert offsets == list(range(1, len(offsets) + 1))
    assert all(story == stories[1] for story in stories)
    assert stories[1][-1][2]["state"] == "COMPLETED"
    assert before < len(offsets), "the restart was not in the middle"
    assert part != "api" or all(each.connections >= 2 for each in every)
    assert house.result(run_id)["result_hash"]
    figure(
        f"an optimization followed by a browser, JSON, MsgPack and curl through a killed {part}: {len(offsets)} events "
        "each, lost 0, duplicate 0"
    )


def test_an_api_that_is_told_to_end_says_so_and_the_run_goes_on(
    house: House, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Row 26: SIGTERM with streams open and a run going."""
    gate = tmp_path / "gate"
    run_id = house.begin_gated(gate)
    watching = BySocket(house, run_id)
    by_curl = ByCurl(house, run_id)
    eventually(lambda: watching.told and by_curl.told, what="both follow")
    key = (house.home.root / "key").read_text(encoding="ascii").strip()
    clients = [Plain(house.record.api_url, key) for _ in range(10)]
    for client in clients:
        client.subscribe(channel_of(run_id))
    ended = house.pid("api")
    began = time.monotonic()
    os.kill(ended, signal.SIGTERM)
    eventually(lambda: not Path(f"/proc/{ended}").exists(), seconds=10, what="the API's end")
    seconds = time.monotonic() - began
    for client in clients:
        notices = client.take_until(lambda message: message["type"] == "shutdown")
        assert 500 <= notices[-1]["reconnect_in_ms"] <= 4500
        assert client.closed()[0] == 1012
        client.socket.close()
    house.await_part_after("api", ended)
    assert house.state(run_id) == "RUNNING"
    gate.touch()
    house.await_state(run_id, {"COMPLETED"})
    assert watching.all() == by_curl.all()
    assert watching.connections >= 2
    figure(
        f"SIGTERM with 12 streams open and a run going: the API ended in {seconds:.2f} s, the run completed"
    )
    assert seconds < 6
