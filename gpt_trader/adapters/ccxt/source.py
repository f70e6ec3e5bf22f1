"""Source `ccxt:VENUE`: what `Source` promises, over the public API of a venue that ccxt knows."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, time, timedelta
from typing import Final

from gpt_trader.adapters.base import LiveBar, Moment, Quote, Source, listed, offered, utc
from gpt_trader.adapters.ccxt.bars import since_1970
from gpt_trader.adapters.ccxt.history import EARLIEST, History
from gpt_trader.adapters.ccxt.markets import ccxt_symbol, instrument, our_symbol
from gpt_trader.adapters.ccxt.stream import live_bars
from gpt_trader.adapters.ccxt.venue import Venue
from gpt_trader.adapters.patience import Patience
from gpt_trader.credentials import Credential
from gpt_trader.errors import NotEnoughBars, Problem, Refused
from gpt_trader.instruments import TIMEFRAMES, Instrument
from gpt_trader.raw_bars import RawBars

#: Less than a millisecond: with it, rounding down is rounding up.
_ALMOST_ONE: Final = timedelta(microseconds=999)
_KEPT_BACK: Final = (
    " (older ones exist and the venue does not give them, whatever start is asked for: start later, take a coarser "
    "timeframe or another source)"
)


class CcxtSource(Source):
    """One venue's markets, spot and derivatives; a key is needed only where the venue asks for one.

    Ids are ccxt's symbols, with `-` for the slash and `=` for the colon: BTC-USDT, the perpetual BTC-USDT=USDT, the
    future BTC-USD=BTC-240329. Contracts with an expiry are gone from most venues' lists once they have expired.
    Volumes are what ccxt gives: mostly of the base currency, contracts on some venues of derivatives.

    Some venues (kraken: 720 bars) give only their newest bars of a timeframe, whatever is asked for: a start before
    those is refused with NotEnoughBars instead of leaving a hole; without a start the newest ones come.
    """

    lists_all = True
    live = True

    def __init__(
        self,
        venue: str,
        credential: Credential,
        base_url: str | None = None,
        *,
        patience: Patience | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Open nothing yet; `base_url` comes before the host in all of the venue's addresses; `timeout` in seconds.

        Raises UnknownName with the nearest venue, Refused for a venue without bars.
        """
        self.name = f"ccxt:{venue}"
        self._venue = Venue(venue, credential, base_url, patience=patience or Patience(), timeout=timeout)
        theirs = self._venue.exchange.timeframes or {}
        # The attribute of the class is one of all venues.
        self.timeframes = tuple(each for each in TIMEFRAMES if each in theirs)
        self._lock = threading.Lock()
        self._listed: list[Instrument] | None = None

    def instruments(self) -> list[Instrument]:
        """Return the venue's markets that have an id, asked for once. Raises Denied, SourceUnavailable."""
        markets = self._venue.markets()
        exchange = self._venue.exchange
        with self._lock:
            if self._listed is None:
                ids = {symbol: our_symbol(symbol) for symbol in markets}
                self._listed = [
                    instrument(markets[symbol], ours, exchange.id, exchange.name, exchange.precisionMode)
                    for symbol, ours in ids.items()
                    if ours is not None
                ]
            return list(self._listed)

    def pages(
        self, symbol: str, timeframe: str, start: Moment | None = None, end: Moment | None = None
    ) -> Iterator[RawBars]:
        """Yield windows of bars, each a whole one, of as many labels as the venue gives at once.

        A start of None is the first bar that the venue gives. Errors as `Source.pages`; besides, NotEnoughBars where
        the venue has bars from `start` on and does not give them, Refused where its days or weeks begin at other
        times than ours (kraken's weeks on Thursdays).
        """
        wanted = listed(self, symbol).symbol
        offered(self, timeframe)
        first = EARLIEST if start is None else max(utc("start", start, time.min), EARLIEST)
        lower = since_1970(first + _ALMOST_ONE)
        now = datetime.now(UTC)
        last = since_1970(now if end is None else min(utc("end", end, time.max), now))
        history = History(self._venue, ccxt_symbol(wanted), wanted, timeframe)
        begin = history.first(lower, last) if lower <= last else None
        if begin is None:
            raise self._nothing(history, wanted, start, end)
        if start is not None and history.holds_back(lower, begin):
            raise NotEnoughBars(
                f"source {self.name}'s {wanted} ({timeframe}) has no bars from {start} on: it has {_day(begin)} and "
                f"later{_KEPT_BACK}"
            )
        yield from history.windows(begin, last)

    def quote(self, symbol: str) -> Quote:
        """Return the newest prices; `time` is when they came where the venue does not say of when they are.

        Raises UnknownName, Refused where the venue has no tickers, Denied, SourceUnavailable.
        """
        wanted = listed(self, symbol).symbol
        exchange = self._venue.exchange
        if not exchange.has.get("fetchTicker"):
            raise Refused.of(Problem("source", self.name, f"gives no quotes, so none of {wanted}"))
        market = ccxt_symbol(wanted)
        ticker = self._venue.ask(lambda: exchange.fetch_ticker(market), f"quote of {wanted}", wanted)
        at = ticker.get("timestamp")
        return Quote(
            symbol=wanted,
            time=datetime.now(UTC) if at is None else datetime.fromtimestamp(at / 1000, UTC),
            source=self.name,
            bid=_price(ticker.get("bid")),
            ask=_price(ticker.get("ask")),
            bid_size=_price(ticker.get("bidVolume")),
            ask_size=_price(ticker.get("askVolume")),
            last=_price(ticker.get("last")),
        )

    def stream(self, symbols: Sequence[str], timeframe: str) -> AsyncIterator[LiveBar]:
        """Yield bars once a later one of their market has begun, each once; errors as `Source.stream`."""
        offered(self, timeframe)
        self._venue.streaming()  # refuses at once where there is none
        return self._streamed(symbols, timeframe)

    async def _streamed(self, symbols: Sequence[str], timeframe: str) -> AsyncGenerator[LiveBar, None]:
        ours = [(await asyncio.to_thread(listed, self, symbol)).symbol for symbol in symbols]
        markets = {ccxt_symbol(each): each for each in ours}
        async with aclosing(live_bars(self._venue, markets, timeframe)) as bars:
            async for bar in bars:
                yield bar

    def _nothing(
        self, history: History, symbol: str, start: Moment | None, end: Moment | None
    ) -> NotEnoughBars:
        """Return the error for a range without bars: it says what there is."""
        what = f"source {self.name}'s {symbol} ({history.timeframe})"
        now = since_1970(datetime.now(UTC))
        first = history.first(since_1970(EARLIEST), now)
        newest = history.newest()
        if first is None or newest is None:
            return NotEnoughBars(f"{what} has no bars at all")
        return NotEnoughBars(
            f"{what} has no bars from {start or 'its first'} to {end or 'its last'}; it has {_day(first)} to "
            f"{_day(newest)}" + (_KEPT_BACK if history.holds_back(since_1970(EARLIEST), first) else "")
        )


def _day(label: int) -> str:
    return f"{datetime.fromtimestamp(label / 1000, UTC):%Y-%m-%d}"


def _price(value: object) -> float | None:
    number = math.nan if value is None else float(str(value))
    return number if math.isfinite(number) else None
