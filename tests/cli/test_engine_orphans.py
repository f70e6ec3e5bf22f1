"""What outlives the part that started it: deaf to SIGTERM, in sessions of its own, as a template and its runs are."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.engine.processes import wait_gone
from gpt_trader.processes import ProcessId, stat_fields
from tests.cli.engines import FakeEngine, command_line, fake_engine, until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="adopting orphans and reading /proc are Linux's"
)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path, monkeypatch) as fake:
        monkeypatch.setenv("GPT_TRADER_TEST_WORKER", "sessions")
        yield fake


def below_worker(engine: FakeEngine, but: tuple[ProcessId, ...] = ()) -> tuple[ProcessId, ...]:
    """Return the worker's child and grandchild, when both have come up; `but` are those of an earlier worker."""

    def both() -> tuple[ProcessId, ...] | None:
        names = (b"\0child\0", b"\0grandchild\0")
        found = tuple(p for p in engine.processes() if command_line(p).endswith(names) and p not in but)
        deaf = all(_ignores_sigterm(process.pid) for process in found)
        return found if len(found) == 2 and deaf else None

    return until(both, "the worker's child and grandchild")


def _ignores_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    ignored = next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(ignored, 16) >> (signal.SIGTERM - 1) & 1)


def kill_worker(engine: FakeEngine) -> None:
    pid = engine.pid("worker")
    os.kill(pid, signal.SIGKILL)
    until(lambda: not stat_fields(pid), "the supervisor has reaped the worker")


def test_orphans_have_their_time_and_are_then_killed_and_reaped(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_TRADER_TEST_ORPHAN_SECONDS", "1.5")
    supervisor = engine.ensure().pid
    orphans = below_worker(engine)
    kill_worker(engine)
    others = below_worker(engine, but=orphans)
    assert [process.alive for process in orphans] == [True, True], "killed before their time"

    assert wait_gone(orphans, 10) == []
    assert [process.alive for process in others] == [True, True], "those of the worker that lives"
    until(lambda: all(not stat_fields(process.pid) for process in orphans), "no zombie is left")
    assert ProcessId.of(supervisor) is not None


def test_down_does_not_leave_orphans_the_rest_of_their_time(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_TRADER_TEST_ORPHAN_SECONDS", "600")
    engine.ensure()
    orphans = below_worker(engine)
    kill_worker(engine)

    assert engine.stop() is True
    assert wait_gone(orphans, 0) == []
    assert engine.processes() == []


def test_down_kills_what_stands_still_when_its_worker_has_ended_in_order(engine: FakeEngine) -> None:
    engine.ensure()
    hung = below_worker(engine)
    for process in hung:
        process.send(signal.SIGSTOP)

    assert engine.stop() is True
    assert wait_gone(hung, 0) == []
    assert engine.processes() == []


@pytest.mark.parametrize("again", ["down", "up"])
def test_what_a_killed_supervisor_and_a_killed_worker_leave_is_found(engine: FakeEngine, again: str) -> None:
    supervisor = ProcessId.of(engine.ensure().pid)
    assert supervisor is not None
    left = below_worker(engine)
    supervisor.send(signal.SIGSTOP)
    os.kill(engine.pid("worker"), signal.SIGKILL)
    supervisor.send(signal.SIGKILL)
    assert wait_gone([supervisor], 10) == []
    assert [process.alive for process in left] == [True, True]

    if again == "down":
        assert engine.stop() is True
        assert engine.processes() == []
    else:
        engine.ensure()
    assert wait_gone(left, 0) == []


def test_down_spares_whoever_only_names_the_same_home(engine: FakeEngine) -> None:
    address = engine.ensure()
    bystander = subprocess.Popen(["sleep", "60"], env=os.environ | {"GPT_TRADER_HOME": str(engine.home.root)})
    try:
        os.kill(address.pid, signal.SIGKILL)
        assert engine.stop() is True
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
