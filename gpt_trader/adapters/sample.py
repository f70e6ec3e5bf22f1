"""Source `sample`: real daily bars of five US stocks, 2000 to 2013, from a package; no network needed.

`bokeh_sampledata` holds them as printed, not adjusted for splits and dividends, with an adjusted close beside:
the factor of a bar is adjusted close / close. The series end in February and March 2013.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.adapters.base import Moment, Source, listed, offered, within
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars

_LISTED: Final = (
    ("AAPL", "XNAS", "Apple Inc."),
    ("FB", "XNAS", "Facebook Inc."),
    ("GOOG", "XNAS", "Google Inc."),
    ("IBM", "XNYS", "International Business Machines Corp."),
    ("MSFT", "XNAS", "Microsoft Corp."),
)
#: Their splits within the series (public facts; the prices and the adjusted close show each of them). The dividends
#: are in the adjusted close alone.
_SPLITS: Final = {
    "AAPL": {date(2000, 6, 21): 2.0, date(2005, 2, 28): 2.0},
    "MSFT": {date(2003, 2, 18): 2.0},
}


class SampleSource(Source):
    """The five stocks of the package. Nasdaq keeps the hours and holidays of the NYSE: one calendar for all."""

    name = "sample"
    timeframes = ("1d",)

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

    def pages(
        self, symbol: str, timeframe: str, start: Moment | None = None, end: Moment | None = None
    ) -> Iterator[RawBars]:
        """Yield all daily bars at once, labeled by the session's date at 00:00 UTC; errors as `Source.pages`."""
        wanted = listed(self, symbol).symbol
        offered(self, timeframe)
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
        yield within(raw, start, end, f"source sample's {wanted}")

    def actions(self, symbol: str) -> CorporateActions:
        """Return the splits; dividends are in the factors of the bars."""
        return CorporateActions.of(_SPLITS.get(listed(self, symbol).symbol))


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
