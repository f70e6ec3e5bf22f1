"""What becomes of an optimization whose computing processes are killed, or run out of memory (faults row 18)."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from flows.processes import ATTEMPTS
from tests.flows.conftest import Engine, gone, kill
from tests.flows.optimizing import Optimizing, Trial, dask_cluster
from tests.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CHUNK, TRIALS, KILLS = 20, 400, 4

Figure = Callable[[str], None]


@pytest.fixture
def optimizing(engine_parts: Engine, tmp_path: Path) -> Iterator[Optimizing]:
    one = Optimizing(engine_parts, tmp_path)
    yield one
    one.close()


@pytest.fixture(params=["processes", "dask"])
def where(request: pytest.FixtureRequest, optimizing: Optimizing) -> Iterator[dict[str, Any]]:
    """Options that compute in processes, or on a Dask cluster that stays."""
    with dask_cluster(optimizing.folder) if request.param == "dask" else nullcontext(None) as cluster:
        address = cluster.address if cluster else None
        yield {"runner": request.param, "address": address, "chunk": CHUNK}


@pytest.mark.parametrize("seeds", [range(6)])
def test_killed_at_random_it_ends_equal_and_redoes_no_chunk_that_came_back(
    optimizing: Optimizing, where: dict[str, Any], seeds: range, figure: Figure
) -> None:
    request = optimizing.request(TRIALS, pace=0.008)
    undisturbed = optimizing.run(request, "threads", chunk=CHUNK)
    assert undisturbed["state"] == "COMPLETED", undisturbed
    equal = kills = redone = finished = 0
    for seed in seeds:
        optimizing.forget()
        process = optimizing.begin(request, **where)
        killed = _kill_some(optimizing, process, random.Random(seed))
        ended = optimizing.end(process)
        trials = [trial for trial in optimizing.tried() if trial.pid != process.pid]
        equal += ended.get("result_hash") == undisturbed["result_hash"]
        kills += killed
        redone += len(trials) - TRIALS
        finished += sum(trial.number // CHUNK * CHUNK in trial.after for trial in trials)
        assert ended["state"] == "COMPLETED", f"seed {seed}: {ended}"
        assert {trial.number for trial in trials} == set(range(TRIALS)), f"seed {seed}: some are lost"
        assert len(trials) - TRIALS <= killed * CHUNK, f"seed {seed}: more was done again than was under way"
    figure(
        f"optimize by {where['runner']}, {kills} of its processes killed in {len(seeds)} runs: "
        f"equal {equal}/{len(seeds)}, trials redone {redone / TRIALS / len(seeds):.1%} (what was under way), "
        f"of chunks that had come back {finished}"
    )
    assert (equal, finished) == (len(seeds), 0)
    assert kills >= 2 * len(seeds)


def _kill_some(optimizing: Optimizing, process: subprocess.Popen[str], chance: random.Random) -> int:
    """SIGKILL one of the processes that compute, at random moments of the run; return how often."""
    kills = 0
    for moment in sorted(chance.sample(range(20, TRIALS - 40), KILLS)):

        def living(since: int = moment) -> list[int] | None:
            """Return who computes, once so many combinations were tried; [] at the end."""
            trials = optimizing.tried()
            pids = {trial.pid for trial in trials[-CHUNK:]} - {process.pid}
            alive = sorted(pid for pid in pids if not gone(pid))
            if process.poll() is not None or _distinct(trials) == TRIALS:
                return []
            return alive if _distinct(trials) >= since and alive else None

        pids = eventually(lambda look=living: look() is not None and (look(),), seconds=60, what="a process")[
            0
        ]
        if pids:
            kill(chance.choice(pids))
            kills += 1
    return kills


def _distinct(trials: list[Trial]) -> int:
    return len({trial.number for trial in trials})


def test_a_combination_that_needs_too_much_memory_has_failed_and_the_others_go_on(
    optimizing: Optimizing, where: dict[str, Any], figure: Figure
) -> None:
    """It meets a limit of its process's (RLIMIT_AS), as in a container."""
    ended = optimizing.run(optimizing.request(60, hungry=33), **where)
    assert ended["state"] == "COMPLETED", ended
    assert ended["trials"] == {"run": 59, "skipped": 0, "failed": 1}
    assert [(each["reason"].split(":")[0], each["trials"]) for each in ended["reasons"]] == [
        ("MemoryError", 1)
    ]
    pids = Counter(trial.pid for trial in optimizing.tried())
    assert sum(pids.values()) >= 60
    figure(f"optimize by {where['runner']}, one of 60 combinations without memory: {ended['trials']}")


def test_a_combination_that_gets_its_process_killed_ends_the_run_after_a_few_attempts(
    optimizing: Optimizing, where: dict[str, Any], figure: Figure
) -> None:
    """As Linux does where the machine has no memory left: SIGKILL, each time."""
    ended = optimizing.run(optimizing.request(60, deadly=33, pace=0.01), **where)
    tries = sum(trial.number == 33 for trial in optimizing.tried())
    assert ended["state"] == "FAILED", ended
    assert "chunk 1 of trials (number=20 to number=39) lost" in ended["message"]
    assert "Is it memory?" in ended["message"]
    allowed = ATTEMPTS if where["runner"] == "processes" else 8  # twice Dask's allowed-failures and the last
    assert tries == allowed
    figure(
        f"optimize by {where['runner']}, a combination that is killed each time: tried {tries} times, then Failed"
    )
    # What was finished is kept; without the one combination the rest is done from there.
    assert {trial.number for trial in optimizing.tried()} >= set(range(20))
