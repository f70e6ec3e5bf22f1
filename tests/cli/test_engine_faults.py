"""Parts that die or will not stop, supervisors that are killed or hang, files that lie: with real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.engine.life import backoff
from cli.engine.processes import wait_gone
from cli.engine.record import EngineRecord, PartRecord, write_record
from cli.engine.running import find_engine
from gpt_trader.errors import EngineUnreachable
from gpt_trader.processes import ProcessId
from tests.cli.engines import FAKE_SUPERVISOR, FakeEngine, command_line, fake_engine, status_of, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds its own leftovers in /proc")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path, monkeypatch) as fake:
        yield fake


def test_a_dead_part_is_started_again_and_the_others_go_on(engine: FakeEngine) -> None:
    engine.ensure()
    others = {name: engine.pid(name) for name in ("database", "worker", "api")}
    dead = engine.pid("prefect")
    os.kill(dead, signal.SIGKILL)
    restarting = engine.await_state("prefect", "restarting")
    assert (restarting.message, restarting.process) == ("killed by SIGKILL", None)
    ready = engine.await_state("prefect", "ready")
    assert ready.restarts == 1
    assert engine.pid("prefect") != dead
    assert {name: engine.pid(name) for name in others} == others
    assert status_of(engine.record.prefect_url or "", "/api/health") == 200


def test_a_dead_parts_children_go_with_it(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT_TRADER_TEST_WORKER", "parent")
    engine.ensure()

    def children() -> list[ProcessId]:
        return [p for p in engine.processes() if command_line(p).endswith(b"\0child\0")]

    (child,) = until(children, "the worker's child")
    os.kill(engine.pid("worker"), signal.SIGKILL)
    assert wait_gone([child], 10) == []


def test_a_part_that_keeps_dying_is_given_up_and_the_others_go_on(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_TRADER_TEST_WORKER", "dies")
    with pytest.raises(EngineUnreachable, match="worker failed") as caught:
        engine.ensure()
    assert "worker finds no flux capacitor" in caught.value.detail
    assert "worker.log" in caught.value.detail
    failed = engine.part("worker")
    assert (failed.restarts, failed.message) == (4, "ended with code 1")
    engine.await_state("api", "ready")


def test_a_part_that_refuses_is_not_tried_again(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT_TRADER_TEST_DATABASE", "refuses")
    with pytest.raises(EngineUnreachable, match="database failed"):
        engine.ensure()
    assert engine.part("database").restarts == 0


def test_a_stubborn_part_is_killed(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT_TRADER_TEST_API", "stubborn")
    monkeypatch.setenv("GPT_TRADER_TEST_DATABASE", "stubborn")
    engine.ensure()
    api, database = engine.pid("api"), engine.pid("database")
    assert engine.stop() is True
    assert ProcessId.of(api) is None
    assert ProcessId.of(database) is None


def test_a_hanging_supervisor_is_killed_within_the_bound(engine: FakeEngine) -> None:
    address = engine.ensure()
    os.kill(address.pid, signal.SIGSTOP)
    began = time.monotonic()
    assert engine.stop(timeout=3) is True
    assert time.monotonic() - began < 8  # far below the default bound, on a busy machine too
    assert engine.processes() == []


def test_parts_follow_a_killed_supervisor_and_stubborn_ones_are_stopped_on_the_next_start(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_TRADER_TEST_API", "stubborn")
    address = engine.ensure()
    api = ProcessId.of(engine.pid("api"))
    followers = [ProcessId.of(engine.pid(name)) for name in ("database", "prefect", "worker")]
    os.kill(address.pid, signal.SIGKILL)
    assert wait_gone([process for process in followers if process], 10) == []
    assert find_engine(engine.home) is None
    assert api is not None
    assert api.alive
    monkeypatch.delenv("GPT_TRADER_TEST_API")
    assert engine.ensure().pid != address.pid
    assert not api.alive
    assert "left over" in (engine.home.logs / "engine.log").read_text()


def test_down_clears_what_a_killed_supervisor_left(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_TRADER_TEST_WORKER", "stubborn")
    address = engine.ensure()
    os.kill(address.pid, signal.SIGKILL)
    assert engine.stop() is True
    assert engine.processes() == []


def test_a_recycled_pid_is_nobodys_engine(engine: FakeEngine) -> None:
    engine.home.state.mkdir(parents=True)
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        part = PartRecord("ready", process=ProcessId(stranger.pid, "another boot:17"))
        supervisor = ProcessId(stranger.pid, "another boot:16")
        write_record(
            engine.home,
            EngineRecord(supervisor, "0", "2026-01-01T00:00:00Z", "http://127.0.0.1:1", None, {"api": part}),
        )
        assert find_engine(engine.home) is None
        engine.ensure()
        engine.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 99}', '{"schema_version": 1}'])
def test_a_damaged_engine_file_is_no_engine(engine: FakeEngine, content: str) -> None:
    engine.home.root.mkdir(mode=0o700)
    engine.home.engine.write_text(content)
    assert find_engine(engine.home) is None
    assert engine.stop() is False


def test_a_foreground_engine_stops_on_interrupt_and_a_second_one_kills(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_TRADER_TEST_API", "stubborn")
    repository = str(Path(__file__).parents[2])
    supervisor = subprocess.Popen(
        FAKE_SUPERVISOR, stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": repository}
    )
    try:
        engine.await_state("api", "ready")
        supervisor.send_signal(signal.SIGINT)
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(10) == 0
    finally:
        supervisor.kill()
        supervisor.wait()
    assert engine.processes() == []


def test_backoff_doubles_up_to_half_a_minute() -> None:
    assert [backoff(1.0, deaths) for deaths in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
