"""One Prefect server for the session, on the session's PostgreSQL, and a warm worker that each test finds running."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from gpt_trader.settings import Home
from storage import database as databases
from storage.cluster import ROLE, SUPERUSER, Cluster
from storage.events import Event, EventLog
from tests.waiting import eventually

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
ROOT = Path(__file__).parents[2]
SAMPLE = Path(__file__).parent / "sample"


@dataclass
class Engine:
    """The parts of one engine that flows need: addresses, environment, and what to ask them."""

    home: Home
    environment: dict[str, str]
    prefect: httpx.Client
    events: EventLog
    worker: subprocess.Popen[bytes] | None = None
    log: Path = field(default_factory=Path)

    def start(self, module: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", module], env=self.environment, stdout=output, stderr=output
            )

    def start_worker(self) -> None:
        """Start the warm worker and wait until it says that it is ready."""
        self.worker = self.start("tests.flows.sample.worker", self.log)
        eventually(
            lambda: alive(self.worker, self.log) and self.worker_mark().get("state") == "ready",
            seconds=90,
            what="a ready worker",
        )

    def stop_worker(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the worker with a signal and return its exit code."""
        assert self.worker is not None
        self.worker.send_signal(number)
        return self.worker.wait(timeout=40)

    def worker_mark(self) -> dict[str, Any]:
        try:
            mark: dict[str, Any] = json.loads((self.home.state / "worker.json").read_text())
        except FileNotFoundError:
            return {}
        return mark if self.worker and mark["pid"] == self.worker.pid else {}

    def run(self, name: str, parameters: Mapping[str, Any] | None = None) -> str:
        """Create a run of the sample's deployment; return its id."""
        deployment = self.deployment(name)["id"]
        created = self.prefect.post(
            f"/deployments/{deployment}/create_flow_run",
            json={"parameters": dict(parameters or {}), "state": {"type": "SCHEDULED"}},
        )
        return str(created.raise_for_status().json()["id"])

    def deployment(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.prefect.get(f"/deployments/name/{name}/{name}").raise_for_status().json()
        return found

    def state(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.prefect.get(f"/flow_runs/{run_id}").raise_for_status().json()["state"]
        return found

    def set_state(self, run_id: str, kind: str, *, force: bool = False) -> dict[str, Any]:
        answer = self.prefect.post(
            f"/flow_runs/{run_id}/set_state", json={"state": {"type": kind}, "force": force}
        )
        outcome: dict[str, Any] = answer.raise_for_status().json()
        return outcome

    def end_of(self, run_id: str, within: float = 60) -> dict[str, Any]:
        """Wait for the run's final state and return it."""
        return eventually(
            lambda: state if (state := self.state(run_id))["type"] in FINAL else None,
            seconds=within,
            what="a final state",
        )

    def told(self, run_id: str) -> list[Event]:
        return self.events.read(f"runs.{run_id}")

    def states_told(self, run_id: str) -> list[str]:
        return [event.data["state"] for event in self.told(run_id) if event.type == "state"]

    def claims(self) -> set[str]:
        return {path.stem for path in (self.home.state / "running").glob("*.json")}


@pytest.fixture(scope="session")
def engine_parts(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A Prefect server with databases of its own."""
    with psycopg.connect(postgres.url("postgres", role=SUPERUSER), autocommit=True) as admin:
        for name in ("flows_app", "flows_prefect"):
            admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*map(sql.Identifier, (name, ROLE))))
    port = free_port()
    folder = tmp_path_factory.mktemp("flows")
    environment = {
        **{
            key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "GPT_TRADER_"))
        },
        "GPT_TRADER_HOME": str(folder / "home"),
        "GPT_TRADER_DATABASE_URL": postgres.url("flows_app"),
        "GPT_TRADER_PREFECT_DATABASE_URL": postgres.url("flows_prefect"),
        "GPT_TRADER_PREFECT_PORT": str(port),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_HOME": str(folder / "home" / "prefect"),
        "PYTHONPATH": str(ROOT),
    }
    database = databases.engine_for(make_url(postgres.url("flows_app")).set(drivername="postgresql+psycopg"))
    with httpx.Client(base_url=environment["PREFECT_API_URL"], timeout=30) as client:
        engine = Engine(
            Home(folder / "home"), environment, client, EventLog(database), log=folder / "worker.log"
        )
        server = engine.start("flows.server", folder / "server.log")
        try:
            eventually(
                lambda: alive(server, folder / "server.log") and _healthy(client),
                seconds=90,
                what="a healthy server",
            )
            yield engine
        finally:
            for process in filter(None, (engine.worker, server)):
                process.terminate()
                process.wait(timeout=40)
            database.dispose()


@pytest.fixture
def running(engine_parts: Engine) -> Engine:
    """The engine with a warm worker, whatever the test before did to it."""
    if engine_parts.worker is None or engine_parts.worker.poll() is not None:
        engine_parts.start_worker()
    eventually(lambda: engine_parts.worker_mark().get("state") == "ready", seconds=60, what="a warm template")
    return engine_parts


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder that a flow may write to, readable by its processes."""
    with tempfile.TemporaryDirectory(prefix="gt-") as folder:
        yield Path(folder)


def pid_in(path: Path) -> int:
    """Wait until a flow has written its pid; return it."""
    return int(eventually(lambda: path.exists() and path.read_text(), seconds=60, what=f"{path.name}"))


def alive(process: subprocess.Popen[bytes] | None, log: Path) -> bool:
    """Return True; fail with the process's log if it has ended."""
    assert process is not None
    assert process.poll() is None, log.read_text()
    return True


def gone(pid: int) -> bool:
    """Return whether no process (or only a zombie) has this pid."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def kill(pid: int) -> None:
    """SIGKILL a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
