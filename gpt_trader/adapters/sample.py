"""Source `sample`: real daily bars of five US stocks, 2000 to 2013, from a package; no network needed.

`bokeh_sampledata` holds them as printed, not adjusted for splits and dividends, with an adjusted close beside:
the factor of a bar is adjusted close / close. The series end in February and March 2013.
"""

from __future__ import annotations

import gzip
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.adapters.base import Moment, listed, within
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
        columns = _columns(wanted)
        close, adjusted = columns["Close"], columns["Adj Close"]
        raw = RawBars(
            columns["Date"],
            columns["Open"],
            columns["High"],
            columns["Low"],
            close,
            columns["Volume"],
            adjusted / close,
        )
        return within(raw, start, end, f"source sample's {wanted}")


@cache
def _lines() -> list[list[str]]:
    """Return the cells of the package's file, the header first: Ticker, Date, Open, …, Volume, Adj Close."""
    packed = files("bokeh_sampledata").joinpath("_data", "stocks.csv.gz").read_bytes()
    return [line.split(",") for line in gzip.decompress(packed).decode().splitlines()]


def _columns(symbol: str) -> dict[str, NDArray[Any]]:
    header, *rows = _lines()
    cells = dict(zip(header, zip(*(row for row in rows if row[0] == symbol), strict=True), strict=True))
    dates = np.array(cells.pop("Date"), "datetime64[us]")
    del cells["Ticker"]
    return {"Date": dates, **{name: np.array(values, np.float64) for name, values in cells.items()}}
