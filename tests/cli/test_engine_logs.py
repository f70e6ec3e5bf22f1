"""Logs stay bounded while those who write them go on."""

import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.engine.logs import LOG_LIMIT, open_log, rotate
from tests.cli.engines import FakeEngine, fake_engine, until


def test_a_log_is_put_aside_under_its_writer(tmp_path: Path) -> None:
    path, aside = tmp_path / "part.log", tmp_path / "part.log.1"
    with open_log(path) as writer:
        writer.write(b"old\n" + b"x" * (LOG_LIMIT - 4))
        writer.flush()
        rotate(path)
        assert not aside.exists(), "it holds what it may hold"

        writer.write(b"new\n")
        writer.flush()
        rotate(path)
        writer.write(b"next\n")

    assert path.read_bytes() == b"next\n"
    kept = aside.read_bytes()
    assert (len(kept), kept[:1], kept[-4:]) == (LOG_LIMIT, b"x", b"new\n")
    assert [entry.name for entry in sorted(tmp_path.iterdir())] == ["part.log", "part.log.1"]
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in (path, aside)} == {0o600}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path, monkeypatch) as fake:
        yield fake


@pytest.mark.skipif(sys.platform != "linux", reason="finds its own leftovers in /proc")
def test_the_supervisor_bounds_the_log_of_a_part_that_runs(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_TRADER_TEST_WORKER", "chatty")
    supervisor = engine.ensure().pid
    log, aside = engine.home.logs / "worker.log", engine.home.logs / "worker.log.1"
    before = engine.pid("worker")
    os.kill(supervisor, signal.SIGCHLD)  # whatever wakes it has it look
    until(aside.exists, "the log is put aside")
    assert log.stat().st_size <= LOG_LIMIT
    assert aside.stat().st_size <= LOG_LIMIT

    os.kill(before, signal.SIGUSR1)
    until(lambda: log.read_bytes().endswith(b"still here\n"), "its writer goes on in the same file")
    assert b"\0" not in log.read_bytes()
    assert engine.pid("worker") == before
