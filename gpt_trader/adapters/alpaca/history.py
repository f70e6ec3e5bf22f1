"""Bars of the past: the questions put to Alpaca, and the rows of all pages that answer one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, Literal

from gpt_trader.adapters.alpaca import assets, bars
from gpt_trader.adapters.alpaca.client import Client, Rejected, unusable
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars

#: Of stocks: one exchange, free; or all of them.
Feed = Literal["iex", "sip"]

_PAGE_ROWS: Final = 10_000


class History:
    """Asks for the bars of one instrument at a time; spans are of labels, in UTC, both bounds inclusive."""

    def __init__(self, client: Client, feed: Feed) -> None:
        self._client = client
        self._feed = feed

    def window(self, instrument: Instrument, timeframe: str, first: datetime, last: datetime) -> RawBars:
        """Return everything that the window holds, from all of the vendor's pages."""
        rows = bars.joined(list(self._pages(instrument, timeframe, first, last, limit=_PAGE_ROWS)))
        what = f"{timeframe} bars of {instrument.symbol}"
        return bars.between(bars.raw_bars(rows, timeframe, what), first, last)

    def edge(
        self, instrument: Instrument, timeframe: str, first: datetime, last: datetime, sort: str = "asc"
    ) -> datetime | None:
        """Return the label of the first (or, descending, last) bar of a span; None if there is no bar."""
        for rows in self._pages(instrument, timeframe, first, last, limit=1, sort=sort):
            raw = bars.raw_bars(rows or [], timeframe, f"{timeframe} bars of {instrument.symbol}")
            raw = bars.between(raw, first, last)
            if len(raw):
                return bars.first_label(raw) or first
        return None

    def _pages(
        self,
        instrument: Instrument,
        timeframe: str,
        first: datetime,
        last: datetime,
        *,
        limit: int,
        sort: str = "asc",
    ) -> Iterator[Any]:
        """Yield the rows of each of the vendor's pages; bars with labels beyond the span may be among them."""
        symbol = assets.vendor_symbol(instrument.symbol)
        params = {
            "symbols": symbol,
            "timeframe": bars.TIMEFRAME_NAMES[timeframe],
            "start": first.isoformat(),
            "end": bars.last_moment(timeframe, last).isoformat(),
            "limit": limit,
            "sort": sort,
        }
        crypto = assets.is_pair(instrument.symbol)
        path = "/v1beta3/crypto/us/bars" if crypto else "/v2/stocks/bars"
        if not crypto:
            params |= {"adjustment": "raw", "feed": self._feed}
        what = f"alpaca: {timeframe} bars of {instrument.symbol} from {first:%Y-%m-%d}"
        try:
            for page in self._client.pages(path, params, "bars", what):
                yield page.get(symbol)
        except Rejected as rejected:
            raise unusable(rejected, what) from None
