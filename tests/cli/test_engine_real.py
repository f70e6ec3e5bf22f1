"""The engine with its real parts: every part and the supervisor killed in turn, and the same result after each."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.engines import FakeEngine, fake_engine, until

pytestmark = [
    pytest.mark.house,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="finds its own leftovers in /proc"),
]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    with fake_engine(
        tmp_path, monkeypatch
    ) as real:  # its home and its watch over leftovers; the parts are real
        yield real


def trader(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "gpt_trader", "--output", "json", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def result_hash() -> str:
    return str(trader("backtest", "--symbol", "AAPL", "--strategy", "ma_crossover")["result_hash"])


def test_every_part_and_the_supervisor_may_be_killed(engine: FakeEngine) -> None:
    expected = result_hash()  # finds no engine and starts it
    for name in ("api", "prefect", "worker", "database"):
        killed = engine.pid(name)
        os.kill(killed, signal.SIGKILL)

        def is_back(name: str = name, killed: int = killed) -> bool:
            part = engine.part(name)
            return part.state == "ready" and part.process is not None and part.process.pid != killed

        until(is_back, f"{name} is back", seconds=120)
        assert result_hash() == expected
    os.kill(engine.record.supervisor.pid, signal.SIGKILL)
    assert result_hash() == expected  # finds a killed engine, clears what it left and starts another
    states = {name: part["state"] for name, part in trader("status")["parts"].items()}
    assert states == dict.fromkeys(("database", "prefect", "worker", "api"), "ready")
    began = time.monotonic()
    assert trader("down") == {"state": "stopped", "was_running": True}
    assert time.monotonic() - began < 30
