"""What computes trials is a setting: the outcome is equal to the last bit, and what fails says why."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from flows.cluster import computed
from flows.processes import ATTEMPTS, Processes, Stopped
from flows.runners import chosen
from gpt_trader.errors import GptTraderError, Refused
from gpt_trader.settings import Settings
from tasks.provenance import code_version, library_versions
from tests.flows.conftest import ROOT, Engine, free_port, gone, pid_in
from tests.flows.optimizing import Optimizing, dask_cluster
from tests.waiting import eventually

pytestmark = pytest.mark.house


@pytest.fixture
def optimizing(engine_parts: Engine, tmp_path: Path) -> Iterator[Optimizing]:
    one = Optimizing(engine_parts, tmp_path)
    yield one
    one.close()


def elsewhere(
    optimizing: Optimizing, expected: dict[str, Any], keys: set[str], runner: str, **options: Any
) -> None:
    """Do it again from nothing and hold it against the first time."""
    optimizing.forget()
    process = optimizing.begin(optimizing.request(**REQUEST), runner, **options)
    found = optimizing.end(process)
    assert (found["state"], found["result_hash"]) == ("COMPLETED", expected["result_hash"]), found
    trials = [trial for trial in optimizing.tried() if trial.pid != process.pid]
    assert sorted(trial.number for trial in trials) == list(range(120)), "each once"
    pids = {trial.pid for trial in trials}
    assert len(pids) == 2, "side by side"
    # Kept by the run itself, wherever it was computed: a run after it finds all of it.
    assert kept(optimizing) == keys
    if "address" not in options:
        eventually(lambda: all(map(gone, pids)), what="the end of the processes")


#: A trial takes 20 ms, so that no process does all of them before the other is there.
REQUEST: Final[dict[str, Any]] = {"numbers": 120, "pace": 0.02}


def kept(optimizing: Optimizing) -> set[str]:
    return {entry.parent.name for entry in optimizing.arrays.glob("*/seal.json")}


@pytest.mark.timeout(420)  # two runs, each of which may take as long as `Optimizing.end` lets it
def test_threads_and_processes_are_equal_to_the_last_bit(optimizing: Optimizing) -> None:
    """A user's own strategy, which no process but the run's finds in a module."""
    expected = optimizing.run(optimizing.request(**REQUEST), "threads")
    assert expected["state"] == "COMPLETED", expected
    elsewhere(optimizing, expected, kept(optimizing), "processes")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_threads_and_dask_are_equal_to_the_last_bit(optimizing: Optimizing) -> None:
    """On workers that share neither home nor lake nor database nor Prefect, and on a cluster of the run's own."""
    expected = optimizing.run(optimizing.request(**REQUEST), "threads")
    with dask_cluster(optimizing.folder) as cluster:
        elsewhere(optimizing, expected, kept(optimizing), "dask", address=cluster.address)
    elsewhere(optimizing, expected, kept(optimizing), "dask")


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_named_within_seconds(optimizing: Optimizing) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    began = time.monotonic()
    found = optimizing.run(optimizing.request(60), "dask", address=address)
    assert found["state"] == "FAILED"
    assert f"dask_address {address}: no Dask scheduler answers" in found["message"]
    assert "gpt-trader config set optimize_runner processes" in found["message"]
    assert optimizing.tried() == []
    assert time.monotonic() - began < 25, "10 s, and the run's own"


@pytest.mark.slow
def test_a_scheduler_that_goes_away_fails_the_run_and_names_itself(optimizing: Optimizing) -> None:
    with dask_cluster(optimizing.folder) as cluster:
        process = optimizing.begin(optimizing.request(400, pace=0.05), "dask", address=cluster.address)
        eventually(lambda: len(optimizing.tried()) > 50, seconds=60, what="trials")
        cluster.scheduler.kill()
        ended = optimizing.end(process)
    assert ended["state"] == "FAILED"
    assert f"dask_address {cluster.address}: the Dask scheduler is gone" in ended["message"]


def test_a_worker_of_another_version_computes_nothing() -> None:
    here = {"gpt-trader": code_version(), **library_versions()}
    assert computed(here, eval, "6 * 7") == 42
    with pytest.raises(GptTraderError, match=r"numpy [0-9.]+ \(the run has 1\.0\); install the same there"):
        computed({**here, "numpy": "1.0"}, eval, "1 / 0")


def test_settings_choose() -> None:
    assert chosen(Settings()) == (os.cpu_count(), None)
    assert chosen(Settings(optimize_workers=3))[0] == 3
    workers, place = chosen(Settings(optimize_runner="processes", optimize_workers=3))
    assert (workers, type(place)) == (3, Processes)
    for wrong in ("127.0.0.1:8786", "http://127.0.0.1:8786", "tcp://127.0.0.1", "tcp:// x:1"):
        with pytest.raises(ValueError, match="give tcp://HOST:PORT or tls://HOST:PORT"):
            Settings(dask_address=wrong)
    with pytest.raises(ValueError, match="'threads', 'processes' or 'dask'"):
        Settings(optimize_runner="process")  # type: ignore[arg-type]


def test_dask_and_its_kind_are_imported_by_who_uses_them() -> None:
    """Neither the command line nor the template waits for them."""
    code = "import sys, flows.optimize; print([m for m in ('dask', 'distributed', 'prefect_dask') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


# Processes by themselves. What they are to do must be importable in them: plain functions of libraries.


@pytest.fixture
def lost() -> list[str]:
    return []


@pytest.fixture
def processes(lost: list[str]) -> Iterator[Processes]:
    place = Processes(lost.append)
    yield place
    place.stop()


def test_a_call_is_made_in_a_process_that_the_next_one_finds(processes: Processes, lost: list[str]) -> None:
    pids = {processes.call("this", eval, "__import__('os').getpid()") for _ in range(3)}
    assert pids == set(processes.pids())
    assert os.getpid() not in pids
    assert lost == []


def test_what_a_call_raises_is_raised_here_with_where_it_was(processes: Processes) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        processes.call("this", eval, "1 / 0")
    assert "in _answer" in raised.value.__notes__[0]
    with pytest.raises(Refused, match="no such thing") as refused:
        processes.call("this", exec, "from gpt_trader.errors import *; raise Refused('no such thing')")
    assert refused.value.detail == "no such thing"
    with pytest.raises(GptTraderError, match="Own: of the call's"):
        processes.call("this", exec, "class Own(Exception): pass\nraise Own('of the call\\'s')")


def test_a_call_that_kills_its_process_is_made_so_often_and_no_more(
    processes: Processes, lost: list[str], tmp_path: Path
) -> None:
    code = f"import os; open({str(tmp_path / 'log')!r}, 'a').write('x'); os.kill(os.getpid(), 9)"
    with pytest.raises(GptTraderError, match=r"chunk 7 lost .* for the third time \(SIGKILL\)"):
        processes.call("chunk 7", exec, code)
    assert (tmp_path / "log").read_text() == "x" * ATTEMPTS
    assert len(lost) == ATTEMPTS
    assert processes.call("this", eval, "6 * 7") == 42


def test_a_killed_process_takes_no_other_call_along(processes: Processes, tmp_path: Path) -> None:
    """While one process is killed again and again, a call in another is made once."""
    gate = tmp_path / "gate"
    waiting = (
        f"open({str(tmp_path / 'log')!r}, 'a').write('x'); import pathlib, time\n"
        f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)"
    )
    thread = threading.Thread(target=processes.call, args=("that", exec, waiting))
    thread.start()
    eventually((tmp_path / "log").exists, what="the call that waits")
    with pytest.raises(GptTraderError, match="third time"):
        processes.call("this", exec, "import os; os.kill(os.getpid(), 9)")
    gate.touch()
    thread.join(15)
    assert not thread.is_alive()
    assert (tmp_path / "log").read_text() == "x"


def test_stopped_it_ends_calls_at_once(tmp_path: Path) -> None:
    place = Processes(print)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            place.call("this", exec, f"open({str(tmp_path / 'log')!r}, 'a'); import time; time.sleep(1000)")
        except GptTraderError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    eventually((tmp_path / "log").exists, what="the call")
    pids = place.pids()
    place.stop()
    thread.join(5)
    assert [type(error) for error in raised] == [Stopped]
    assert all(map(gone, pids))
    with pytest.raises(Stopped):
        place.call("this", eval, "1")


def test_a_process_goes_with_a_killed_parent(tmp_path: Path) -> None:
    """Busy as it is: nothing is delivered to it when its parent is killed."""
    busy = (
        f"import os, pathlib; pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "while True: pass"
    )
    code = (
        "from flows.processes import Processes\n"
        f"if __name__ == '__main__':\n    Processes(print).call('this', exec, {busy!r})"
    )
    (tmp_path / "parent.py").write_text(code)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        pid = pid_in(tmp_path / "pid")
    finally:
        parent.kill()
        parent.wait()
    eventually(lambda: gone(pid), what="the end of the process")


def test_a_study_of_a_users_file_is_made_again_where_the_file_is_not(tmp_path: Path) -> None:
    """In an interpreter that was told nothing but the pickled study."""
    from gpt_trader.optimization.space import search_space
    from gpt_trader.optimization.study import Study
    from gpt_trader.requests import OptimizeRequest
    from gpt_trader.strategies.user import load_file
    from tests.sample_bars import sample_bars

    source = tmp_path / "own.py"
    source.write_text(
        "from gpt_trader.strategies.base import Strategy\nSHARE = 0.5\n"
        "class Own(Strategy):\n    span: int = 5\n    def targets(self, bars, first=0):\n"
        "        import numpy as np\n        wanted = SHARE * (np.arange(len(bars)) // self.span % 2)\n"
        "        wanted[:first] = 0\n        return wanted\n"
    )
    strategy = load_file(source, "Own")
    request = OptimizeRequest(symbol="AAPL", strategy="own.py:Own", space={"span": [2, 3, 5]})
    study = Study(sample_bars("AAPL"), 0, strategy, search_space(strategy, request), request)
    expected = study.screen([0, 1, 2]).rows.tobytes()
    pickled = pickle.dumps(study)
    source.unlink()
    code = (
        "import hashlib, pickle, sys; study = pickle.loads(sys.stdin.buffer.read());"
        "print(hashlib.sha256(study.screen([0, 1, 2]).rows.tobytes()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        input=pickled,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().strip() == hashlib.sha256(expected).hexdigest()
