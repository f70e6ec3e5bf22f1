"""One optimization by every door, killed on its way, with other bars coming in meanwhile: always the same outcome."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from gpt_trader.instruments import Instrument
from storage.lake import Lake
from tests.e2e.house import House
from tests.lake_samples import changed, some_bars
from tests.waiting import eventually

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the engine's processes in /proc"),
]

#: Combinations from the number in the file `gate` on wait until there is a higher one.
PACED = '''
from pathlib import Path

from gpt_trader.strategies.base import Strategy


class Paced(Strategy):
    """In for `number` % 97 + 1 bars, out for `number` // 97 + 1."""

    gate: str
    number: int = 0

    def targets(self, bars, first=0):
        import time

        import numpy as np

        while self.number >= int(Path(self.gate).read_text()):
            time.sleep(0.02)
        held = self.number % 97 + 1
        wanted = (np.arange(len(bars)) % (held + self.number // 97 + 1) < held).astype(float)
        wanted[:first] = 0
        return wanted
'''
SAME = ("result_hash", "best", "top", "overfitting", "walk_forward", "trials", "snapshot_id", "space")


def gate(folder: Path, number: int) -> Path:
    """Let combinations below the number through."""
    aside = folder / "gate.new"
    aside.write_text(str(number))
    return aside.replace(folder / "gate")


def by_prefect_ui(house: House, request: dict[str, Any]) -> str:
    """What the page "Quick run" of Prefect's UI posts."""
    deployment = house.prefect("GET", "/deployments/name/optimize/optimize")["id"]
    state = {"type": "SCHEDULED", "message": "Run from the Prefect UI with defaults"}
    body = {"parameters": {"request": request}, "state": state}
    return str(house.prefect("POST", f"/deployments/{deployment}/create_flow_run", json=body)["id"])


def by_rest(house: House, request: dict[str, Any]) -> str:
    accepted = house.api("POST", "/strategies/optimize", json=request)
    assert accepted.status_code == 202, accepted.text
    return str(accepted.json()["run_id"])


def outcome(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in SAME}


def kept(house: House) -> int:
    """How many chunks of trials the cache keeps."""
    return len(list((house.home.cache / "arrays").glob("*/rows.npy")))


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_each_door_gives_the_same_and_so_does_a_run_that_is_killed(
    house: House, tmp_path: Path, kills: int
) -> None:
    combinations = 500 * kills + 150  # in chunks of 500
    lake, bars = Lake(house.home.lake), some_bars(1_500, seed=5)
    doors = Instrument(symbol="DOORS")
    lake.upsert(doors, "1d", bars, source="csv")
    (house.cwd / "paced.py").write_text(PACED)
    path = gate(tmp_path, combinations)
    asked = (
        "optimize", "--symbol", "DOORS", "--strategy", "./paced.py:Paced", "--space", f"number=0:{combinations - 1}",
        "--param", f"gate={path}", "--no-report", "--top", "3",
    )  # fmt: skip
    by_command = house.json(*asked)
    assert by_command["trials"]["run"] == combinations
    request = house.api("GET", f"/workflows/runs/{by_command['run_id']}").json()["request"]
    for door in (by_rest, by_prefect_ui):
        house.json("cache", "clear")
        run_id = door(house, request)
        house.await_state(run_id, {"COMPLETED"})
        assert outcome(house.result(run_id)) == outcome(by_command)

    house.json("cache", "clear")
    gate(tmp_path, 500)
    run_id = by_rest(house, request)
    for kill in range(1, kills + 1):
        eventually(lambda done=kill: kept(house) >= done, seconds=60, what=f"{kill} chunks in the cache")
        _, child = house.child_of(run_id)
        os.kill(child, signal.SIGKILL)
        house.await_state(run_id, {"CRASHED"})
        # Another close, within what was searched: the newest snapshot would give another result.
        restated = changed(bars, -20, close=float(bars.close[-20]) * (1 + kill / 1_000))
        lake.upsert(doors, "1d", restated, source="csv")
        gate(tmp_path, 500 * (kill + 1) if kill < kills else combinations)
        again = house.api("POST", f"/workflows/runs/{run_id}/retry")
        assert again.status_code == 202, again.text
        run_id = str(again.json()["run_id"])
    house.await_state(run_id, {"COMPLETED"})
    assert outcome(house.result(run_id)) == outcome(by_command)

    resumed = house.json("optimize", "--resume", run_id)
    assert outcome(resumed) == outcome(by_command)
    newest = house.json(*asked)
    assert newest["snapshot_id"] != by_command["snapshot_id"]
    assert newest["result_hash"] != by_command["result_hash"]
