"""How fast the API answers, beside a bare FastAPI app on the same server in the same run.

Starts a database, Prefect's server and the API in a temporary home; no worker, so that a submission is measured
and not a run. `python -P benchmarks/api.py` prints a table; medians and 95th percentiles in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import httpx
import numpy as np

from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars
from gpt_trader.runs import channel_of
from gpt_trader.settings import Home, Settings
from storage import database
from storage.events import EventLog
from storage.lake import Lake

BARE = """
import sys, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
class Info(BaseModel):
    version: str
    home: str
    uptime_seconds: float
app = FastAPI()
@app.get("/info")
async def info() -> Info:
    return Info(version="0.1.0", home="/home/user/.gpt-trader", uptime_seconds=1.5)
uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="warning")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def part(environment: dict[str, str], *arguments: str) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-P", *arguments], env=environment) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def answering(url: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        if time.monotonic() > deadline:
            raise TimeoutError(url)
        time.sleep(0.05)


def timed(action: Callable[[], object], times: int) -> list[float]:
    action()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        found.append((time.perf_counter() - started) * 1000)
    return found


def event_latencies(http: httpx.Client, log: EventLog, times: int) -> list[float]:
    """Append → client, for a run's final state, the connection and the stream already open."""
    found = []
    for number in range(times):
        run_id = http.post("/strategies/backtest", json={"symbol": "ACME", "seed": number}).json()["run_id"]
        ready, told = threading.Event(), []

        def follow(run_id: str = run_id, ready: threading.Event = ready, told: list[float] = told) -> None:
            with http.stream("GET", f"/workflows/runs/{run_id}/events") as stream:
                for line in stream.iter_lines():
                    if "SCHEDULED" in line:
                        ready.set()
                    if "COMPLETED" in line:
                        told.append(time.perf_counter())

        follower = threading.Thread(target=follow)
        follower.start()
        ready.wait(10)
        started = time.perf_counter()
        log.append(
            channel_of(UUID(run_id)), "state", {"state": "COMPLETED", "name": "Completed", "message": ""}
        )
        follower.join(10)
        found.append((told[0] - started) * 1000)
    return found


def fill_lake(home: Home, bars: int) -> None:
    days = np.arange("2010-01-01", bars, dtype="datetime64[D]").astype("datetime64[us]")
    close = 100 + np.arange(bars, dtype=np.float64) % 17
    raw = RawBars(days, close, close + 1, close - 1, close, np.full(bars, 1000.0), np.ones(bars))
    Lake(home.lake).upsert(Instrument(symbol="ACME"), "1d", raw, source="csv")


def measure(root: Path) -> dict[str, list[float]]:
    home, settings = Home(root / "h"), Settings()
    api_port, prefect_port, bare_port = free_port(), free_port(), free_port()
    environment = {
        **os.environ,
        "GPT_TRADER_HOME": str(home.root),
        "GPT_TRADER_API_PORT": str(api_port),
        "GPT_TRADER_PREFECT_PORT": str(prefect_port),
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect_port}/api",
        "GPT_TRADER_LOG_LEVEL": "error",
    }
    home.root.mkdir(mode=0o700)
    fill_lake(home, 5040)
    url = f"http://127.0.0.1:{api_port}/api/v1"
    with contextlib.ExitStack() as stack:
        stack.enter_context(part(environment, "-m", "storage.postgres"))
        database.wait_ready(settings, home, 60)
        stack.enter_context(part(environment, "-m", "flows.server"))
        stack.enter_context(part(environment, "-c", BARE, str(bare_port)))
        stack.enter_context(part(environment, "-m", "api.main"))
        answering(f"http://127.0.0.1:{prefect_port}/api/health")
        deployment = deploy(f"http://127.0.0.1:{prefect_port}/api", "backtest")
        answering(f"{url}/system/health/ready")
        headers = {"Authorization": f"Bearer {home.key.read_text().strip()}"}
        http = stack.enter_context(httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30))
        bare = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{bare_port}", trust_env=False))
        prefect_url = f"http://127.0.0.1:{prefect_port}/api"
        prefect = stack.enter_context(httpx.Client(base_url=prefect_url, trust_env=False, timeout=30))
        tag = http.get("/market/bars/ACME?limit=500").headers["etag"]
        log = EventLog(database.engine(settings, home))
        return {
            "bare FastAPI: GET /info": timed(lambda: bare.get("/info"), 500),
            "GET system/info": timed(lambda: http.get("/system/info"), 500),
            "GET strategies/momentum": timed(lambda: http.get("/strategies/momentum"), 200),
            "GET market/bars, 500 bars": timed(lambda: http.get("/market/bars/ACME?limit=500"), 200),
            "GET market/bars, 5040 bars": timed(lambda: http.get("/market/bars/ACME?limit=9999"), 50),
            "GET market/bars, 304": timed(
                lambda: http.get("/market/bars/ACME?limit=500", headers={"If-None-Match": tag}), 200
            ),
            "Prefect's own: POST create_flow_run": timed(
                lambda: prefect.post(f"/deployments/{deployment}/create_flow_run", json={"parameters": {}}),
                60,
            ),
            "POST strategies/backtest": timed(
                lambda: http.post("/strategies/backtest", json={"symbol": "ACME"}).raise_for_status(), 60
            ),
            "final state appended → client (SSE)": event_latencies(http, log, 20),
        }


def deploy(url: str, name: str) -> str:
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as prefect:
        flow = prefect.post("/flows/", json={"name": name}).raise_for_status().json()
        body = {"name": name, "flow_id": flow["id"], "enforce_parameter_schema": False}
        return str(prefect.post("/deployments/", json=body).raise_for_status().json()["id"])


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gt") as folder:
        try:
            measured = measure(Path(folder))
        finally:  # as root the database lies outside the home
            shutil.rmtree(Home(Path(folder) / "h").database.joinpath("cluster").resolve(), ignore_errors=True)
    bare = statistics.median(measured["bare FastAPI: GET /info"])
    print(f"{'':38} {'median':>8} {'p95':>8} {'× bare':>8}")
    for name, found in measured.items():
        median = statistics.median(found)
        p95 = sorted(found)[int(len(found) * 0.95)]
        print(f"{name:38} {median:8.2f} {p95:8.2f} {median / bare:8.1f}")


if __name__ == "__main__":
    main()
