"""Optimizations over the whole house: the same outcome whichever way it is asked for, and after being cut off."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import TERMS
from tests.e2e.house import House
from tests.waiting import eventually

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the engine's processes in /proc"),
]

REQUEST = {
    "symbol": "AAPL",
    "strategy": "ma_crossover",
    "method": "grid",
    "objective": "total_return",
    "start": "2005-01-03",
    "end": "2012-12-31",
    "commission": 0.001,
    "slippage": 0,
    "capital": 10000,
}

#: Of chunks of 500, the second waits for the gate; some combinations raise. Each one tried is noted.
PATIENT = '''
from pathlib import Path

from gpt_trader.strategies.base import Strategy


class Patient(Strategy):
    """In for `number` % 40 + 1 bars, out for as many."""

    gate: str
    log: str
    number: int = 0

    def targets(self, bars, first=0):
        import time

        import numpy as np

        with Path(self.log).open("a") as file:
            file.write(f"{self.number}\\n")
        while self.number >= 500 and not Path(self.gate).exists():
            time.sleep(0.02)
        if self.number % 100 == 13:
            raise ValueError(f"{self.number % 10} is no luck")
        if self.number % 100 == 14:
            return np.full(len(bars), np.nan)
        wanted = (np.arange(len(bars)) // (self.number % 40 + 1) % 2).astype(float)
        wanted[:first] = 0
        return wanted
'''


def kept(house: House) -> dict[str, tuple[int, int]]:
    """What the cache of arrays keeps: for each entry when it was made, and when it was last used."""
    folder = house.home.cache / "arrays"
    return {
        entry.parent.name: ((entry.parent / "rows.npy").stat().st_ino, entry.stat().st_mtime_ns)
        for entry in folder.glob("*/seal.json")
        if (entry.parent / "rows.npy").exists()
    }


def test_by_rest_resumed_and_reproduced_it_is_the_same_and_nothing_is_done_anew(
    house: House, optimized: dict[str, Any]
) -> None:
    house.json("optimize", "--resume", optimized["run_id"])  # another test may have cleared the cache
    before = kept(house)
    accepted = house.api("POST", "/strategies/optimize", json=REQUEST)
    assert accepted.status_code == 202, accepted.text
    by_rest = str(accepted.json()["run_id"])
    house.await_state(by_rest, {"COMPLETED"})
    resumed = house.json("optimize", "--resume", optimized["run_id"])
    assert len({optimized["run_id"], by_rest, resumed["run_id"]}) == 3
    for other in (house.result(by_rest), resumed):
        for fact in ("result_hash", "best", "top", "overfitting", "trials", "snapshot_id", "space"):
            assert (fact, other[fact]) == (fact, optimized[fact])

    after = kept(house)
    assert after.keys() == before.keys()
    assert {key: made for key, (made, _) in after.items()} == {key: made for key, (made, _) in before.items()}
    assert sum(after[key][1] > before[key][1] for key in after) == 1, "the one chunk was read from the cache"

    again = house.json("workflow", "reproduce", optimized["run_id"])
    assert (again["equal"], again["differences"]) == (True, [])
    assert again["result_hash"] == optimized["result_hash"]


def tried(log: Path) -> Counter[int]:
    return Counter(map(int, log.read_text().split())) if log.exists() else Counter()


def test_cancelled_in_the_middle_it_goes_on_behind_the_finished_trials(house: House, tmp_path: Path) -> None:
    """Some of a user's combinations raise: they are counted as failed, also where they come from the cache."""
    (house.cwd / "patient.py").write_text(PATIENT)
    gate, log = tmp_path / "gate", tmp_path / "log"
    before = kept(house).keys()
    known = {run["run_id"] for run in house.json("workflow", "runs", "--limit", "1000")}
    command = house.begin(
        "--output", "json", "optimize", "--symbol", "AAPL", "--strategy", "./patient.py:Patient",
        "--space", "number=0:619", "--param", f"gate={gate}", "--param", f"log={log}", "--no-report",
        "--objective", "total_return", "--top", "3",
    )  # fmt: skip
    eventually(lambda: kept(house).keys() - before, seconds=60, what="the first chunk in the cache")
    eventually(lambda: max(tried(log)) >= 500, seconds=30, what="a combination that waits")
    (run_id,) = {run["run_id"] for run in house.json("workflow", "runs", "--limit", "1000")} - known
    _, child = house.child_of(run_id)
    command.send_signal(signal.SIGINT)
    stdout, stderr = command.communicate(timeout=30)
    assert (command.returncode, stdout) == (130, "")
    assert json.loads(stderr.splitlines()[-1])["detail"] == f"run {run_id} was cancelled"
    assert house.state(run_id) == "CANCELLED"
    assert child not in house.processes()
    (chunk,) = kept(house).keys() - before
    made, _ = kept(house)[chunk]

    log.unlink()
    gate.touch()
    found = house.json("optimize", "--resume", run_id)
    assert found["trials"] == {"run": 606, "skipped": 0, "failed": 14}
    assert found["overfitting"]["trials"] == 620
    said = {reason["reason"]: reason["trials"] for reason in found["reasons"]}
    assert said["ValueError: 3 is no luck"] == 7
    assert kept(house)[chunk][0] == made
    counts = tried(log)
    assert set(range(500, 620)) <= set(counts)
    # Of the first chunk only what is verified and shown: the best, and ten drawn at random.
    assert sum(number < 500 for number in counts) <= 13

    house.json("cache", "clear")
    assert house.json("workflow", "reproduce", found["run_id"])["equal"] is True, "done anew, all of it"
    assert kept(house)[chunk][0] != made


#: Waits for the gate once 70 combinations were begun; each one tried is noted.
WAITING = '''
from pathlib import Path

from gpt_trader.strategies.base import Strategy


class Waiting(Strategy):
    """In for `days` bars of every `period`."""

    gate: str
    log: str
    days: int = 1
    period: int = 2

    def targets(self, bars, first=0):
        import time

        import numpy as np

        with Path(self.log).open("a") as file:
            file.write(f"{self.days * 1000 + self.period}\\n")
        while len(Path(self.log).read_text().split()) > 70 and not Path(self.gate).exists():
            time.sleep(0.02)
        wanted = (np.arange(len(bars)) % self.period < self.days).astype(float)
        wanted[:first] = 0
        return wanted
'''

#: Prints the trials of each study, opened as Optuna's own tools do.
STUDIES = """
import contextlib, io, json
import optuna
from storage.studies import main
with contextlib.redirect_stdout(io.StringIO()) as listed:
    main()
address, *names = map(str.strip, listed.getvalue().splitlines())
storage = optuna.storages.RDBStorage(address) if names else None
studies = {name: optuna.load_study(study_name=name, storage=storage).trials for name in names}
print(json.dumps({name: [trial.params for trial in trials] for name, trials in studies.items()}))
"""


def studies(house: House) -> dict[str, list[dict[str, int]]]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", STUDIES],
        env=house.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, int]]] = json.loads(done.stdout)
    return found


def told(house: House, run_id: str, until: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """The progress of a run as its stream tells it, up to what is waited for, or the run's end."""
    key = house.home.root.joinpath("key").read_text(encoding="ascii").strip()
    url = f"{house.record.api_url}/api/v1/workflows/runs/{run_id}/events"
    headers, kind = {"Authorization": f"Bearer {key}"}, ""
    found: list[dict[str, Any]] = []
    with httpx.stream("GET", url, headers=headers, timeout=60, trust_env=False) as answer:
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            kind = value if name == "event" else kind
            if name == "data" and kind == "progress":
                found.append(json.loads(value))
                if until(found[-1]):
                    break
    return found


def best_so_far(progress: list[dict[str, Any]]) -> list[float]:
    trials = [each for each in progress if each["stage"] == "trials"]
    assert all(each["message"].startswith("best total_return ") for each in trials)
    return [float(each["message"].split()[2]) for each in trials]


def test_tpe_tells_its_best_so_far_is_cancelled_by_rest_and_goes_on(house: House, tmp_path: Path) -> None:
    (house.cwd / "waiting.py").write_text(WAITING)
    gate, log = tmp_path / "gate", tmp_path / "log"
    asked = {
        "symbol": "AAPL", "strategy": "./waiting.py:Waiting", "space.days": "1:20", "space.period": "21:60",
        "params.gate": gate, "params.log": log, "method": "tpe", "trials": 140, "report": "false",
        "objective": "total_return", "seed": 3, "top": 3,
    }  # fmt: skip
    known = studies(house).keys()
    pairs = [word for name, value in asked.items() for word in ("--param", f"{name}={value}")]
    run_id = str(house.json("workflow", "run", "optimize", *pairs)["run_id"])
    progress = told(house, run_id, lambda each: bool(each["done"] >= 60))
    assert [each["done"] for each in progress if each["stage"] == "trials"] == list(range(5, 65, 5))
    assert {each["total"] for each in progress if each["stage"] == "trials"} == {140}
    bests = best_so_far(progress)
    assert bests == sorted(bests)
    assert len(set(bests)) > 1

    eventually(lambda: len(tried(log)) > 60, seconds=30, what="a trial that waits")
    (name,) = studies(house).keys() - known
    shown = studies(house)[name]
    assert len(shown) == 60
    assert house.api("POST", f"/workflows/runs/{run_id}/cancel").status_code == 202
    house.await_state(run_id, {"CANCELLED"})

    log.unlink()
    gate.touch()
    found = house.json("optimize", "--resume", run_id)
    assert (found["trials"], found["optuna_study"]) == ({"run": 140, "skipped": 0, "failed": 0}, name)
    assert studies(house)[name][:60] == shown
    assert len(studies(house)[name]) == 140
    done_before = {each["days"] * 1000 + each["period"] for each in shown}
    again = tried(log).keys() & done_before
    assert len(again) <= 13, "of the finished ones only what is verified and shown"
    progress = told(house, found["run_id"], lambda each: each["stage"] == "done")
    assert best_so_far(progress)[:12] == bests
    assert best_so_far(progress)[-1] == pytest.approx(found["best"]["objective"], rel=1e-3)

    house.json("cache", "clear")
    undisturbed = house.json("optimize", "--resume", run_id)
    assert undisturbed["result_hash"] == found["result_hash"]
    assert len(studies(house)[name]) == 140, "the same search is the same study"


def test_patience_and_embargo_by_the_command(house: House) -> None:
    asked = ("optimize", *TERMS, "--space", "fast=2:40", "--space", "slow=41:200", "--method", "random")
    found = house.json(
        *asked, "--trials", "2000", "--patience", "60", "--walk-forward", "--windows", "4", "--embargo", "15"
    )
    stopped, counts = found["stopped"], found["trials"]
    assert stopped["trials"] == sum(counts.values()) < stopped["of"] == 2000
    assert stopped["trials"] - stopped["best_trial"] >= stopped["patience"] == 60
    assert found["overfitting"]["trials"] == stopped["trials"]
    assert pq.read_table(found["artifacts"]["trials"]).num_rows == stopped["trials"]
    assert "Stopped early, after" in Path(found["artifacts"]["report"]).read_text(encoding="utf-8")
    assert found["walk_forward"]["embargo"] == 15
    bars = [window["train_bars"] for window in found["walk_forward"]["each"]]
    assert [bars[0] - each for each in bars] == [0, 0, 15, 30]
