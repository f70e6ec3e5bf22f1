"""Engines of fake parts for the tests: started in the background by our own code, looked at through engine.json."""

import http.client
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pytest

from cli.engine.processes import kill_all
from cli.engine.record import EngineRecord, PartRecord, read_record
from cli.engine.running import EngineAddress, stop_engine
from cli.engine.start import ensure_engine, reap
from gpt_trader.processes import ProcessId
from gpt_trader.settings import Home, load_settings

T = TypeVar("T")

FAKE_SUPERVISOR = (sys.executable, "-P", str(Path(__file__).with_name("fake_supervisor.py")))


def until(look: Callable[[], T | None], what: str, seconds: float = 20.0) -> T:
    """Return the first truthy thing `look` sees; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {what}")


@dataclass
class FakeEngine:
    home: Home
    said: list[str] = field(default_factory=list)

    def ensure(self, **options: object) -> EngineAddress:
        settings = load_settings()
        return ensure_engine(settings, self.home, say=self.said.append, command=FAKE_SUPERVISOR, **options)  # type: ignore[arg-type]

    def stop(self, timeout: float = 30.0) -> bool:
        return stop_engine(self.home, timeout)

    @property
    def record(self) -> EngineRecord:
        return until(lambda: read_record(self.home), "engine.json")

    def part(self, name: str) -> PartRecord:
        return self.record.parts[name]

    def pid(self, name: str) -> int:
        process = self.part(name).process
        assert process is not None
        return process.pid

    def await_state(self, name: str, state: str, seconds: float = 20.0) -> PartRecord:
        def look() -> PartRecord | None:
            record = read_record(self.home)
            part = record.parts.get(name) if record else None
            return part if part is not None and part.state == state else None

        return until(look, f"{name} {state}", seconds)

    def processes(self) -> list[ProcessId]:
        """Every living process whose environment names this home, but not the test itself."""
        mark = f"GPT_TRADER_HOME={self.home.root}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    named = mark in (entry / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                process = ProcessId.of(int(entry.name)) if named else None
                if process is not None:
                    found.append(process)
        return found


@contextmanager
def fake_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    """An engine of this test alone, on any free ports; afterwards nothing of it may be left."""
    for name in [name for name in os.environ if name.startswith(("GPT_TRADER_", "PREFECT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GPT_TRADER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GPT_TRADER_API_PORT", "0")
    monkeypatch.setenv("GPT_TRADER_PREFECT_PORT", "0")
    fake = FakeEngine(Home(tmp_path / "home"))
    yield fake
    fake.stop(timeout=10)
    left = fake.processes()
    kill_all(left)
    reap()
    cluster = fake.home.database / "cluster"
    if cluster.is_symlink():  # as root the database lives outside the home
        shutil.rmtree(cluster.resolve())
    assert left == [], "the engine left processes behind"


def command_line(process: ProcessId) -> bytes:
    """The process's arguments, NUL-separated; empty if it is gone."""
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def status_of(url: str, path: str) -> int:
    """The HTTP status of `GET path` there."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status
