"""Feeds a session from a live stream: stored bars that it has not seen, then each new one as it is collected."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from prefect import get_run_logger

from gpt_trader.adapters.base import Source
from gpt_trader.adapters.sources import streams
from gpt_trader.alerts import SKEW, STALE, about, of_skew, of_stream
from gpt_trader.bars import Bars, instant
from gpt_trader.calendars import Calendar, calendar
from gpt_trader.instruments import TIMEFRAMES
from gpt_trader.requests import DataRequest
from gpt_trader.trading.closing import closes_at
from gpt_trader.trading.events import BarRow, Moment, stamp, unstamp
from gpt_trader.trading.gathering import Gathering
from gpt_trader.trading.request import PaperTradeRequest
from storage.catalog import Mark
from storage.clock import DatabaseClock
from storage.session_care import SessionCare
from storage.session_views import SessionViews
from tasks.collecting import Collected, Collector
from tasks.feeds import rebase, tell_missed
from tasks.ingest import ingest, sources
from tasks.passing import whole
from tasks.sessions import Running, raise_alerts, request_of
from tasks.stores import stores

#: How often the lake is looked at: one file's status, unless something was committed.
_NAP_SECONDS: Final = 0.05
#: How often silence is looked at.
_SILENCE_SECONDS: Final = 5.0
#: So many bars of a series are looked at when it has changed.
_RECENT_BARS: Final = 2_000
#: How long after its close a session waits for the last bars.
LAST_BARS_SECONDS: Final = 30.0
#: Before a new session so many bars, or days of them, are brought in where they are not stored: its warm-up.
_WARM_BARS: Final = 750
_WARM_DAYS: Final = 10


def source_of(request: PaperTradeRequest) -> Source:
    """Return the source of a session on a live stream.

    Raises Refused where it has no stream of these symbols and this timeframe.
    """
    name = streams(request.source or stores().settings.default_source)
    source = sources(DataRequest(symbols=request.symbols, source=name))(name)
    source.require_stream(request.symbols, request.timeframe)
    return source


def bring_warm_up(request: PaperTradeRequest) -> None:
    """Bring the stored bars of a new session up to now: what is over is its warm-up, and not traded.

    Raises Refused where the source has no such stream, and what the ingest raises.
    """
    source = source_of(request)
    days = max(_WARM_DAYS, math.ceil(_WARM_BARS * TIMEFRAMES[request.timeframe] / timedelta(days=1)))
    first = np.datetime64(request.start or datetime.now(UTC).date(), "D") - days
    wanted = DataRequest(
        symbols=request.symbols, source=source.name, timeframes=(request.timeframe,), start=first.item()
    )
    outcomes, _ = ingest(wanted, whole(lambda _done, _total, _name: None))
    known = stores().lake.manifest().entries
    for outcome in outcomes:
        if outcome.error is not None and (outcome.series.symbol, request.timeframe) not in known:
            raise outcome.error


class Stream:
    """The bars of a session's symbols as the lake gets them, until the session's close.

    A moment is traded once every symbol whose market is open has its bar, or a newer one; or after the request's
    `grace`. A bar that comes later is written down as missed.
    """

    def __init__(self, running: Running) -> None:
        request = running.request
        self._running = running
        self._step = np.timedelta64(TIMEFRAMES[request.timeframe])
        history = running.trader.ledger.history
        self._calendars: dict[str, Calendar | None] = {}
        self._begins: dict[str, np.datetime64] = {}
        for symbol in request.symbols:
            name = history.instrument(symbol).calendar
            self._calendars[symbol] = None if name is None else calendar(name)
            bars, first = history.bars(symbol)
            if first:
                self._begins[symbol] = bars.time[first - 1]
        self.closes = closes_at(
            request.until, request.hours, running.session.created_at, list(self._calendars.values())
        )
        self._gathering = Gathering(request.symbols, self._after(), request.grace, self._expects)
        self._missed = SessionViews(stores().engine).missed(running.session.session_id)
        self._taken: dict[str, np.datetime64] = {}
        self._hashes: dict[str, str] = {}
        self._mark: Mark = None
        self._clock = DatabaseClock(stores().engine)
        self._since = self._clock.now()
        #: Seconds by which a bar came before it could be over, the most since the last look.
        self._early = 0.0
        self._skewed = False
        self._looked = time.monotonic()
        self.total = running.trader.state.steps
        #: Bars traded when silence was found last; a run before this one may have told of some. None: there is none.
        self._silent_at: int | None = running.trader.state.steps
        #: The alert of a silence that lasts.
        self._alert: int | None = None

    def moments(self) -> Generator[Moment | None]:
        """Yield moments as they come, and None before each wait for the next."""
        collector = Collector(stores(), self._collected(), get_run_logger())
        collector.start()
        try:
            while not collector.caught_up.is_set():
                yield None
                self._nap()
            while not self._is_over():
                if collector.fault is not None:
                    raise collector.fault
                self._look()
                for moment in self._gathering.due(time.monotonic()):
                    self.total = self._running.trader.state.steps + 1
                    yield moment
                yield None
                self._nap()
        finally:
            collector.close()

    def wait(self, moment: Moment) -> Iterator[None]:
        """Wait for nothing: a live bar is traded when it is there."""
        del moment
        yield from ()

    def end(self, running: Running) -> None:
        """End the session at its close, as a replay ends at that of its range."""
        if not running.trader.state.over and self.closes is not None:
            running.trader.finish("completed", f"its close has come: {self.closes:%Y-%m-%d %H:%M} UTC")

    def silence(self, now: datetime) -> Mapping[str, float]:
        """Return for how long bars are overdue, in seconds, by symbol whose market has been open all the while."""
        found = {}
        for symbol in self._running.request.symbols:
            begun = max(instant(self._since), self._taken.get(symbol, _NEVER) + self._step)
            waited = (instant(now) - self._step - begun) / np.timedelta64(1, "s")
            if (
                waited > 0
                and self._expects(symbol, begun)
                and self._expects(symbol, instant(now) - self._step)
            ):
                found[symbol] = float(waited)
        return found

    def _collected(self) -> Collected:
        request = self._running.request
        source = source_of(request)

        def wanted() -> Iterator[str]:
            for session in SessionCare(stores().engine).streaming():
                other = request_of(session)
                name = other.source or stores().settings.default_source
                if (name, other.timeframe) == (source.name, request.timeframe):
                    yield from other.symbols

        return Collected(source, request.timeframe, request.symbols, wanted)

    def _after(self) -> np.datetime64 | None:
        """Return the moment behind which bars are traded: the last one that was, or where the warm-up ends."""
        if self._running.trader.state.time is not None:
            return unstamp(self._running.trader.state.time)
        if self._running.request.start is not None or not self._begins:
            return None
        return max(self._begins.values())

    def _nap(self) -> None:
        threading.Event().wait(_NAP_SECONDS)
        if time.monotonic() - self._looked >= _SILENCE_SECONDS:
            self._looked = time.monotonic()
            self._tell_silence()
            self._tell_skew()

    def _look(self) -> None:
        """Take what the lake has got since the last look."""
        mark = stores().lake.mark()
        if mark == self._mark:
            return
        lake, request = stores().lake, self._running.request
        entries = lake.manifest().entries
        for symbol in request.symbols:
            series = (symbol, request.timeframe)
            entry, taken = entries.get(series), self._hashes.get(symbol)
            if entry is not None and taken != entry.logical_hash:
                self._hashes[symbol] = entry.logical_hash
                # All of it the first time; then what is new is among the newest.
                self._take(
                    symbol, lake.bars(*series) if taken is None else lake.recent(*series, _RECENT_BARS)
                )
        self._mark = mark

    def _take(self, symbol: str, bars: Bars) -> None:
        seen, _ = self._running.trader.ledger.history.bars(symbol)
        rebase(self._running, symbol, bars, seen)
        begin = self._begins.get(symbol)
        fresh = bars if begin is None else bars[np.searchsorted(bars.time, begin, "right") :]
        behind = seen.time[np.searchsorted(seen.time, fresh.time[0]) :] if len(fresh) else seen.time
        known = np.isin(fresh.time, behind, assume_unique=True)
        if self.closes is not None:
            known |= fresh.time + self._step > instant(self.closes)
        now = time.monotonic()
        for place in np.flatnonzero(~known).tolist():
            label, row = fresh.time[place], _row(fresh, place)
            if not self._gathering.take(symbol, label, row, now):
                self._miss(symbol, stamp(label))
        if len(fresh):
            self._taken[symbol] = fresh.time[-1]
            over = (fresh.time[-1] + self._step - instant(self._clock.now())) / np.timedelta64(1, "s")
            self._early = max(self._early, float(over))

    def _miss(self, symbol: str, label: str) -> None:
        if (symbol, label) not in self._missed and not self._running.trader.state.over:
            self._missed.add((symbol, label))
            self._running.trader.missed(symbol, [label])
            tell_missed(self._running.session, [(symbol, label)])

    def _expects(self, symbol: str, label: np.datetime64) -> bool:
        found = self._calendars[symbol]
        return found is None or bool(found.is_open(np.array([label]))[0])

    def _is_over(self) -> bool:
        """Whether the session's close has come, with its last bars or without them."""
        if self.closes is None or len(self._gathering):
            return False
        late = (self._clock.now() - self.closes).total_seconds()
        if late < 0:
            return False
        closes = instant(self.closes)
        there = all(  # the next bar would end after the close
            self._taken.get(symbol, _NEVER) + 2 * self._step > closes
            or not self._expects(symbol, closes - self._step)
            for symbol in self._running.request.symbols
        )
        return self._mark == stores().lake.mark() and (there or late > LAST_BARS_SECONDS)

    def _tell_silence(self) -> None:
        """Raise an alert where bars of an open market do not come; close it once they come again.

        One that somebody has acknowledged is not raised again before that.
        """
        rules, session, kept = stores().settings.alerts, self._running.session, stores().alerts
        state = self._running.trader.state
        silent = list(of_stream(replace(session, bar=state.time), rules, self.silence(self._clock.now())))
        if silent:
            self._silent_at = state.steps
            if self._alert is None or kept.get(self._alert).acknowledged_at is None:
                (self._alert,) = raise_alerts(silent)
        elif self._silent_at is not None and state.steps > self._silent_at:
            kept.clear(session.owner, STALE, about(session.session_id))
            self._silent_at = self._alert = None

    def _tell_skew(self) -> None:
        """Raise an alert while a clock is wrong."""
        rules, session, kept = stores().settings.alerts, self._running.session, stores().alerts
        early, self._early = self._early, 0.0
        skewed = bool(raise_alerts(of_skew(session, rules, self._clock.skew, early)))
        if self._skewed and not skewed:
            kept.clear(session.owner, SKEW, about(session.session_id))
        self._skewed = skewed


_NEVER: Final = np.datetime64(0, "us")


def _row(bars: Bars, place: int) -> BarRow:
    return BarRow(*(float(getattr(bars, name)[place]) for name in BarRow._fields))
