"""Source `synthetic`: what `Source` promises, over made-up markets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final

import numpy as np

from gpt_trader.adapters.base import Moment, Source, microseconds, offered, utc, within
from gpt_trader.adapters.synthetic.market import EPOCH, MarketDays, Purpose, Terms, draws, market_days
from gpt_trader.adapters.synthetic.minutes import bars_of, minute_bars
from gpt_trader.calendars import calendar, complete
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import NotEnoughBars, UnknownName
from gpt_trader.instruments import TIMEFRAMES, Instrument
from gpt_trader.raw_bars import RawBars
from gpt_trader.resampling import resampled

#: Eighteen digits: a seed has 64 bits.
_SYMBOL: Final = re.compile(r"SYN-(0|[1-9]\d{0,17})((?:-(?:GAPS|SPLIT|247)){0,3})")
_EXAMPLES: Final = ("SYN-0", "SYN-1", "SYN-0-247", "SYN-0-GAPS", "SYN-0-SPLIT", "SYN-0-GAPS-SPLIT")
#: Missing runs: one in so many bars (one at least in each month or year), and how long they are on average.
_BARS_A_GAP: Final = 2000
_BARS_MISSING: Final = 5


class SyntheticSource(Source):
    """Made-up markets, one for each seed: `SYN-7`; the same bars for everybody (with one version of numpy) and ever.

    `-247` never closes, else the hours are the NYSE's; `-SPLIT` splits its shares now and then; `-GAPS` lacks runs of
    bars, others in each timeframe. Suffixes combine. The walk switches between calm, choppy and crash. All timeframes
    show one market: longer bars are what shorter ones add up to. Bars are given when they are over.
    """

    name = "synthetic"
    lists_all = False
    live = True

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Make nothing yet; `clock` tells which bars are over."""
        self._clock = clock

    def instruments(self) -> list[Instrument]:
        """Return some examples: there are as many as numbers."""
        return [self.instrument(symbol) for symbol in _EXAMPLES]

    def instrument(self, symbol: str) -> Instrument:
        """Return the facts of a market; raise UnknownName for what is no such symbol."""
        wanted, terms = _understood(symbol)
        hours = calendar(terms.calendar)
        traits = {"never closes": terms.always_open, "splits": terms.splits, "gaps": terms.gaps}
        said = ", ".join(trait for trait, present in traits.items() if present)
        return Instrument(
            symbol=wanted,
            venue="SYNTHETIC",
            calendar=hours.name,
            bars_a_year=hours.bars_a_year,
            session_minutes=hours.session_minutes,
            currency="USD",
            tick=Decimal("0.01"),
            name=f"Synthetic market {terms.seed}" + (f" ({said})" if said else ""),
        )

    def pages(
        self, symbol: str, timeframe: str, start: Moment | None = None, end: Moment | None = None
    ) -> Iterator[RawBars]:
        """Yield a page for each year, or month of intraday bars, from 2000 on; errors as `Source.pages`."""
        wanted, terms = _understood(symbol)
        offered(self, timeframe)
        lower = None if start is None else utc("start", start, time.min)
        upper = None if end is None else utc("end", end, time.max)
        what = f"source synthetic's {wanted}"
        if TIMEFRAMES[timeframe] < timedelta(days=1):
            yield from self._months(terms, timeframe, lower, upper, what)
            return
        raw = within(self._over(self._long(terms, timeframe), terms, timeframe), start, end, what)
        years = raw.time.astype("datetime64[Y]")
        edges = [0, *(np.flatnonzero(years[1:] != years[:-1]) + 1).tolist(), len(raw)]
        for first, last in pairwise(edges):
            yield raw[first:last]

    def actions(self, symbol: str) -> CorporateActions:
        """Return the splits up to now; raise UnknownName."""
        _, terms = _understood(symbol)
        return self._days(terms).actions.until(self._clock().astimezone(UTC).date())

    def _days(self, terms: Terms) -> MarketDays:
        """Return the market's days to the end of the year, so that gaps are laid over whole years and months."""
        return market_days(replace(terms, gaps=False), date(self._clock().astimezone(UTC).year, 12, 31))

    def _over(self, raw: RawBars, terms: Terms, timeframe: str) -> RawBars:
        """Return the bars that are over."""
        return raw[complete(raw.time, timeframe, calendar(terms.calendar), self._clock())]

    def _long(self, terms: Terms, timeframe: str) -> RawBars:
        """Return all daily or weekly bars."""
        days = self._days(terms)
        columns = (days.open, days.high, days.low, days.close, days.volume)
        raw = bars_of(days.day.astype("datetime64[us]"), columns)
        if timeframe == "1w":
            raw = resampled(raw, "1d", "1w", calendar(terms.calendar), days.actions).bars
        if not terms.gaps:
            return raw
        years = raw.time.astype("datetime64[Y]")
        kept = [_kept(terms, timeframe, year, int((years == year).sum())) for year in np.unique(years)]
        return raw[np.concatenate(kept)]

    def _months(
        self, terms: Terms, timeframe: str, lower: datetime | None, upper: datetime | None, what: str
    ) -> Iterator[RawBars]:
        now = self._clock().astimezone(UTC)
        begin = datetime.combine(EPOCH.item(), time.min, tzinfo=UTC)
        first, last = max(lower or begin, begin), min(upper or now, now)
        month = np.datetime64(first.date(), "M")
        found = False
        while month <= np.datetime64(last.date(), "M"):
            raw = self._over(self._month(terms, timeframe, month), terms, timeframe)
            at_least, at_most = microseconds("start", first, time.min), microseconds("end", last, time.max)
            raw = raw[(raw.time >= at_least) & (raw.time <= at_most)]
            if len(raw):
                found = True
                yield raw
            month += 1
        if not found:
            raise NotEnoughBars(
                f"{what} has no {timeframe} bars from {lower or 'its first'} to {upper or 'now'}; "
                f"it has {begin:%Y-%m-%d} to {now:%Y-%m-%d}"
            )

    def _month(self, terms: Terms, timeframe: str, month: np.datetime64) -> RawBars:
        """Return all bars of a month's sessions, those to come too."""
        days = self._days(terms)
        low = int(np.searchsorted(days.day, month.astype("datetime64[D]"), "left"))
        high = int(np.searchsorted(days.day, (month + 1).astype("datetime64[D]"), "left"))
        if low == high:
            return RawBars.empty()
        found = calendar(terms.calendar)
        sessions = found.sessions(days.day[low].item(), days.day[high - 1].item())
        raw = minute_bars(terms, days[low:high], sessions)
        if timeframe != "1m":
            raw = resampled(raw, "1m", timeframe, found).bars
        return raw[_kept(terms, timeframe, month, len(raw))] if terms.gaps else raw


def _understood(symbol: str) -> tuple[str, Terms]:
    """Return a symbol as it is written, and what it says; raise UnknownName with the nearest example."""
    wanted = symbol.strip().upper()
    match = _SYMBOL.fullmatch(wanted)
    suffixes = match[2].split("-")[1:] if match else []
    if match is None or len(set(suffixes)) < len(suffixes):
        raise UnknownName.among(
            "symbol", symbol, _EXAMPLES, message=f"{symbol[:80]!r} is no SYN-SEED[-GAPS][-SPLIT][-247]"
        )
    terms = Terms(int(match[1]), "247" in suffixes, "SPLIT" in suffixes, "GAPS" in suffixes)
    return wanted, terms


def _kept(
    terms: Terms, timeframe: str, block: np.datetime64, bars: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which of a year's or month's `bars` are not missing."""
    number = list(TIMEFRAMES).index(timeframe) << 16 | int(block.astype(np.int64))
    chance = draws(terms, Purpose.GAPS, number)
    runs = 1 + int(chance.poisson(bars / _BARS_A_GAP))
    kept = np.ones(bars, np.bool_)
    for first, length in zip(
        chance.integers(bars, size=runs), chance.geometric(1 / _BARS_MISSING, runs), strict=True
    ):
        kept[first : first + length] = False
    return kept
