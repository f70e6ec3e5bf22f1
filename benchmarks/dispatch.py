"""REST create → COMPLETED: the warm worker against Prefect's stock process worker, in one run, on one server.

Run by hand: `python -m benchmarks.dispatch [--runs 100] [--stock-runs 5] [--flow adds]`. It starts an engine of its own
in a temporary home (database, Prefect's server, worker), prints medians and their ratio, and for the warm worker the
99th percentile of the runs in a row with p99 / median.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
NO_OP = {"a": 1, "b": 2}
BACKTEST = {"request": {"symbol": "AAPL", "strategy": "ma_crossover", "report": False}}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=100)
    options.add_argument("--stock-runs", type=int, default=5)
    options.add_argument("--flow", choices=["adds", "backtest"], default="backtest")
    chosen = options.parse_args()
    parameters = NO_OP if chosen.flow == "adds" else BACKTEST
    module = "tests.flows.sample.worker" if chosen.flow == "adds" else "flows.worker"
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gt-bench-")))
        environment = _environment(home)
        client = stack.enter_context(httpx.Client(base_url=environment["PREFECT_API_URL"], timeout=60))
        stack.enter_context(_part(["-m", "storage.postgres"], environment, home))
        stack.enter_context(_part(["-m", "flows.server"], environment, home))
        _until(lambda: _healthy(client))
        with _part(["-m", module], environment, home):
            _until(lambda: _ready(home / "state" / "worker.json"))
            _timed(client, chosen.flow, parameters)  # the first ingests what the lake lacks
            warm = [_timed(client, chosen.flow, parameters) for _ in range(chosen.runs)]
        stock_worker = ["-m", "prefect", "worker", "start", "--pool", "gpt-trader", "--type", "process"]
        with _part(stock_worker, {**environment, "PREFECT_WORKER_QUERY_SECONDS": "0.1"}, home):
            _timed(client, chosen.flow, parameters)
            stock = [_timed(client, chosen.flow, parameters) for _ in range(chosen.stock_runs)]
    _print(chosen.flow, warm, stock)


def _print(flow: str, warm: list[float], stock: list[float]) -> None:
    median, last = statistics.median(warm), sorted(warm)[min(len(warm) - 1, int(0.99 * len(warm)))]
    print(f"{flow}, REST create → COMPLETED, seconds")
    print(
        f"  warm worker   median {median:6.3f}  p99 {last:6.3f}  p99/median {last / median:5.2f}  ({len(warm)} runs)"
    )
    print(f"  stock worker  median {statistics.median(stock):6.3f}  ({len(stock)} runs)")
    print(f"  stock / warm  {statistics.median(stock) / median:.1f} ×")


def _timed(client: httpx.Client, flow: str, parameters: dict[str, object]) -> float:
    deployment = client.get(f"/deployments/name/{flow}/{flow}").raise_for_status().json()["id"]
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    start = time.perf_counter()
    run = client.post(f"/deployments/{deployment}/create_flow_run", json=body).raise_for_status().json()["id"]
    while (state := client.get(f"/flow_runs/{run}").json()["state"])["type"] not in FINAL:
        time.sleep(0.02)
    if state["type"] != "COMPLETED":
        raise SystemExit(f"run {run} is {state['type']}: {state['message']}")
    return time.perf_counter() - start


@contextmanager
def _part(arguments: list[str], environment: dict[str, str], home: Path) -> Iterator[None]:
    with (home / "parts.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", *arguments],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _environment(home: Path) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREFECT_", "GPT_TRADER_"))
        },
        "GPT_TRADER_HOME": str(home),
        "GPT_TRADER_PREFECT_PORT": str(port),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_HOME": str(home / "prefect"),
        "PYTHONPATH": str(ROOT),
    }


def _until(condition: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the engine did not start; its log is parts.log in its home")
        time.sleep(0.05)


def _healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


def _ready(mark: Path) -> bool:
    return mark.exists() and json.loads(mark.read_text())["state"] == "ready"


if __name__ == "__main__":
    main()
