"""What the event log costs: `python -P benchmarks/event_log.py [--appends 500] [--home FOLDER]`.

A real embedded server with fsync on, a writer in a process of its own and a follower in this one. Printed: one
append (commit and announcement) at one writer, append → follower (clocks of one machine), events a second in
batches, and beside them, as the yardstick of this disk, a bare INSERT with its commit on the same connection.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy import URL

from gpt_trader.settings import Home, Settings
from storage import database
from storage.cluster import locate
from storage.event_reader import AsyncEventReader
from storage.events import EventLog, NewEvent

LINE = {
    "level": "info",
    "message": "momentum: 3,270 bars of AAPL, 118 trades, equity 24,301.77 after 13 years",
}

_WRITER = """
import sys, time
from sqlalchemy import make_url
from storage.database import engine_for
from storage.events import EventLog
log = EventLog(engine_for(make_url(sys.argv[1])))
for number in range(int(sys.argv[2])):
    time.sleep(0.002)
    log.append("runs.latency", "progress", {"sent": time.time(), "number": number})
"""


@contextmanager
def served(home: Home) -> Iterator[dict[str, float]]:
    """Serve a new home; yield the seconds of the first and of a later start."""
    seconds: dict[str, float] = {}
    environment = {**os.environ, "GPT_TRADER_HOME": str(home.root)}
    command = [sys.executable, "-P", "-m", "storage.postgres"]
    for name in ("first start", "later start"):
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            database.wait_ready(Settings(), home, timeout=60)
            seconds[name] = time.perf_counter() - began
            if name == "later start":
                yield seconds
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def timed_appends(log: EventLog, count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        log.append("runs.appends", "log", LINE)
        seconds.append(time.perf_counter() - began)
    return seconds


def timed_inserts(url: URL, count: int) -> list[float]:
    seconds = []
    with psycopg.connect(**database.libpq_arguments(url), autocommit=True) as connection:
        connection.execute("CREATE TABLE yardstick (n int)")
        for number in range(count):
            began = time.perf_counter()
            connection.execute("INSERT INTO yardstick VALUES (%s)", [number])
            seconds.append(time.perf_counter() - began)
        connection.execute("DROP TABLE yardstick")
    return seconds


def events_a_second(log: EventLog, batch: int, seconds: float = 1.0) -> float:
    events, count, began = [NewEvent("log", LINE)] * batch, 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        log.append_many(f"runs.batch{batch}", events)
        count += batch
    return count / (time.perf_counter() - began)


async def latencies(url: URL, count: int) -> list[float]:
    async with AsyncEventReader(url) as reader:
        await reader.listening.wait()
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", _WRITER, url.render_as_string(), str(count)
        )
        seen: list[float] = []
        stream = reader.follow("runs.latency")
        async for event in stream:
            seen.append(time.time() - event.data["sent"])
            if len(seen) == count:
                break
        await stream.aclose()
        await writer.wait()
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--appends", type=int, default=500)
    parser.add_argument("--home", type=Path, help="a folder to put the database in; default: a temporary one")
    options = parser.parse_args()
    folder = options.home or Path(tempfile.mkdtemp(prefix="gpt-trader-bench-"))
    home = Home(folder / "home")
    try:
        with served(home) as starts:
            database.ensure_databases(Settings(), home)
            engine = database.engine(Settings(), home)
            database.migrate(engine)
            log = EventLog(engine)
            timed_appends(log, 20)
            inserts = timed_inserts(engine.url, options.appends)
            appends = timed_appends(log, options.appends)
            follower = asyncio.run(latencies(engine.url, options.appends))
            rates = {batch: events_a_second(log, batch) for batch in (1, 10, 100, 1000)}
            database.dispose_engines()
        show(starts, {"bare INSERT": inserts, "append": appends, "append → follower": follower}, rates)
    finally:
        cluster = locate(home)
        if cluster is not None:
            shutil.rmtree(cluster.root)
        shutil.rmtree(home.root, ignore_errors=True)
        if options.home is None:
            shutil.rmtree(folder, ignore_errors=True)


def show(starts: dict[str, float], series: dict[str, list[float]], rates: dict[int, float]) -> None:
    table = Table("what", "p50", "p95", "p99", "× bare INSERT", title="event log, milliseconds")
    yardstick = statistics.median(series["bare INSERT"])
    for name, seconds in series.items():
        cuts = statistics.quantiles(seconds, n=100)
        shown = [f"{1000 * cuts[at - 1]:.2f}" for at in (50, 95, 99)]
        table.add_row(name, *shown, f"{statistics.median(seconds) / yardstick:.1f}")
    console = Console()
    console.print(table)
    console.print("events/s by batch: " + ", ".join(f"{batch}: {rate:,.0f}" for batch, rate in rates.items()))
    console.print("server: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in starts.items()))


if __name__ == "__main__":
    main()
