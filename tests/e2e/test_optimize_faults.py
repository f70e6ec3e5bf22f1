"""Whole houses whose parts die while an optimization computes in processes (faults row 17)."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.house import FINAL, House
from tests.flows.conftest import gone, kill
from tests.waiting import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the engine's processes in /proc"),
]

#: Of chunks of 500, the second and third wait for the gate. Each combination is noted, with who tries it.
PATIENT = '''
import os
from pathlib import Path

from gpt_trader.strategies.base import Strategy


class Patient(Strategy):
    """In for `number` % 40 + 1 bars, out for as many."""

    folder: str
    number: int = 0

    def targets(self, bars, first=0):
        import time

        import numpy as np

        with (Path(self.folder) / "log").open("a") as file:
            file.write(f"{self.number} {os.getpid()}\\n")
        while self.number >= 500 and not (Path(self.folder) / "gate").exists():
            time.sleep(0.02)
        wanted = (np.arange(len(bars)) // (self.number % 40 + 1) % 2).astype(float)
        wanted[:first] = 0
        return wanted
'''


@pytest.fixture(scope="module")
def by_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """An engine whose optimizations compute in two processes."""
    house = House.in_folder(tmp_path_factory.mktemp("processes"))
    house.environment |= {"GPT_TRADER_OPTIMIZE_RUNNER": "processes", "GPT_TRADER_OPTIMIZE_WORKERS": "2"}
    (house.cwd / "patient.py").write_text(PATIENT)
    house.ensure_up()
    yield house
    down = house.run("down")
    assert (down.returncode, house.processes()) == (0, {}), down.stderr


def tried(folder: Path) -> list[tuple[int, int]]:
    """Return who tried which combination, in order: number and process id."""
    text = (folder / "log").read_text() if (folder / "log").exists() else ""
    return [
        (int(number), int(pid)) for number, pid in map(str.split, text[: text.rfind("\n") + 1].splitlines())
    ]


def begin(house: House, folder: Path) -> str:
    """Start an optimization of three chunks; return its id once the first is kept and the others wait."""
    folder.mkdir()
    kept = house.home.cache / "arrays"
    before = set(kept.glob("*/state.npy"))
    started = house.json(
        "workflow", "run", "optimize", "--param", "symbol=AAPL", "--param", "strategy=./patient.py:Patient",
        "--param", f"params.folder={folder}", "--param", "space.number=0:1499",
        "--param", "report=false", "--param", "start=2010-01-04", "--param", "end=2011-12-30",
    )  # fmt: skip
    run_id = str(started["run_id"])
    eventually(
        lambda: set(kept.glob("*/state.npy")) - before and {500, 1000} <= {n for n, _ in tried(folder)},
        seconds=90,
        what="a chunk that is kept, and two that wait",
    )
    return run_id


def test_prefects_server_killed_in_the_middle_changes_nothing(
    by_processes: House, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    house, folder = by_processes, tmp_path / "run"
    run_id = begin(house, folder)
    house.kill_part("prefect")
    (folder / "gate").touch()
    house.await_state(run_id, {"COMPLETED"})
    assert house.result(run_id)["trials"] == {"run": 1500, "skipped": 0, "failed": 0}
    counts = Counter(number for number, _ in tried(folder))
    assert set(counts) == set(range(1500))
    assert sum(count > 1 for count in counts.values()) < 30, "but for what is verified and shown: each once"
    house.json("cache", "clear")
    assert house.json("workflow", "reproduce", run_id)["equal"] is True
    figure("Prefect's server killed during an optimize by processes: completed, and equal to one undisturbed")


def test_worker_and_run_killed_together_it_is_crashed_and_goes_on_where_it_was(
    by_processes: House, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    house, seeds = by_processes, range(4)
    runs, redone = [], 0
    for seed in seeds:
        folder = tmp_path / str(seed)
        run_id = begin(house, folder)
        runs.append(run_id)
        before = tried(folder)
        worker, child = house.child_of(run_id)
        computing = {pid for _, pid in before} - {child}
        template = next(pid for pid, line in house.processes().items() if "flows.template" in line)
        _kill_together([worker, template, child], random.Random(seed))
        eventually(lambda pids=computing: all(map(gone, pids)), what="the end of what computed")
        house.await_part_after("worker", worker)
        assert house.await_state(run_id, FINAL) == "CRASHED", f"seed {seed}"
        (folder / "log").unlink()
        (folder / "gate").touch()
        found = house.json("optimize", "--resume", run_id)
        runs.append(found["run_id"])
        assert found["trials"] == {"run": 1500, "skipped": 0, "failed": 0}
        counts = Counter(number for number, _ in tried(folder))
        assert set(range(500, 1500)) <= set(counts)
        # Of the chunk that was kept only what is verified and shown: the best, and ten drawn at random.
        redone += sum(number < 500 for number in counts) > 30
    house.json("cache", "clear")
    assert house.json("workflow", "reproduce", runs[-1])["equal"] is True, "done anew, all of it"
    stuck = [run_id for run_id in runs if house.state(run_id) not in FINAL]
    assert not list((house.home.state / "running").glob("*.json")), "a claim of a run that has ended"
    figure(
        f"worker and run killed together during an optimize by processes, {len(seeds)} times: stuck runs "
        f"{len(stuck)}, kept chunks redone {redone}"
    )
    assert (stuck, redone) == ([], 0)


def _kill_together(pids: list[int], chance: random.Random) -> None:
    """Stop them all, then kill them, in any order: none may see another one die."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
    finally:
        for pid in chance.sample(pids, len(pids)):
            kill(pid)
