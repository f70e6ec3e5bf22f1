"""What a source of bars is, whoever its vendor."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol, runtime_checkable

import numpy as np

from gpt_trader.errors import NotEnoughBars, Problem, Refused, UnknownName
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars

#: A bound of a range, inclusive: a day in UTC, or a time with its zone.
Moment = date | datetime


@runtime_checkable
class Source(Protocol):
    """Lists instruments and gives their bars as the vendor has them: raw prices, and factors where known.

    Implementations pass `tests/contracts/test_sources.py`.
    """

    @property
    def name(self) -> str:
        """The name by which requests and settings choose it."""
        ...

    def instruments(self) -> list[Instrument]:
        """Return what the source lists, with the facts it knows: a fact that it does not know is left unset."""
        ...

    def fetch(
        self, symbol: str, timeframe: str, start: Moment | None = None, end: Moment | None = None
    ) -> RawBars:
        """Return the bars from `start` to `end`, both inclusive; None: from the first, to the last there is.

        Raises UnknownName (a symbol or timeframe that the source does not have), NotEnoughBars (no bar in the
        range), BadBars (what came cannot be read as bars), Refused (a bound without a zone, a file that is none).
        """
        ...


def listed(source: Source, symbol: str) -> Instrument:
    """Return the instrument that the source lists under `symbol`; raise UnknownName with the nearest one."""
    known = {instrument.symbol: instrument for instrument in source.instruments()}
    wanted = symbol.strip().upper()
    if wanted not in known:
        raise UnknownName.among(
            "symbol", symbol, sorted(known), message=f"source {source.name} does not list {symbol[:80]}"
        )
    return known[wanted]


def within(raw: RawBars, start: Moment | None, end: Moment | None, what: str) -> RawBars:
    """Return the rows from `start` to `end`, in the order given; rows without a time stay for the inspection.

    Raises NotEnoughBars, saying what `what` does hold, if none is left; Refused for a bound without a zone.
    """
    keep = np.ones(len(raw), np.bool_)
    if start is not None:
        keep &= ~(raw.time < _microseconds("start", start, time.min))
    if end is not None:
        keep &= ~(raw.time > _microseconds("end", end, time.max))
    if not (keep & ~np.isnat(raw.time)).any() and not np.isnat(raw.time).all():
        times = raw.time[~np.isnat(raw.time)]
        raise NotEnoughBars(
            f"{what} has no bars from {start or 'its first'} to {end or 'its last'}; "
            f"it has {times.min().astype('datetime64[D]')} to {times.max().astype('datetime64[D]')}"
        )
    return raw if keep.all() else raw[keep]


def _microseconds(field: str, moment: Moment, clock: time) -> np.datetime64:
    """Return a bound as UTC; a day counts from its first to its last microsecond."""
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, clock, tzinfo=UTC)
    if moment.tzinfo is None:
        raise Refused.of(Problem(field, moment, "is a time without a zone: give one with tzinfo"))
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return np.datetime64(since // timedelta(microseconds=1), "us")
