"""A bar is restated: the older result can be had again exactly, whatever is collected in between."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import House
from tests.waiting import eventually

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the engine's processes in /proc"),
]

DAYS = [f"2021-{1 + i // 28:02d}-{1 + i % 28:02d}" for i in range(150)]


def ingest(house: House, symbol: str, restated: float | None = None) -> str:
    """Bring in bars of a symbol, with another close on one day; return the snapshot."""
    rows = []
    for number, day in enumerate(DAYS):
        close = restated if restated and day == "2021-02-10" else 100 + number % 13
        rows.append(f"{day},{close},{close + 2},{close - 2},{close},1000")
    file = house.cwd / f"{symbol}.csv"
    file.write_text("timestamp,open,high,low,close,volume\n" + "\n".join(rows) + "\n")
    command = ("data", "ingest", "--source", "csv", "--file", str(file), "--symbol", symbol)
    snapshot: str = house.json(*command, "--timeframe", "1d")["snapshot_id"]
    return snapshot


def backtest(house: House, symbol: str, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = house.json(
        "backtest", "--symbol", symbol, "--strategy", "ma_crossover", "--param", "fast=3", "--param", "slow=8",
        "--no-report", *options,
    )  # fmt: skip
    return found


def collect(house: House) -> list[str]:
    gone: list[str] = house.json("data", "collect", "--older-than", "0")["snapshots"]
    return gone


def snapshots(house: House) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in house.json("data", "snapshots", "--limit", "1000")}


def test_an_older_result_is_reproduced_exactly_on_its_snapshot(house: House) -> None:
    before = ingest(house, "VERS")
    old = backtest(house, "VERS")
    assert old["snapshot_id"] == before
    when = snapshots(house)[before]["created_at"]

    between = ingest(house, "VERS", restated=180.0)
    after = ingest(house, "VERS", restated=190.0)
    new = backtest(house, "VERS")
    assert new["snapshot_id"] == after
    assert new["result_hash"] != old["result_hash"]
    assert new["metrics"]["final_equity"] != old["metrics"]["final_equity"]
    change = snapshots(house)[after]["changes"]["changed"]
    assert change == [{"symbol": "VERS", "timeframe": "1d", "rows": 150, "rows_before": 150}]

    gone = collect(house)
    assert between in gone
    assert not {before, after} & set(gone)
    assert {before, after} <= set(snapshots(house))

    again = house.json("workflow", "reproduce", old["run_id"])
    assert again == {
        "run_id": again["run_id"],
        "original_run_id": old["run_id"],
        "snapshot_id": before,
        "result_hash": old["result_hash"],
        "equal": True,
        "differences": [],
    }
    assert again["run_id"] != old["run_id"]
    assert house.result(again["run_id"])["reproduction"] == again
    for run_id in (again["run_id"], old["run_id"]):
        assert {"code_version", "libraries", "platform"} <= house.result(run_id)["provenance"].keys()

    then = backtest(house, "VERS", "--as-of", when)
    assert (then["snapshot_id"], then["result_hash"]) == (before, old["result_hash"])
    by_name = house.json(
        "workflow", "run", "backtest", "--snapshot", before[:8], "--follow", "--param", "symbol=VERS",
        "--param", "strategy=ma_crossover", "--param", "fast=3", "--param", "slow=8", "--param", "report=false",
    )  # fmt: skip
    assert (by_name["snapshot_id"], by_name["result_hash"]) == (before, old["result_hash"])
    # The run that named a time can itself be reproduced: what it read is in its record.
    assert house.json("workflow", "reproduce", then["run_id"])["equal"] is True

    earlier = (datetime.fromisoformat(when) - timedelta(days=1)).isoformat()
    refused = house.run("backtest", "--symbol", "VERS", "--as-of", earlier)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no snapshot at" in refused.stderr


def test_what_a_run_under_way_reads_is_not_collected(house: House, tmp_path: Path) -> None:
    ingest(house, "GATE")  # a snapshot that no finished run has read
    gate = tmp_path / "gate"
    run_id = house.begin_gated(gate)
    pins = house.home.lake / "pins"
    (pin,) = eventually(lambda: [*pins.iterdir()] if pins.is_dir() else [], what="the run's pin")
    reading = pin.name.partition(".")[0]
    ingest(house, "GATE", restated=180.0)
    ingest(house, "GATE", restated=190.0)
    gone = collect(house)
    assert len(gone) >= 1, "nothing was there to collect: the test shows nothing"
    assert reading not in gone
    gate.touch()
    house.await_state(run_id, {"COMPLETED"})
    assert house.result(run_id)["snapshot_id"] == reading
    assert reading not in collect(house), "its saved result names it"
    assert house.json("workflow", "reproduce", run_id)["equal"] is True


def test_a_strategy_that_is_not_deterministic_is_found_out(house: House) -> None:
    """The same request, code and data with another result: it is printed, then the exit code is 1."""
    counter = house.cwd / "runs.txt"
    (house.cwd / "moody.py").write_text(MOODY)
    first = house.json(
        "backtest", "--symbol", "AAPL", "--strategy", "./moody.py:Moody", "--param", f"counter={counter}"
    )
    done = house.run("--output", "json", "workflow", "reproduce", first["run_id"])
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["original_run_id"], told["equal"]) == (first["run_id"], False)
    assert told["result_hash"] != first["result_hash"]
    named = {each["what"]: each for each in told["differences"]}
    assert named["metric exposure"]["original"] == first["metrics"]["exposure"]
    assert not {"code version", "data", "platform"} & named.keys()
    shown = house.run("workflow", "reproduce", first["run_id"])
    assert shown.returncode == 1
    assert "has another result than" in shown.stdout


MOODY = '''
from pathlib import Path

from gpt_trader.strategies.base import Strategy


class Moody(Strategy):
    """Out for one bar more with each run."""

    counter: str

    def targets(self, bars, first=0):
        import os

        import numpy as np

        with Path(self.counter).open("a") as file:
            file.write(f"{os.getpid()}\\n")
        runs = len(set(Path(self.counter).read_text().split()))
        wanted = np.ones(len(bars))
        wanted[: max(first, 10 * runs)] = 0
        return wanted
'''
