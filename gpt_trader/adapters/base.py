"""What a source of bars is, whoever its vendor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import ClassVar

import numpy as np

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import NotEnoughBars, Problem, Refused, UnknownName
from gpt_trader.instruments import TIMEFRAMES, Instrument
from gpt_trader.raw_bars import RawBars

#: A bound of a range, inclusive: a day in UTC, or a time with its zone.
Moment = date | datetime


@dataclass(frozen=True)
class Quote:
    """The newest prices of an instrument; what the vendor does not say is None. `time` is UTC."""

    symbol: str
    time: datetime
    source: str
    bid: float | None = None
    ask: float | None = None
    bid_size: float | None = None
    ask_size: float | None = None
    last: float | None = None


@dataclass(frozen=True, eq=False)
class LiveBar:
    """A bar that has just been completed: its instrument, and one row."""

    symbol: str
    timeframe: str
    bar: RawBars


class Source(ABC):
    """Gives an instrument's facts and bars as the vendor has them: raw prices, and factors where known.

    Implementations pass `tests/contracts/test_sources.py`. Methods may be called from several threads at once.
    """

    #: The name by which requests and settings choose it; `ccxt:kraken` where one adapter serves several venues.
    name: str

    #: The timeframes that the vendor itself has, finest first; others are made from stored bars.
    timeframes: tuple[str, ...] = tuple(TIMEFRAMES)

    #: Does `instruments` name everything there is? If not, `instrument` alone knows whether a symbol exists.
    lists_all: ClassVar[bool] = True

    #: May the newest bar still be forming when it is given? Ingest holds such a bar back.
    live: bool = False

    @abstractmethod
    def instruments(self) -> list[Instrument]:
        """Return what the source lists, with the facts it knows: a fact that it does not know is left unset.

        A vendor without a list gives an empty one (`lists_all` is false then).
        """

    def instrument(self, symbol: str) -> Instrument:
        """Return the facts of one instrument; raise UnknownName with the nearest one."""
        return listed(self, symbol)

    @abstractmethod
    def pages(
        self, symbol: str, timeframe: str, start: Moment | None = None, end: Moment | None = None
    ) -> Iterator[RawBars]:
        """Yield the bars from `start` to `end`, both inclusive; None: from the first, to the last there is.

        Each page holds everything there is in a window of time, and windows ascend: whoever has stored a page may
        go on behind it after a crash. Rows within a page are as the vendor gave them (inspection sorts them).
        What passes by itself (a limit of rate, a lost connection, a page cut short) is tried again.

        Raises UnknownName (a symbol or timeframe that the source does not have), NotEnoughBars (no bar in the
        range), BadBars (what came cannot be read as bars), Refused (a bound without a zone, a file that is none),
        Denied (no or wrong credentials), SourceUnavailable (the vendor does not answer, in spite of patience).
        """

    def fetch(
        self, symbol: str, timeframe: str, start: Moment | None = None, end: Moment | None = None
    ) -> RawBars:
        """Return all pages as one; errors as `pages`."""
        return RawBars.joined(*self.pages(symbol, timeframe, start, end))

    def actions(self, symbol: str) -> CorporateActions | None:
        """Return every split and dividend that the vendor knows of; None where it knows nothing of such."""
        del symbol
        return None

    def quote(self, symbol: str) -> Quote:
        """Return the newest prices; raise Refused where the source has none, else errors as `pages`."""
        raise Refused.of(Problem("source", self.name, f"gives no quotes, so none of {symbol}"))

    def stream_groups(self, symbols: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the symbols (each once) in groups that one `stream` serves: a vendor may have several."""
        return [tuple(dict.fromkeys(symbols))]

    def require_stream(self, symbols: Sequence[str], timeframe: str) -> None:
        """Raise what `stream` raises where there is none of these; nothing is connected."""
        for group in self.stream_groups(symbols):
            self.stream(group, timeframe)  # connects when it is first asked for a bar

    def stream(self, symbols: Sequence[str], timeframe: str) -> AsyncIterator[LiveBar]:
        """Yield bars as they are completed, until the iterator is closed; a lost connection is made again.

        Bars of the time without a connection are not promised: fetch them. Raises Refused where the source has no
        stream of this timeframe, else errors as `pages`.
        """
        del symbols
        raise Refused.of(Problem("source", self.name, f"has no live stream of {timeframe} bars"))


def listed(source: Source, symbol: str) -> Instrument:
    """Return the instrument that the source lists under `symbol`; raise UnknownName with the nearest one."""
    known = {instrument.symbol: instrument for instrument in source.instruments()}
    wanted = symbol.strip().upper()
    if wanted not in known:
        raise UnknownName.among(
            "symbol", symbol, sorted(known), message=f"source {source.name} does not list {symbol[:80]}"
        )
    return known[wanted]


def offered(source: Source, timeframe: str) -> str:
    """Return the timeframe if the source has it; raise UnknownName that lists those it has."""
    if timeframe not in source.timeframes:
        hint = f"source {source.name} has {', '.join(source.timeframes)} bars"
        raise UnknownName.among("timeframe", timeframe, source.timeframes, hint=hint)
    return timeframe


def within(raw: RawBars, start: Moment | None, end: Moment | None, what: str) -> RawBars:
    """Return the rows from `start` to `end`, in the order given; rows without a time stay for the inspection.

    Raises NotEnoughBars, saying what `what` does hold, if none is left; Refused for a bound without a zone.
    """
    keep = np.ones(len(raw), np.bool_)
    if start is not None:
        keep &= ~(raw.time < microseconds("start", start, time.min))
    if end is not None:
        keep &= ~(raw.time > microseconds("end", end, time.max))
    if not (keep & ~np.isnat(raw.time)).any() and not np.isnat(raw.time).all():
        times = raw.time[~np.isnat(raw.time)]
        raise NotEnoughBars(
            f"{what} has no bars from {start or 'its first'} to {end or 'its last'}; "
            f"it has {times.min().astype('datetime64[D]')} to {times.max().astype('datetime64[D]')}"
        )
    return raw if keep.all() else raw[keep]


def microseconds(field: str, moment: Moment, clock: time) -> np.datetime64:
    """Return a bound as UTC; a day counts from its first (`time.min`) to its last microsecond (`time.max`)."""
    since = utc(field, moment, clock) - datetime(1970, 1, 1, tzinfo=UTC)
    return np.datetime64(since // timedelta(microseconds=1), "us")


def utc(field: str, moment: Moment, clock: time) -> datetime:
    """Return a bound as a time with a zone; a bare day gets `clock`. Raises Refused for a time without a zone."""
    if not isinstance(moment, datetime):
        return datetime.combine(moment, clock, tzinfo=UTC)
    if moment.tzinfo is None:
        raise Refused.of(Problem(field, moment, "is a time without a zone: give one with tzinfo"))
    return moment.astimezone(UTC)
