"""The engine's life with fake parts but real processes: found, started, detached, stopped."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cli.engine.record import EngineRecord, PartRecord, read_record, write_record
from cli.engine.running import find_engine
from gpt_trader.errors import EngineUnreachable, Refused
from gpt_trader.processes import ProcessId
from gpt_trader.settings import Home
from tests.cli.engines import FakeEngine, command_line, fake_engine, status_of, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds its own leftovers in /proc")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path, monkeypatch) as fake:
        yield fake


def environment_of(engine: FakeEngine, part: str) -> dict[str, str]:
    return json.loads((engine.home.state / f"{part}.environment").read_text())


def test_a_started_engine_answers_is_found_and_stops(engine: FakeEngine) -> None:
    assert find_engine(engine.home) is None
    address = engine.ensure()
    assert status_of(address.api_url, "/api/v1/system/health/ready") == 200
    assert status_of(address.prefect_url or "", "/api/health") == 200
    assert find_engine(engine.home) == address
    assert {name: part.state for name, part in engine.record.parts.items()} == dict.fromkeys(
        ("database", "prefect", "worker", "api"), "ready"
    )
    began = time.monotonic()
    assert engine.stop() is True
    assert time.monotonic() - began < 5
    assert find_engine(engine.home) is None
    assert not engine.home.engine.exists()
    assert engine.processes() == []
    assert engine.stop() is False


def test_what_the_user_is_told_while_waiting(engine: FakeEngine) -> None:
    engine.ensure()
    assert engine.said[0] == f"starting the local engine of {engine.home.root}"
    ready = [line.split() for line in engine.said[1:] if line.startswith("  ")]
    assert {(words[0], words[1], words[2]) for words in ready} == {
        (name, "ready", "after") for name in ("database", "prefect", "worker", "api")
    }


def test_files_are_private(engine: FakeEngine) -> None:
    engine.ensure()
    home = engine.home
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    files = [home.engine, *home.logs.iterdir()]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert {file.name for file in files} >= {"engine.json", "engine.log", "api.log", "database.log"}


def test_parts_start_side_by_side_and_one_that_is_late_is_named(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_TRADER_TEST_WORKER", "never")
    with pytest.raises(EngineUnreachable, match=r"^worker not ready after 2 s") as caught:
        engine.ensure(timeout=2)
    assert str(engine.home.logs / "worker.log") in caught.value.detail
    for name in ("database", "prefect", "api"):
        engine.await_state(name, "ready")
    assert engine.part("worker").state == "starting"


def test_environment_of_a_part(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere.example/api")
    monkeypatch.setenv("PREFECT_PROFILE", "work")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "a:b")
    monkeypatch.setenv("GPT_TRADER_API_KEY", "secret")
    monkeypatch.setenv("GPT_TRADER_WORKER_LIMIT", "7")
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}/nowhere")
    address = engine.ensure()
    seen = environment_of(engine, "worker")
    assert seen["GPT_TRADER_HOME"] == str(engine.home.root)
    assert seen["PREFECT_API_URL"] == f"{address.prefect_url}/api"
    assert seen["PREFECT_HOME"] == str(engine.home.prefect)
    assert seen["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert seen["PREFECT_API_AUTH_STRING"] == "a:b"
    assert seen["GPT_TRADER_API_PORT"] == str(urlsplit(address.api_url).port)
    assert seen["GPT_TRADER_PREFECT_PORT"] == str(urlsplit(address.prefect_url or "").port)
    assert seen["GPT_TRADER_WORKER_LIMIT"] == "7"
    assert seen["PYTHONPATH"] == f"{Path(__file__).parents[2]}{os.pathsep}/nowhere"
    assert not {"PREFECT_PROFILE", "GPT_TRADER_API_KEY"} & set(seen)


def test_callers_at_the_same_time_start_one_engine(engine: FakeEngine) -> None:
    with ThreadPoolExecutor(4) as pool:
        addresses = set(pool.map(lambda _: engine.ensure(), range(4)))
    assert len(addresses) == 1
    pid = addresses.pop().pid

    def one_is_left() -> bool:  # those that came second are on their way out
        return [p.pid for p in engine.processes() if b"fake_supervisor" in command_line(p)] == [pid]

    until(one_is_left, "one supervisor")


def test_a_start_waits_for_an_engine_that_is_stopping(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_TRADER_TEST_API", "stubborn")
    first = engine.ensure()
    os.kill(first.pid, signal.SIGTERM)
    until(lambda: engine.record.state == "stopping", "the engine is stopping")
    monkeypatch.delenv("GPT_TRADER_TEST_API")
    second = engine.ensure()
    assert second.pid != first.pid
    assert status_of(second.api_url, "/api/v1/system/health/ready") == 200


def test_engine_file_round_trip(engine: FakeEngine) -> None:
    engine.home.state.mkdir(parents=True)
    part = PartRecord("failed", "http://127.0.0.1:1", ProcessId(7, "b:1"), 3, 1.5, "killed", ("line",))
    record = EngineRecord(
        ProcessId(6, "b:0"), "1", "2026-01-01T00:00:00Z", "u", "v", {"api": part}, "stopping"
    )
    write_record(engine.home, record)
    assert read_record(engine.home) == record
    engine.home.engine.unlink()


def test_two_homes_are_two_engines(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = engine.ensure()
    monkeypatch.setenv("GPT_TRADER_HOME", str(tmp_path / "other"))
    other = FakeEngine(Home(tmp_path / "other"))
    try:
        second = other.ensure()
        assert (second.api_url, second.prefect_url) != (first.api_url, first.prefect_url)
        assert find_engine(engine.home) == first
    finally:
        other.stop()
    assert status_of(first.api_url, "/api/v1/system/health/ready") == 200


def test_a_chosen_port_that_is_taken_is_refused(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("GPT_TRADER_API_PORT", str(port))
        with pytest.raises(Refused, match=f"api_port: port {port} is taken"):
            engine.ensure()
    assert engine.processes() == []
    address = engine.ensure()
    assert address.api_url == f"http://127.0.0.1:{port}"
    assert engine.ensure() == address


def test_only_some_parts_beside_servers_elsewhere(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        place = f"127.0.0.1:{elsewhere.getsockname()[1]}"
        monkeypatch.setenv("GPT_TRADER_DATABASE_URL", f"postgresql://me:secret@{place}/trader")
        monkeypatch.setenv("GPT_TRADER_PREFECT_API_URL", f"http://{place}/api")
        address = engine.ensure(only=("api",), needs=("api",))
    record = engine.record
    assert set(record.parts) == {"api", "database", "prefect"}
    assert record.parts["database"] == PartRecord("external", f"postgresql://{place}/trader")
    assert address.prefect_url == f"http://{place}"
    assert environment_of(engine, "api")["PREFECT_API_URL"] == f"http://{place}/api"
    assert "secret" not in engine.home.engine.read_text()


def test_a_part_without_its_servers_address_is_refused(engine: FakeEngine) -> None:
    with pytest.raises(Refused, match=r"worker cannot run without database.*GPT_TRADER_DATABASE_URL"):
        engine.ensure(only=("worker",))


def test_a_detached_engine_holds_no_pipe(engine: FakeEngine) -> None:
    """`gpt-trader backtest | cat` must end although the engine that it started goes on."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.cli.engines import FakeEngine\n"
        "from gpt_trader.settings import home\n"
        "print(FakeEngine(home()).ensure().pid)\n"
    )
    caller = subprocess.run(
        [sys.executable, "-P", "-c", program, str(Path(__file__).parents[2])],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    pid = int(caller.stdout)
    assert ProcessId.of(pid) is not None
    assert os.getsid(pid) == pid
    assert find_engine(engine.home) is not None


def test_a_record_replaced_while_it_is_read_is_whole(engine: FakeEngine) -> None:
    engine.home.state.mkdir(parents=True)
    record = EngineRecord(
        ProcessId(7, "b:1"), "1", "2026-01-01T00:00:00Z", "http://127.0.0.1:1", None, notes=("x" * 20_000,)
    )
    write_record(engine.home, record)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [write_record(engine.home, record) for _ in range(200)])
        while not writing.done():
            assert read_record(engine.home) == record
        writing.result()
    engine.home.engine.unlink()
