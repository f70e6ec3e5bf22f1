"""A whole engine of its own, used from outside as a person or a script uses it: the shell, HTTP, Prefect."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine

from cli.engine.record import PARTS, EngineRecord, PartRecord, read_record
from gpt_trader.settings import Home, Settings
from storage.database import app_url, engine_of_its_own
from tests.api.conftest import free_port
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})

#: Holds a run inside `targets` until the file `gate` exists: a run's length is what the test decides, not a guess.
GATED = '''
from pathlib import Path

from gpt_trader.strategies.base import Strategy


class Gated(Strategy):
    """Always in, once the gate is open."""

    gate: str

    def targets(self, bars, first=0):
        import time

        import numpy as np

        while not Path(self.gate).exists():
            time.sleep(0.02)
        wanted = np.ones(len(bars))
        wanted[:first] = 0
        return wanted
'''


@dataclass
class House:
    """One home, and a working directory whose own `tasks.py` and `flows.py` would spoil every import of ours."""

    home: Home
    cwd: Path
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def in_folder(cls, folder: Path) -> House:
        cwd = folder / "work"
        cwd.mkdir()
        for name in ("tasks", "flows", "api", "cli", "storage"):
            (cwd / f"{name}.py").write_text("raise SystemExit('the working directory came first')\n")
        (cwd / "gated.py").write_text(GATED)
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("GPT_TRADER_", "PREFECT_", "COLUMNS"))
        }
        ours = {
            "GPT_TRADER_HOME": str(folder / "h"),
            "GPT_TRADER_API_PORT": "0",
            "GPT_TRADER_PREFECT_PORT": "0",
            "GPT_TRADER_CORS_ORIGINS": f"https://desk.example,http://127.0.0.1:{free_port()}",
        }
        return cls(Home(folder / "h"), cwd, inherited | ours)

    @property
    def page_port(self) -> int:
        """Where a web page may come from that the API answers."""
        return int(self.environment["GPT_TRADER_CORS_ORIGINS"].rpartition(":")[2])

    # The shell.

    def run(
        self, *arguments: str, python: tuple[str, ...] = (sys.executable, "-P")
    ) -> subprocess.CompletedProcess[str]:
        """Run the program to its end, as `./gpt-trader` does after its set-up."""
        return subprocess.run(
            [*python, "-m", "gpt_trader", *arguments],
            cwd=self.cwd,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """Run it for a script: exit code 0, and stdout is one JSON document and nothing else."""
        done = self.run("--output", "json", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the program and leave it running."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "gpt_trader", *arguments],
            cwd=self.cwd,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A background job of a non-interactive shell ignores SIGINT, and so would its child.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )

    # The engine's addresses and processes.

    @property
    def record(self) -> EngineRecord:
        found = read_record(self.home)
        assert found is not None, "there is no engine.json"
        return found

    def part(self, name: str) -> PartRecord:
        return self.record.parts[name]

    def pid(self, name: str) -> int:
        process = self.part(name).process
        assert process is not None, f"{name} has no process"
        return process.pid

    def kill_part(self, name: str, *, seconds: float = 60) -> None:
        """SIGKILL one part and wait until the supervisor has another ready."""
        killed = self.pid(name)
        os.kill(killed, signal.SIGKILL)
        self.await_part_after(name, killed, seconds=seconds)

    def await_part_after(self, name: str, killed: int, *, seconds: float = 60) -> None:
        def is_back() -> bool:
            part = self.part(name)
            return part.state == "ready" and part.process is not None and part.process.pid != killed

        eventually(is_back, seconds=seconds, what=f"another {name}")

    def processes(self) -> dict[int, str]:
        """Every living process that was started for this home, but for this one: pid and command line."""
        mark = f"GPT_TRADER_HOME={self.home.root}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().decode().replace("\0", " ")
            except OSError:
                continue
        return found

    # HTTP: our API, and Prefect's.

    @contextmanager
    def database(self) -> Iterator[Engine]:
        """Connect to the house's own database for the block."""
        engine = engine_of_its_own(app_url(Settings(), self.home))
        try:
            yield engine
        finally:
            engine.dispose()

    def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        key = self.home.root.joinpath("key").read_text(encoding="ascii").strip()
        url = f"{self.record.api_url}/api/v1{path}"
        return httpx.request(
            method, url, headers={"Authorization": f"Bearer {key}"}, timeout=20, trust_env=False, **options
        )

    def prefect(self, method: str, path: str, **options: Any) -> Any:
        url = f"{self.record.prefect_url}/api{path}"
        answer = httpx.request(method, url, timeout=20, trust_env=False, **options)
        return answer.raise_for_status().json()

    # Runs.

    def begin_gated(self, gate: Path) -> str:
        """Start a run that waits for `gate`, and return its id once it runs."""
        started = self.json(
            "workflow", "run", "backtest", "--param", "symbol=AAPL", "--param", "strategy=./gated.py:Gated",
            "--param", f"gate={gate}",
        )  # fmt: skip
        run_id = str(started["run_id"])
        self.await_state(run_id, {"RUNNING"})
        return run_id

    def state(self, run_id: str) -> str | None:
        """Return the run's state, None while the API does not answer."""
        try:
            answer = self.api("GET", f"/workflows/runs/{run_id}")
        except httpx.TransportError:
            return None
        return str(answer.json()["state"]) if answer.is_success else None

    def await_state(self, run_id: str, wanted: set[str] | frozenset[str] = FINAL) -> str:
        """Wait until the run is in one of the states, and return it; another final state is a failure."""
        awaited = wanted | FINAL
        found = eventually(
            lambda: state if (state := self.state(run_id)) in awaited else None,
            seconds=60,
            what=f"run {run_id} in {sorted(wanted)}",
        )
        assert found in wanted, f"run {run_id} is {found}: {self.run('workflow', 'logs', run_id).stdout}"
        return str(found)

    def child_of(self, run_id: str) -> tuple[int, int]:
        """Return the pids of the worker that runs it and of the run's own process."""
        claim = json.loads((self.home.state / "running" / f"{run_id}.json").read_text(encoding="utf-8"))
        return claim["worker"]["pid"], claim["child"]["pid"]

    def result(self, run_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.api("GET", f"/workflows/runs/{run_id}/result").raise_for_status().json()
        return answer

    def ensure_up(self) -> None:
        """Start the engine, if a test before stopped it."""
        record = read_record(self.home)
        ready = record is not None and record.alive and all(record.parts[p].state == "ready" for p in PARTS)
        if not ready:
            self.json("up", "--detach")


def run_ids_in(text: str) -> list[str]:
    """Return the run ids that a text names."""
    return re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)
