"""Source `yahoo`: what `Source` promises, over Yahoo's charts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

import numpy as np

from gpt_trader.adapters.base import Moment, Quote, Source, microseconds, offered, utc, within
from gpt_trader.adapters.patience import Patience, RateLimit
from gpt_trader.adapters.yahoo import chart, exchanges
from gpt_trader.adapters.yahoo.client import ADDRESS_LIMIT, Client, unknown_symbol
from gpt_trader.calendars import calendar
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import BadBars, NotEnoughBars
from gpt_trader.instruments import TIMEFRAMES, Instrument, valid_symbol
from gpt_trader.raw_bars import RawBars

_DAY: Final = timedelta(days=1)
#: How far back Yahoo keeps intraday bars, and how much of it one question may span. It says 30, 60 and 730 days and
#: counts to the second: whole days within that are safe.
_KEPT: Final = {
    "1m": (29 * _DAY, 7 * _DAY),
    "5m": (59 * _DAY, 59 * _DAY),
    "15m": (59 * _DAY, 59 * _DAY),
    "1h": (729 * _DAY, 729 * _DAY),
}
#: All of a daily history: Yahoo answers up to a hundred years.
_WHOLE: Final = 99 * 365 * _DAY
#: So long what is known of an instrument serves the next questions; a split may come any morning.
_FRESH: Final = timedelta(minutes=1)
_MOST_KNOWN: Final = 16
#: Kinds that trade in their exchange's sessions alone; futures of one exchange differ.
_IN_SESSIONS: Final = ("EQUITY", "ETF")


@dataclass(frozen=True, eq=False)
class _Known:
    """What one chart of the whole daily history says: facts, actions, and bars that are in one state with them."""

    at: datetime
    instrument: Instrument
    zone: str
    actions: CorporateActions
    daily: RawBars
    in_sessions: bool


class YahooSource(Source):
    """Stocks, funds, futures, currencies and crypto that finance.yahoo.com charts; no key, and no promise of Yahoo's.

    Prices are as printed, dividends as paid: what Yahoo has restated for splits is taken back, to about seven digits.
    Intraday bars reach back 29 days (1m), 59 (5m, 15m) and 729 (1h), and are those of the regular session.
    Indices (`^GSPC`) have no id here. Weekly bars are made of daily ones: Yahoo's own restate a week with every
    dividend in it, and give the newest week as two rows.
    """

    name = "yahoo"
    timeframes = (*_KEPT, "1d")
    lists_all = False
    live = True

    def __init__(
        self,
        base_url: str | None = None,
        *,
        patience: Patience | None = None,
        limit: RateLimit = ADDRESS_LIMIT,
        timeout: float = 30.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Open nothing yet; `base_url` stands for Yahoo's host, `timeout` (seconds) is that of each call."""
        self._client = Client(base_url, patience=patience or Patience(), limit=limit, timeout=timeout)
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    def instruments(self) -> list[Instrument]:
        """Return nothing: Yahoo has no list."""
        return []

    def instrument(self, symbol: str) -> Instrument:
        """Return the facts of one instrument; raise UnknownName, BadBars, SourceUnavailable."""
        return self._overview(symbol).instrument

    def pages(
        self, symbol: str, timeframe: str, start: Moment | None = None, end: Moment | None = None
    ) -> Iterator[RawBars]:
        """Yield windows of raw bars, each a whole one: 7 days of 1m bars, else all; errors as `Source.pages`.

        A start of None, or one before, is the first bar that Yahoo still keeps.
        """
        offered(self, timeframe)
        lower = None if start is None else utc("start", start, time.min)
        upper = None if end is None else utc("end", end, time.max)
        known = self._overview(symbol)
        if timeframe != "1d":
            yield from self._intraday(known, timeframe, lower, upper)
            return
        what = f"source yahoo's {known.instrument.symbol}"
        if not len(known.daily):
            raise NotEnoughBars(f"{what} has no daily bars at all")
        yield within(known.daily, start, end, what)

    def actions(self, symbol: str) -> CorporateActions:
        """Return splits and dividends up to today; raise UnknownName, BadBars, SourceUnavailable."""
        return self._overview(symbol).actions

    def quote(self, symbol: str) -> Quote:
        """Return the last trade, which some exchanges let out after 15 minutes; Yahoo's charts have no bid and ask.

        Raises UnknownName, NotEnoughBars (never traded), SourceUnavailable.
        """
        wanted = _plausible(symbol)
        params = {"range": "1d", "interval": "1d"}
        result = self._client.chart(wanted, params, f"yahoo: quote of {wanted}")
        found = chart.last_trade(result["meta"]) if result else None
        if found is None:
            raise NotEnoughBars(f"source yahoo knows of no trade in {wanted}")
        return Quote(wanted, found[0], self.name, last=found[1])

    def _overview(self, symbol: str) -> _Known:
        wanted = _plausible(symbol)
        now = self._clock()
        with self._lock:
            found = self._known.get(wanted)
        if found is None or now - found.at > _FRESH:
            found = self._asked(wanted, now)
            with self._lock:
                self._known.pop(wanted, None)
                self._known[wanted] = found
                if len(self._known) > _MOST_KNOWN:
                    del self._known[next(iter(self._known))]
        return found

    def _asked(self, symbol: str, now: datetime) -> _Known:
        what = f"yahoo: history of {symbol}"
        result = self._chart(symbol, "1d", now - _WHOLE, now + _DAY, what)
        if result is None:
            raise unknown_symbol(symbol)
        meta = result["meta"]
        zone: str = meta["exchangeTimezoneName"]
        naive = np.array([now.astimezone(UTC).replace(tzinfo=None)], "datetime64[us]")
        today = chart.local(naive, zone).astype("datetime64[D]")[0].item()
        actions = chart.corporate_actions(result, zone, today, symbol)
        bars = chart.daily(chart.rows(result, what), zone, actions)
        facts = exchanges.instrument(meta, symbol)
        return _Known(now, facts, zone, actions, bars, meta.get("instrumentType") in _IN_SESSIONS)

    def _intraday(
        self, known: _Known, timeframe: str, lower: datetime | None, upper: datetime | None
    ) -> Iterator[RawBars]:
        now = self._clock()
        depth, span = _KEPT[timeframe]
        earliest = _midnight(now - depth) + _DAY
        first = earliest if lower is None else max(lower, earliest)
        last = now if upper is None else min(upper, now)
        found = False
        begin = _midnight(first)
        while begin <= last:
            until = min(begin + span, _midnight(last) + _DAY)
            raw = self._window(known, timeframe, begin, until)
            raw = _between(raw, max(begin, first), min(until - timedelta(microseconds=1), last))
            if len(raw):
                found = True
                yield raw
            begin = until
        if not found:
            raise NotEnoughBars(
                f"source yahoo's {known.instrument.symbol} has no {timeframe} bars from {lower or 'its first'} to "
                f"{upper or 'now'}; Yahoo keeps those of the last {depth.days} days: today from "
                f"{earliest:%Y-%m-%d} on"
            )

    def _window(self, known: _Known, timeframe: str, begin: datetime, until: datetime) -> RawBars:
        symbol = known.instrument.symbol
        what = f"yahoo: {timeframe} bars of {symbol} from {begin:%Y-%m-%d}"
        result = self._chart(symbol, timeframe, begin, until, what)
        if result is None:
            return RawBars.empty()
        raw = chart.intraday(chart.rows(result, what), TIMEFRAMES[timeframe], known.zone, known.actions)
        if known.in_sessions and known.instrument.calendar:
            raw = chart.regular(raw, calendar(known.instrument.calendar))
        return raw

    def _chart(
        self, symbol: str, timeframe: str, begin: datetime, until: datetime, what: str
    ) -> dict[str, Any] | None:
        params = {
            "period1": int(begin.timestamp()),
            "period2": int(until.timestamp()),
            "interval": timeframe,
            "includePrePost": "false",
            "events": "div,splits",
        }
        result = self._client.chart(symbol, params, what)
        given = result["meta"].get("dataGranularity", timeframe) if result else timeframe
        if given not in (timeframe, {"1h": "60m"}.get(timeframe)):
            # Seen where Yahoo finds a range too long: it answers with coarser bars than it was asked for.
            raise BadBars(f"{what}: yahoo gave {given} bars instead")
        return result


def _plausible(symbol: str) -> str:
    try:
        return valid_symbol(symbol)
    except ValueError:
        raise unknown_symbol(symbol) from None


def _midnight(moment: datetime) -> datetime:
    return datetime.combine(moment.astimezone(UTC).date(), time.min, tzinfo=UTC)


def _between(raw: RawBars, first: datetime, last: datetime) -> RawBars:
    lower, upper = microseconds("start", first, time.min), microseconds("end", last, time.max)
    return raw[np.isnat(raw.time) | ((raw.time >= lower) & (raw.time <= upper))]
