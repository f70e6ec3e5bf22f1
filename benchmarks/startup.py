"""Engine down → every part ready, and → first backtest result, against a bare `prefect server start` to healthy.

All in one run, in fresh temporary homes, in turns: `python -P benchmarks/startup.py [--rounds 3]`. "first" is a home
that has nothing yet (initdb, migrations, sample bars to ingest); "again" is the same home after `down`.
Targets: ready ≤ 1.6 ×, first result ≤ 2.5 × the bare server, first against first and again against again.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("database", "prefect", "api", "worker")
BACKTEST = ("--output", "json", "backtest", "--symbol", "AAPL", "--strategy", "momentum")
TIMEOUT = 180.0

Times = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1, help="medians over so many rounds")
    times: Times = defaultdict(list)
    for _ in range(parser.parse_args().rounds):
        measure_round(times)
    show({name: statistics.median(values) for name, values in times.items()})


def measure_round(times: Times) -> None:
    with tempfile.TemporaryDirectory(prefix="gt-bench-") as folder:
        for turn in ("first", "again"):
            times[f"prefect server {turn}"].append(bare_prefect(Path(folder) / "prefect"))
            for name, seconds in engine_ready(Path(folder) / "up").items():
                times[f"{name} {turn}"].append(seconds)
            times[f"result {turn}"].append(first_result(Path(folder) / "backtest"))
        for cluster in Path(folder).glob("*/database/cluster"):
            shutil.rmtree(cluster.resolve())  # as root it lives outside the home


def bare_prefect(home: Path) -> float:
    """Seconds from `prefect server start` to a healthy answer: SQLite in its own home, as it comes."""
    port = free_port()
    environment = clean_environment() | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = [str(Path(sys.executable).with_name("prefect")), "server", "start", "--port", str(port)]
    began = time.perf_counter()
    server = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await_healthy(f"http://127.0.0.1:{port}/api/health", server)
        return time.perf_counter() - began
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def engine_ready(home: Path) -> dict[str, float]:
    """Seconds from `gpt-trader up --detach` until it returns, and until each part was ready."""
    try:
        began = time.perf_counter()
        status = json.loads(trader(home, "--output", "json", "up", "--detach"))
        all_ready = time.perf_counter() - began
        # The parts' times count from the supervisor's start; the last part tells how much earlier the call was.
        before = all_ready - max(part["ready_after"] for part in status["parts"].values())
        return {"engine": all_ready} | {name: before + status["parts"][name]["ready_after"] for name in PARTS}
    finally:
        trader(home, "down")


def first_result(home: Path) -> float:
    """Seconds from `gpt-trader backtest`, with the engine down, to its result on stdout."""
    try:
        began = time.perf_counter()
        result = json.loads(trader(home, *BACKTEST))
        assert result["result_hash"]
        return time.perf_counter() - began
    finally:
        trader(home, "down")


def trader(home: Path, *arguments: str) -> str:
    ours = {"GPT_TRADER_HOME": str(home), "GPT_TRADER_API_PORT": "0", "GPT_TRADER_PREFECT_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gpt_trader", *arguments],
        env=clean_environment() | ours | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    if done.returncode:
        sys.exit(f"gpt-trader {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def await_healthy(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.perf_counter() + TIMEOUT
    while time.perf_counter() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    sys.exit(f"the bare Prefect server did not answer at {url}")


def clean_environment() -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("GPT_TRADER_", "PREFECT_"))
    } | {"DO_NOT_TRACK": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def show(medians: Mapping[str, float]) -> None:
    print(f"{'':34}{'first':>9}{'ratio':>8}{'again':>9}{'ratio':>8}{'target':>9}")
    rows = [
        ("bare `prefect server start`", "prefect server", ""),
        *((f"  {part} ready", part, "") for part in PARTS),
        ("engine down → every part ready", "engine", "≤ 1.6"),
        ("engine down → first result", "result", "≤ 2.5"),
    ]
    for title, name, target in rows:
        cells = ""
        for turn in ("first", "again"):
            seconds = medians[f"{name} {turn}"]
            cells += f"{seconds:>7.1f} s{seconds / medians[f'prefect server {turn}']:>8.2f}"
        print(f"{title:34}{cells}{target:>9}")


if __name__ == "__main__":
    main()
