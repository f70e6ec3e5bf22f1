"""Source `alpaca`: what `Source` promises, over Alpaca's data API, its list of assets and its stream."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

from gpt_trader.adapters.alpaca import actions, assets, bars
from gpt_trader.adapters.alpaca.client import ACCOUNT_LIMIT, Client, Rejected, unusable
from gpt_trader.adapters.alpaca.history import Feed, History
from gpt_trader.adapters.alpaca.quotes import newest
from gpt_trader.adapters.alpaca.stream import Link, live_bars
from gpt_trader.adapters.base import LiveBar, Moment, Quote, Source, offered, utc
from gpt_trader.adapters.patience import Passing, Patience, RateLimit
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.credentials import Credential
from gpt_trader.errors import NotEnoughBars, Problem, Refused, UnknownName
from gpt_trader.instruments import TIMEFRAMES, Instrument
from gpt_trader.raw_bars import RawBars

_PAGE_ACTIONS: Final = 1_000
_NEW_YORK: Final = ZoneInfo("America/New_York")


class AlpacaSource(Source):
    """US stocks and crypto; key and secret of a (free) paper account are needed, demanded when first used.

    Prices are raw. The feed of stocks is IEX's by default: one exchange of many, so volumes are a few per cent of the
    market's and quiet stocks have gaps. `sip` is all exchanges; the free plan refuses the last 15 minutes of it
    (Denied): give an end a bar before that. Intraday bars of stocks are those of the regular session; what was traded
    before and after it is left out. Crypto is Alpaca's own market, with the middle of bid and ask where
    nothing traded. A company's bars under an older symbol come with its newest one; its actions then do not.
    """

    name = "alpaca"
    timeframes = tuple(bars.TIMEFRAME_NAMES)
    lists_all = True
    live = True

    def __init__(
        self,
        credential: Credential,
        base_url: str | None = None,
        *,
        feed: Feed = "iex",
        patience: Patience | None = None,
        limit: RateLimit = ACCOUNT_LIMIT,
        timeout: float = 30.0,
    ) -> None:
        """Open nothing yet; `base_url` stands for all of Alpaca's hosts, `timeout` (seconds) is that of each call."""
        self._patience = patience or Patience()
        self._timeout = timeout
        self._client = Client(credential, base_url, patience=self._patience, limit=limit, timeout=timeout)
        self._feed = feed
        self._history = History(self._client, feed)
        self._lock = threading.Lock()
        self._listed: list[Instrument] | None = None
        self._known: dict[str, Instrument] = {}

    def instruments(self) -> list[Instrument]:
        """Return every stock and pair, those not traded any more too: some thousands, asked for once.

        Raises Denied, SourceUnavailable.
        """
        with self._lock:
            if self._listed is None:
                classes = ("us_equity", "crypto")
                found = [asset for each in classes for asset in self._assets(each)]
                self._listed = assets.instruments(found)
                self._known |= {each.symbol: each for each in self._listed}
            return list(self._listed)

    def instrument(self, symbol: str) -> Instrument:
        """Return one asset's facts (asked for once); `BTC/USD` is understood as BTC-USD.

        Raises UnknownName with the nearest symbol, Denied, SourceUnavailable.
        """
        try:
            wanted = assets.our_symbol(symbol)
        except ValueError:
            raise self._unknown(symbol) from None
        if wanted not in self._known:
            # Encoded, as the slash of a pair is part of its name.
            path = f"/v2/assets/{quote(assets.vendor_symbol(wanted), safe='')}"
            try:
                asset = self._client.get(path, {}, f"alpaca: asset {wanted}")
            except Rejected:
                raise self._unknown(symbol) from None
            found = assets.instrument(asset)
            if found is None or found.symbol != wanted:  # it finds stocks by their CUSIP too
                raise self._unknown(symbol)
            self._known[wanted] = found
        return self._known[wanted]

    def pages(
        self, symbol: str, timeframe: str, start: Moment | None = None, end: Moment | None = None
    ) -> Iterator[RawBars]:
        """Yield windows of raw bars, each a whole one; errors as `Source.pages`.

        Windows are 12 days of 1m bars (crypto: 6), and longer as bars are. A start of None is the vendor's first
        bar: stocks from 2016 (IEX: mid 2020) and crypto from 2021 on.
        """
        offered(self, timeframe)
        first = bars.EARLIEST if start is None else max(utc("start", start, time.min), bars.EARLIEST)
        now = datetime.now(UTC)
        last = now if end is None else min(utc("end", end, time.max), now)
        instrument = self.instrument(symbol)
        begin = self._history.edge(instrument, timeframe, first, last) if first <= last else None
        if begin is None:
            raise self._nothing(instrument, timeframe, start, end)
        crypto = assets.is_pair(instrument.symbol)
        intraday = TIMEFRAMES[timeframe] < timedelta(days=1)
        found = False
        for lower, upper in bars.windows(timeframe, max(begin, first), last, crypto=crypto):
            raw = self._history.window(instrument, timeframe, lower, upper)
            if intraday and not crypto:
                raw = bars.regular(raw)
            if len(raw):
                found = True
                yield raw
        if not found:
            raise self._nothing(instrument, timeframe, start, end)

    def actions(self, symbol: str) -> CorporateActions | None:
        """Return splits, stock dividends and cash dividends up to today; None for crypto.

        Raises UnknownName, BadBars (an action that cannot be read), Denied, SourceUnavailable.
        """
        instrument = self.instrument(symbol)
        if assets.is_pair(instrument.symbol):
            return None
        today = datetime.now(_NEW_YORK).date()
        params = {
            "symbols": instrument.symbol,
            "types": ",".join(actions.TYPES),
            "start": bars.EARLIEST.date().isoformat(),
            # Sorted by the day of payment, which comes months after the ex-date.
            "end": (today + timedelta(days=366)).isoformat(),
            "limit": _PAGE_ACTIONS,
        }
        what = f"alpaca: corporate actions of {instrument.symbol}"
        try:
            found = list(self._client.pages("/v1/corporate-actions", params, "corporate_actions", what))
        except Rejected as rejected:
            raise unusable(rejected, what) from None
        return actions.corporate_actions(found, instrument.symbol, today)

    def quote(self, symbol: str) -> Quote:
        """Return the newest bid, ask and trade; sizes as the vendor gives them (stocks: in round lots).

        Raises UnknownName, NotEnoughBars (never quoted nor traded), Denied, SourceUnavailable.
        """
        instrument = self.instrument(symbol)
        found = {kind: self._latest(instrument, kind) for kind in ("quotes", "trades")}
        return newest(instrument.symbol, found["quotes"], found["trades"])

    def stream_groups(self, symbols: Sequence[str]) -> list[tuple[str, ...]]:
        """Return stocks and pairs apart: Alpaca has a stream of each."""
        ours = tuple(dict.fromkeys(self._plausible(symbol) for symbol in symbols))
        groups = (tuple(s for s in ours if assets.is_pair(s) is pairs) for pairs in (False, True))
        return [group for group in groups if group]

    def stream(self, symbols: Sequence[str], timeframe: str) -> AsyncIterator[LiveBar]:
        """Yield 1m bars as they are completed, each once and every symbol's in order; errors as `Source.stream`.

        Only one stream of stocks and one of crypto is allowed an account, and 30 symbols on the free plan.
        """
        if timeframe != "1m":
            raise Refused.of(Problem("timeframe", timeframe, "alpaca streams minute bars", allowed="1m"))
        ours = tuple(dict.fromkeys(self._plausible(symbol) for symbol in symbols))
        kinds = {assets.is_pair(symbol) for symbol in ours}
        if len(kinds) != 1:
            raise Refused.of(
                Problem(
                    "symbols", ", ".join(ours), "are streamed apart", allowed="stocks alone, or crypto alone"
                )
            )
        path = "/v1beta3/crypto/us" if kinds == {True} else f"/v2/{self._feed}"
        link = Link(self._client, path, self._patience, self._timeout)
        return live_bars(link, ours, self.instrument)

    def _plausible(self, symbol: str) -> str:
        try:
            return assets.our_symbol(symbol)
        except ValueError as error:
            raise Refused.of(Problem("symbols", symbol, str(error))) from None

    def _assets(self, asset_class: str) -> list[Any]:
        def a_list(answer: object) -> None:
            if not isinstance(answer, list):
                raise Passing("an answer that is no list of assets")

        what = f"alpaca: list of {asset_class}"
        try:
            found: list[Any] = self._client.get("/v2/assets", {"asset_class": asset_class}, what, a_list)
        except Rejected as rejected:
            raise unusable(rejected, what) from None
        return found

    def _unknown(self, symbol: str) -> UnknownName:
        names = [each.symbol for each in self.instruments()]
        return UnknownName.among(
            "symbol", symbol, names, message=f"source alpaca does not list {symbol[:80]}"
        )

    def _latest(self, instrument: Instrument, kind: str) -> Any:  # noqa: ANN401 - JSON
        """Return the newest quote or trade, None if there is none."""
        symbol = assets.vendor_symbol(instrument.symbol)
        crypto = assets.is_pair(instrument.symbol)
        path = f"/v1beta3/crypto/us/latest/{kind}" if crypto else f"/v2/stocks/{kind}/latest"
        params = {"symbols": symbol} if crypto else {"symbols": symbol, "feed": self._feed}

        def of_symbols(answer: object) -> None:
            if not isinstance(answer, dict) or not isinstance(answer.get(kind), dict | None):
                raise Passing(f"an answer without {kind}")

        what = f"alpaca: latest {kind} of {instrument.symbol}"
        try:
            answer = self._client.get(path, params, what, of_symbols)
        except Rejected as rejected:
            raise unusable(rejected, what) from None
        return (answer.get(kind) or {}).get(symbol)

    def _nothing(
        self, instrument: Instrument, timeframe: str, start: Moment | None, end: Moment | None
    ) -> NotEnoughBars:
        """Return the error for a range without bars: it says what there is."""
        whole = bars.EARLIEST, datetime.now(UTC)
        first = self._history.edge(instrument, timeframe, *whole)
        what = f"source alpaca's {instrument.symbol} ({timeframe}, feed {self._feed})"
        if first is None:
            return NotEnoughBars(f"{what} has no bars at all")
        last = self._history.edge(instrument, timeframe, *whole, sort="desc") or first
        return NotEnoughBars(
            f"{what} has no bars from {start or 'its first'} to {end or 'its last'}; "
            f"it has {first:%Y-%m-%d} to {last:%Y-%m-%d}"
        )
