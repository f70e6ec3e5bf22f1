"""How fast the lake is, beside bare pyarrow in the same run.

    python -m benchmarks.lake

Bounds: reading 20 years of daily bars ≤ 2 × a bare pyarrow read of that file, a year of minutes ≤ 30 ms, writing
≥ 1 million bars/s on one core, a commit ≤ 25 ms. The last rows show what grows with the number of symbols.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from gpt_trader.instruments import TIMEFRAMES, Instrument
from gpt_trader.raw_bars import RawBars, inspect
from storage.lake import Lake
from storage.lake_writing import Arrival
from storage.manifest import Entry, FileRef
from storage.query import query

COLUMNS = ["time", "open", "high", "low", "close", "volume", "factor"]
STOCK = Instrument(symbol="STOCK")
DAYS = 5040
DAY = 24 * 60
MINUTES = 365 * DAY


def walk(n: int, timeframe: str, seed: int = 1) -> RawBars:
    """Return n bars of a random walk in cents, as prices are."""
    random = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(random.normal(0, 0.0005, n))), 2) + 1
    open_ = np.concatenate([close[:1], close[:-1]])
    time_ = np.datetime64("2006-01-01", "us") + np.arange(n) * np.timedelta64(TIMEFRAMES[timeframe])
    high, low = np.maximum(open_, close) + 0.05, np.minimum(open_, close) - 0.05
    return RawBars(
        time_, open_, high, low, close, random.integers(0, 10**6, n).astype(float), np.full(n, 0.9)
    )


def median(work: Callable[[], object], repeat: int) -> float:
    """Return the median wall time of the work in milliseconds, after one run to warm up."""
    work()
    spent = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent) * 1000


def row(what: str, value: str, beside: str = "", ratio: str = "", bound: str = "") -> None:
    print(f"{what:<46}{value:>14}{beside:>14}{ratio:>9}{bound:>14}")


def reads(lake: Lake, timeframe: str, what: str, repeat: int, bound: str) -> None:
    paths = lake.verified_paths([lake.entry("STOCK", timeframe)])

    def bare() -> list[np.ndarray]:
        table = pq.read_table(paths, columns=COLUMNS)
        return [table.column(name).to_numpy() for name in COLUMNS]

    def leanest() -> object:
        return [pq.ParquetFile(path).read(columns=COLUMNS, use_threads=False) for path in paths]

    ours, pyarrow = median(lambda: lake.bars("STOCK", timeframe), repeat), median(bare, repeat)
    row(
        f"read {what}, verified, adjusted",
        f"{ours:.2f} ms",
        f"{pyarrow:.2f} ms",
        f"{ours / pyarrow:.2f}×",
        bound,
    )
    lean = median(leanest, repeat)
    row(
        "  beside pyarrow's ParquetFile, not even to numpy",
        f"{ours:.2f} ms",
        f"{lean:.2f} ms",
        f"{ours / lean:.2f}×",
    )
    contents = [path.read_bytes() for path in paths]
    checked = median(lambda: [hashlib.sha256(content).digest() for content in contents], repeat)
    row("  of which sha256", f"{checked:.2f} ms", "", f"{checked / ours:.2f}×")


def writes(folder: Path) -> None:
    raw = walk(MINUTES, "1m")
    spent = []
    for n in range(5):
        lake = Lake(folder / f"write{n}")
        started = time.process_time(), time.perf_counter()
        lake.upsert(STOCK, "1m", raw, source="csv")
        spent.append((time.process_time() - started[0], time.perf_counter() - started[1]))
    cpu, wall = (statistics.median(column) for column in zip(*spent, strict=True))
    row("write path, 525,600 minutes (CPU)", f"{len(raw) / cpu / 1e6:.2f} M/s", "", "", "≥ 1 M/s")
    row("  the same by the clock, with fsync", f"{len(raw) / wall / 1e6:.2f} M/s")
    inspected = median(lambda: inspect(raw, "1m"), 5)
    row(
        "  of which inspection",
        f"{inspected:.1f} ms",
        f"{wall * 1000:.1f} ms",
        f"{inspected / wall / 1000:.2f}×",
    )


def live(folder: Path) -> None:
    """A live minute at the end of a year: its file is written anew; and a session reads the end of the series."""
    lake, raw, count = Lake(folder / "live"), walk(MINUTES, "1m"), 30
    lake.upsert(STOCK, "1m", raw[:-count], source="csv")
    written, read = [], []
    for n in range(len(raw) - count, len(raw)):
        started = time.process_time()
        lake.upsert(STOCK, "1m", raw[n : n + 1], source="csv")
        between = time.process_time()
        lake.recent("STOCK", "1m", 5)
        written.append(between - started)
        read.append(time.process_time() - between)
    row("a live minute after 525,600 others (CPU)", f"{statistics.median(written) * 1000:.1f} ms")
    row("  a session's look at it (CPU)", f"{statistics.median(read) * 1000:.1f} ms")


def fsyncs(folder: Path) -> float:
    """Return the time of the bare durable steps of a commit: two files and their folders."""

    def durable() -> None:
        for name in ("manifest", "current"):
            unfinished = folder / f"{name}.tmp"
            with unfinished.open("wb") as file:
                file.write(b"x" * 500)
                os.fsync(file.fileno())
            unfinished.replace(folder / name)
            handle = os.open(folder, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)

    return median(durable, 20)


def commits(folder: Path, symbols: int, bare: float, bound: str) -> None:
    lake = Lake(folder / f"symbols{symbols}")
    raw = walk(100, "1d")
    lake.upsert(STOCK, "1d", raw, source="sample")
    manifest = lake.manifest()
    for n in range(symbols - 1):
        file = FileRef("all", f"bars/1d/S{n}/x.parquet", "0" * 64, f"{n:064x}", 5040, "2006", "2026", 1)
        manifest = manifest.with_series(Entry(f"S{n}", "1d", "sample", (file,)), Instrument(symbol=f"S{n}"))
    versions = [manifest.with_series(e, STOCK) for e in _restated(lake, 12)]
    turn = iter(versions)
    spent = median(lambda: lake._catalog.commit(next(turn)), 10)
    row(f"commit, {symbols} symbols", f"{spent:.1f} ms", f"{bare:.1f} ms", f"{spent / bare:.2f}×", bound)


def _restated(lake: Lake, count: int) -> list[Entry]:
    entry = lake.entry("STOCK")
    return [
        Entry(
            entry.symbol,
            entry.timeframe,
            entry.source,
            (FileRef(**{**vars(entry.files[0]), "logical_hash": str(n)}),),
        )
        for n in range(count)
    ]


def live_minute(folder: Path, symbols: int, stored: int, what: str) -> None:
    """Time a minute of a live stream: a bar of each symbol more, behind so many of this year that are stored."""
    lake, raw = Lake(folder / f"live{symbols}-{stored}"), walk(stored + 6, "1m")
    raw = replace(raw, time=raw.time + (np.datetime64("2025-01-01") - np.datetime64("2006-01-01")))
    instruments = [Instrument(symbol=f"L{n}") for n in range(symbols)]

    def arrivals(begin: int, end: int) -> list[Arrival]:
        found = inspect(raw[np.arange(len(raw))[begin:end]], "1m")
        return [Arrival(each, "1m", found, "csv") for each in instruments]

    for each in arrivals(0, stored):
        lake.upsert_many([each])
    cpu, wall = [], []
    for n in range(5):
        minute = arrivals(stored + n, stored + n + 1)
        started = time.process_time(), time.perf_counter()
        lake.upsert_many(minute)
        cpu.append(time.process_time() - started[0])
        wall.append(time.perf_counter() - started[1])
    row(f"live minute, {symbols} symbols, {what} (CPU)", f"{statistics.median(cpu):.2f} s")
    row("  the same by the clock", f"{statistics.median(wall):.2f} s")


def sql(lake: Lake) -> None:
    one = "SELECT avg(close) FROM bars_1d WHERE symbol = 'STOCK'"
    row("SQL, average over 20 years (fresh connection)", f"{median(lambda: query(lake, one), 10):.1f} ms")


def main() -> None:
    row("what", "lake", "beside", "ratio", "bound")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lake = Lake(folder / "lake")
        lake.upsert(STOCK, "1d", walk(DAYS, "1d"), source="sample")
        lake.upsert(STOCK, "1m", walk(MINUTES, "1m"), source="csv")
        reads(lake, "1d", "20 years of days", 200, "≤ 2×")
        reads(lake, "1m", "a year of minutes", 20, "≤ 30 ms")
        writes(folder)
        live(folder)
        bare = fsyncs(folder)
        commits(folder, 50, bare, "≤ 25 ms")
        commits(folder, 500, bare, "≤ 25 ms")
        commits(folder, 5000, bare, "")
        sql(lake)
        two_months, half_a_year = 59 * DAY, 181 * DAY
        for symbols in (50, 200):  # at the end of a month: its file is the longest
            live_minute(folder, symbols, two_months + 21 * 390 - 10, "stocks")
        live_minute(folder, 50, half_a_year - 10, "pairs")


if __name__ == "__main__":
    main()
