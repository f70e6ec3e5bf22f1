"""A real API over a real Prefect server and a real database; only the worker is played by the tests.

A test that needs a run in some state proposes it to Prefect, as a worker does.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from api.context import Context
from api.main import ApiServer, bind, server_for
from api.principals import Principal
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars
from gpt_trader.settings import Home, Settings
from gpt_trader.slices import SLICES
from storage import database as databases
from storage.cluster import ROLE, SUPERUSER, Cluster
from storage.events import EventLog
from tests.waiting import eventually

BARS = 300


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Prefect:
    """A running Prefect server, and what a worker would tell it."""

    url: str
    http: httpx.Client

    def set_state(self, run_id: UUID | str, state: str, message: str = "") -> None:
        body = {"state": {"type": state, "name": state.title(), "message": message}, "force": True}
        self.http.post(f"/flow_runs/{run_id}/set_state", json=body).raise_for_status()

    def state_ids(self, run_id: UUID | str) -> dict[str, str]:
        states = self.http.get("/flow_run_states/", params={"flow_run_id": str(run_id)}).json()
        return {state["type"]: state["id"] for state in states}

    def deploy(self, name: str) -> None:
        flow = self.http.post("/flows/", json={"name": name}).raise_for_status().json()
        body = {"name": name, "flow_id": flow["id"], "enforce_parameter_schema": False}
        self.http.post("/deployments/", json=body).raise_for_status()


class NamedKeys:
    """A way to authenticate: keys that the tests hand out."""

    def __init__(self, holders: dict[str, Principal]) -> None:
        self._holders = holders

    async def authenticate(self, credential: str) -> Principal | None:
        return self._holders.get(credential)

    def hand_out(self, key: str, principal: Principal) -> None:
        self._holders[key] = principal

    def take_back(self, key: str) -> None:
        del self._holders[key]


OTHERS = NamedKeys(
    {
        "key-of-bob": Principal("bob", frozenset({"read", "research"})),
        "key-of-eve": Principal("eve", frozenset({"read"})),
    }
)


@dataclass(frozen=True)
class Engine:
    """A running API: its address, its key, and its parts for a look from behind."""

    url: str
    key: str
    home: Home
    settings: Settings
    context: Context
    events: EventLog
    http: httpx.Client
    state: Any = None

    def start(self, **request: Any) -> dict[str, Any]:
        body = {"symbol": "ACME", "strategy": "momentum", **request}
        answer = self.http.post("/strategies/backtest", json=body)
        assert answer.status_code == 202, answer.text
        accepted: dict[str, Any] = answer.json()
        return accepted


@pytest.fixture(scope="session")
def prefect(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """Prefect's server as the engine starts it, with the slices deployed and nobody to run them."""
    home = tmp_path_factory.mktemp("prefect")
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GPT_TRADER_")},
        "GPT_TRADER_HOME": str(home),
        "GPT_TRADER_PREFECT_PORT": str(port),
        "GPT_TRADER_DATABASE_URL": postgres.url(databases.APP_DATABASE),
    }
    log = (home / "prefect.log").open("wb")
    command = [sys.executable, "-P", "-m", "flows.server"]
    with log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        url = f"http://127.0.0.1:{port}/api"
        with httpx.Client(base_url=url, timeout=10, trust_env=False) as http:
            try:
                eventually(lambda: healthy(http) or process.poll(), seconds=170, what="Prefect's health")
                assert process.poll() is None, (home / "prefect.log").read_text()
                served = Prefect(url, http)
                for name in SLICES:
                    served.deploy(name)
                yield served
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=30)


def healthy(http: httpx.Client) -> bool:
    try:
        return http.get("/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def api_settings(postgres: Cluster) -> Settings:
    """Settings that point to a database of the API tests' own."""
    name = "api_tests"
    with psycopg.connect(postgres.url("postgres", role=SUPERUSER), autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY FILE_COPY").format(
                *map(sql.Identifier, (name, databases.APP_DATABASE, ROLE))
            )
        )
    return Settings(database_url=SecretStr(postgres.url(name)), api_port=0, rate_limit="1000000/minute")


@pytest.fixture(scope="session")
def engine_api(
    prefect: Prefect, api_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """The API in this process, in a thread with its own loop, over a lake with one symbol."""
    home = Home(tmp_path_factory.mktemp("api") / "home")
    fill_lake(home)
    with serving(api_settings, home, prefect.url) as engine:
        yield engine


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: _listens(port), what="redis listens")
            yield port, process
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class serving:  # noqa: N801 - reads as a context manager
    """Serve one API for the block."""

    def __init__(self, settings: Settings, home: Home, prefect_url: str, *, port: int = 0) -> None:
        self._listening = bind("127.0.0.1", port)
        self._server: ApiServer = server_for(settings, home, prefect_url=prefect_url, prefect_auth=None)
        self._thread = threading.Thread(target=self._run, name="api")
        self._settings, self._home = settings, home

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self._server.serve(sockets=[self._listening]))

    def __enter__(self) -> Engine:
        self._thread.start()
        eventually(lambda: self._server.started or not self._thread.is_alive(), what="the API's start")
        assert self._server.started
        url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        key = self._home.key.read_text().strip()
        state = self._server.config.app.state  # type: ignore[union-attr]
        context: Context = state.context
        context = replace(context, authenticators=(*context.authenticators, OTHERS))
        state.context = context
        self._http = httpx.Client(
            base_url=f"{url}/api/v1",
            headers={"Authorization": f"Bearer {key}"},
            timeout=20,
            trust_env=False,
        )
        events = EventLog(context.database)
        return Engine(url, key, self._home, self._settings, context, events, self._http, state)

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._server.should_exit = True
        self._thread.join(timeout=15)
        self._listening.close()
        assert not self._thread.is_alive()


def fill_lake(home: Home) -> None:
    """Store daily bars of ACME, a made-up instrument that no source lists."""
    from storage.lake import Lake

    days = np.arange("2020-01-01", BARS, dtype="datetime64[D]").astype("datetime64[us]")
    close = 100 + np.arange(BARS, dtype=np.float64) % 17
    factor = np.full(BARS, 0.5)
    raw = RawBars(days, close, close + 1, close - 1, close, np.full(BARS, 1000.0), factor)
    Lake(home.lake).upsert(Instrument(symbol="ACME", name="Acme Corp."), "1d", raw, source="csv")


def events_of(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Read a stream's lines into events; heartbeats come as `{"comment": …}`."""
    event: dict[str, str] = {}
    for line in lines:
        if not line:
            if event:
                yield event
            event = {}
        elif line.startswith(":"):
            yield {"comment": line[1:].strip()}
        else:
            name, _, value = line.partition(": ")
            event[name] = value


def write_private(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o600)
