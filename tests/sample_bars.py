"""The package's real daily bars as `Bars`, adjusted, for tests and benchmarks of what consumes bars."""

from __future__ import annotations

import csv
import gzip
from functools import cache
from importlib import resources

import numpy as np

from gpt_trader.bars import Bars
from gpt_trader.instruments import Instrument


@cache
def _rows() -> list[dict[str, str]]:
    packed = resources.files("bokeh_sampledata").joinpath("_data/stocks.csv.gz").read_bytes()
    return list(csv.DictReader(gzip.decompress(packed).decode().splitlines()))


def sample_bars(symbol: str, *, start: str = "1900-01-01", end: str = "2100-01-01") -> Bars:
    """Return a symbol's bars of the inclusive dates, OHLC scaled by Adj Close / Close."""
    rows = [row for row in _rows() if row["Ticker"] == symbol and start <= row["Date"] <= end]
    column = {k: np.array([float(row[k]) for row in rows]) for k in rows[0] if k not in ("Ticker", "Date")}
    factor = column["Adj Close"] / column["Close"]
    return Bars(
        instrument=Instrument(symbol=symbol, venue="XNAS", calendar="XNYS"),
        timeframe="1d",
        time=np.array([row["Date"] for row in rows], dtype="datetime64[us]"),
        open=column["Open"] * factor,
        high=column["High"] * factor,
        low=column["Low"] * factor,
        close=column["Adj Close"],
        volume=column["Volume"],
        logical_hash=f"sample-{symbol}",
    )
