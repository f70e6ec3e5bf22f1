"""Source `sample`: real daily bars of five US stocks, 2000 to 2013, from a package; no network needed.

`bokeh_sampledata` holds them as printed, not adjusted for splits and dividends, with an adjusted close beside:
the factor of a bar is adjusted close / close. The series end in February and March 2013.
"""

from __future__ import annotations

import gzip
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from gpt_trader.adapters.base import Moment, listed, within
from gpt_trader.bars import Floats
from gpt_trader.errors import UnknownName
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars

_LISTED: Final = (
    ("AAPL", "XNAS", "Apple Inc."),
    ("FB", "XNAS", "Facebook Inc."),
    ("GOOG", "XNAS", "Google Inc."),
    ("IBM", "XNYS", "International Business Machines Corp."),
    ("MSFT", "XNAS", "Microsoft Corp."),
)
_TIMEFRAMES: Final = ("1d",)


class SampleSource:
    """The five stocks of the package. Nasdaq keeps the hours and holidays of the NYSE: one calendar for all."""

    name = "sample"

    def instruments(self) -> list[Instrument]:
        """Return the five stocks with the facts of their market."""
        return [
            Instrument(
                symbol=symbol,
                venue=venue,
                calendar="XNYS",
                bars_a_year=252,
                session_minutes=390,
                currency="USD",
                tick=Decimal("0.01"),
                lot=Decimal(1),
                name=name,
            )
            for symbol, venue, name in _LISTED
        ]

    def fetch(
        self, symbol: str, timeframe: str, start: Moment | None = None, end: Moment | None = None
    ) -> RawBars:
        """Return daily bars, labeled by the session's date at 00:00 UTC; errors as `Source.fetch`."""
        wanted = listed(self, symbol).symbol
        if timeframe not in _TIMEFRAMES:
            raise UnknownName.among(
                "timeframe", timeframe, _TIMEFRAMES, hint="source sample has daily bars only"
            )
        table = _table()
        rows = table.filter(pc.equal(table["Ticker"], wanted))
        adjusted, close = (_floats(rows, name) for name in ("Adj Close", "Close"))
        raw = RawBars(
            rows["Date"].to_numpy().astype("datetime64[us]"),
            _floats(rows, "Open"),
            _floats(rows, "High"),
            _floats(rows, "Low"),
            close,
            _floats(rows, "Volume"),
            adjusted / close,
        )
        return within(raw, start, end, f"source sample's {wanted}")


@cache
def _table() -> pa.Table:
    packed = files("bokeh_sampledata").joinpath("_data", "stocks.csv.gz").read_bytes()
    return csv.read_csv(pa.BufferReader(gzip.decompress(packed)))


def _floats(table: pa.Table, column: str) -> Floats:
    values: Floats = table[column].cast(pa.float64()).to_numpy()
    return values
