"""What an ingest of many symbols costs: time and memory, and how both grow with the number of symbols.

    python -m benchmarks.ingest

Each row is a process of its own, which takes 20 years of daily bars a symbol from a source that makes them up at once,
so that what is measured is ours: fetching side by side, inspection, files, fsync, commits. Bound: memory does not grow
with the number of symbols.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.lake import DAYS, row, walk
from gpt_trader.adapters.base import Moment, Source
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars
from gpt_trader.requests import DataRequest
from storage.lake import Lake
from tasks.fetching import Fetching
from tasks.ingest_plan import Series

SYMBOLS = (50, 500, 5000)


class Instant(Source):
    """Gives every symbol the same 5,040 bars, in pages of a year."""

    name = "instant"

    def __init__(self) -> None:
        self._bars = walk(DAYS, "1d")

    def instruments(self) -> list[Instrument]:
        return []

    def instrument(self, symbol: str) -> Instrument:
        return Instrument(symbol=symbol)

    def pages(
        self, symbol: str, timeframe: str, start: Moment | None = None, end: Moment | None = None
    ) -> Iterator[RawBars]:
        for first in range(0, DAYS, 252):
            yield self._bars[first : first + 252]


def ingest(symbols: int) -> None:
    """Print the seconds, snapshots and peak memory of one ingest, and the memory before it."""
    source = Instant()
    names = [f"S{n}" for n in range(symbols)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake")
        started = time.perf_counter()
        request = DataRequest(symbols=names[:1])
        done = Fetching(request, lake, lambda _: source).run(
            [Series(name, "1d", "instant") for name in names], lambda *_: None
        )
        spent = time.perf_counter() - started
        assert all(outcome.added == DAYS for outcome in done)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(spent, len(lake.snapshots()), before / 1024, peak / 1024)


def main() -> None:
    row("symbols × 5,040 daily bars", "seconds", "bars/s", "commits", "memory added")
    for symbols in SYMBOLS:
        code = f"from benchmarks.ingest import ingest; ingest({symbols})"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        spent, snapshots, before, peak = map(float, said.split())
        rate = f"{symbols * DAYS / spent / 1e6:.2f} M/s"
        row(f"{symbols}", f"{spent:.1f} s", rate, f"{snapshots:.0f}", f"{peak - before:.0f} MB")


if __name__ == "__main__":
    main()
