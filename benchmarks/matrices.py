"""How fast a matrix of many symbols is made and read again, beside bare pyarrow and DuckDB in the same run.

    python -m benchmarks.matrices [SYMBOLS]

Bounds for 500 symbols × 20 years of daily closes: ≤ 200 ms from the lake's files, each verified, ≤ 15 ms from the
cache. "cold" is a fresh `Lake` and nothing cached by us; the files are in the system's page cache.
The lake holds SYMBOLS (default 500) with a ratio of their own, as many with splits and dividends, and the first
group is measured again ten times as large, to show how the cost grows.
"""

from __future__ import annotations

import datetime
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import storage.array_cache
from benchmarks.lake import DAYS, median, row, walk
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars, inspect
from storage.array_cache import ArrayCache
from storage.lake import Lake
from storage.lake_writing import Arrival
from storage.matrices import matrix
from storage.query import query

ACTIONS = CorporateActions.of(
    {datetime.date(2010, 6, 1): 2.0, datetime.date(2015, 6, 1): 3.0},
    {datetime.date(2007 + n // 4, 1 + 3 * (n % 4), 15): 0.02 for n in range(48)},
)


def history(seed: int, *, own_ratio: bool) -> RawBars:
    """Return 20 years of days; the ratio of a source changes from bar to bar, as those that divide two prices do."""
    raw = walk(DAYS, "1d", seed)
    random = np.random.default_rng(seed)
    factor = np.linspace(0.5, 1, DAYS) + random.normal(0, 1e-6, DAYS) if own_ratio else np.ones(DAYS)
    return RawBars(raw.time, raw.open, raw.high, raw.low, raw.close, raw.volume, factor)


def filled(folder: Path, prefix: str, symbols: int, *, own_ratio: bool) -> list[str]:
    """Store so many symbols and return their names."""
    names = [f"{prefix}{n}" for n in range(symbols)]
    lake = Lake(folder)
    kinds = [inspect(history(seed, own_ratio=own_ratio), "1d") for seed in range(50)]
    for first in range(0, symbols, 500):
        lake.upsert_many(
            [
                Arrival(Instrument(symbol=name), "1d", kinds[n % 50], "csv", None if own_ratio else ACTIONS)
                for n, name in enumerate(names[first : first + 500])
            ]
        )
    return names


def bare(lake: Lake, names: Sequence[str]) -> float:
    paths = [lake.root / lake.entry(name).files[0].path for name in names]

    def read() -> object:
        return [
            pq.ParquetFile(path).read(columns=["time", "close", "factor"], use_threads=False)
            for path in paths
        ]

    return median(read, 3)


def measured(folder: Path, names: list[str], what: str, bounds: tuple[str, str]) -> None:
    lake = Lake(folder)
    pyarrow = bare(lake, names)

    def beside(ours: float) -> tuple[str, str]:
        return f"{pyarrow:.1f} ms", f"{ours / pyarrow:.2f}×"

    cold = median(lambda: matrix(Lake(folder), names), 5)
    row(f"{what}, cold", f"{cold:.1f} ms", *beside(cold), bounds[0])
    again = median(lambda: matrix(lake, names), 5)
    row("  manifest known", f"{again:.1f} ms", *beside(again))
    with tempfile.TemporaryDirectory() as name:
        cache = ArrayCache(Path(name), 10**10)
        made = matrix(lake, names, cache=cache)

        def first() -> object:
            storage.array_cache._verified.clear()
            return np.asarray(matrix(lake, names, cache=cache).values[-1])

        opened = median(first, 5)
        row("  from the cache, its sha256 verified", f"{opened:.1f} ms", *beside(opened), bounds[1])
        later = median(lambda: np.asarray(matrix(lake, names, cache=cache).values[-1]), 20)
        row("  from the cache, verified before", f"{later:.1f} ms", *beside(later), bounds[1])
    row("  its size", f"{made.values.nbytes / 1e6:.1f} MB")


def pivoted(lake: Lake, names: list[str]) -> pa.Table:
    """Return the same by DuckDB's PIVOT, over verified files."""
    wanted = ", ".join(f"'{name}'" for name in names)
    sql = (
        f"PIVOT (SELECT symbol, time, close FROM bars_1d WHERE symbol IN ({wanted})) ON symbol IN ({wanted}) "
        "USING first(close) GROUP BY time ORDER BY time"
    )
    return query(lake, sql, limit=100_000)


def main() -> None:
    symbols = int(sys.argv[1]) if sys.argv[1:] else 500
    row("what", "matrix", "bare reads", "ratio", "bound")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ratio = filled(folder / "ratio", "R", symbols, own_ratio=True)
        measured(folder / "ratio", ratio, f"{symbols} symbols, own ratio", ("≤ 200 ms", "≤ 15 ms"))
        lake = Lake(folder / "ratio")
        duckdb = median(lambda: pivoted(lake, ratio), 1)
        row("  DuckDB's PIVOT, files verified before", f"{duckdb:.1f} ms")
        actions = filled(folder / "actions", "A", symbols, own_ratio=False)
        measured(folder / "actions", actions, f"{symbols} symbols, 50 actions each", ("≤ 200 ms", "≤ 15 ms"))
        many = filled(folder / "many", "M", 10 * symbols, own_ratio=True)
        measured(folder / "many", many, f"{10 * symbols} symbols, own ratio", ("", ""))


if __name__ == "__main__":
    main()
