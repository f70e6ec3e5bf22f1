"""What feeds a session: a stored range at a chosen speed, or whatever bars are new."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Final, Protocol

import numpy as np
from prefect import get_run_logger

from gpt_trader.alerts import of_missed
from gpt_trader.bars import Bars, Times
from gpt_trader.trading.events import Moment, stamp, unstamp
from gpt_trader.trading.feed import moments
from storage.bars_in_range import bars_in_range
from storage.session_rows import Session
from storage.session_views import SessionViews
from tasks.sessions import Running, raise_alerts
from tasks.stores import stores

#: How long a replay that waits for its next bar sleeps before it looks whether something was asked of it.
_NAP_SECONDS: Final = 0.25

#: Overlapping closes that must tell the same factor for it to be a split or a dividend, and how nearly.
_OVERLAP: Final = 5
_SAME: Final = 1e-9


class Feed(Protocol):
    """Moments for one session, those that it has not seen."""

    total: int

    def moments(self) -> Generator[Moment | None]:
        """Yield them, oldest first, and None before each wait for the next one: a few times a second."""
        ...

    def wait(self, moment: Moment) -> Iterator[None]:
        """Yield before each wait while a moment is not to be traded yet."""
        ...

    def end(self, running: Running) -> None:
        """Do what the end of the feed means for the session."""
        ...


class Replay:
    """The stored bars of a session's range, of the snapshot that it began on."""

    def __init__(self, running: Running) -> None:
        session, request = running.session, running.request
        lake, series = stores().lake, {}
        for symbol in request.symbols:
            bars, first = bars_in_range(
                lake, symbol, request.timeframe, request.start, request.end, snapshot=session.snapshot_id
            )
            series[symbol] = bars[first:]
        self._series = series
        self._after = _seen(running)
        self._speed = request.speed
        self._due = time.monotonic()
        self._last = self._after
        self.total = len(np.unique(np.concatenate([bars.time for bars in series.values()])))

    def moments(self) -> Generator[Moment]:
        """Yield the moments behind what the session has seen."""
        return moments(self._series, self._after)

    def wait(self, moment: Moment) -> Iterator[None]:
        """Let as much time pass as between the bars, `speed` times as fast."""
        now = unstamp(moment.time)
        if self._speed == "max":
            return
        if self._last is not None:
            self._due += float((now - self._last) / np.timedelta64(1, "s")) / self._speed
        self._last = now
        while (left := self._due - time.monotonic()) > 0:
            yield
            threading.Event().wait(min(left, _NAP_SECONDS))

    def end(self, running: Running) -> None:
        """End the session, its last target unfilled and what it holds marked at the last close, as in a backtest."""
        if not running.trader.state.over:
            running.trader.finish("completed", "its range has ended")


class Newest:
    """The bars that the lake has and a session by schedule has not seen.

    A split or a dividend since its last bar has scaled all bars before: what the session holds is scaled first. A bar
    that came after a later moment was traded is not traded any more: it is written down as missed, and told.
    """

    def __init__(self, running: Running) -> None:
        lake, timeframe, series = stores().lake, running.request.timeframe, {}
        late: dict[str, Times] = {}
        for symbol in running.request.symbols:
            bars = lake.bars(symbol, timeframe)
            seen, _ = running.trader.ledger.history.bars(symbol)
            rebase(running, symbol, bars, seen)
            late[symbol] = _late(running, symbol, bars.time)
            series[symbol] = bars[np.searchsorted(bars.time, seen.time[-1], "right") :] if len(seen) else bars
        _miss(running, late)
        self._series, self._after = series, _seen(running)
        self.total = sum(1 for _ in self.moments())

    def moments(self) -> Generator[Moment]:
        """Yield what is new."""
        return moments(self._series, self._after)

    def wait(self, moment: Moment) -> Iterator[None]:
        """Wait for nothing: what is stored is over."""
        del moment
        yield from ()

    def end(self, running: Running) -> None:
        """Leave the session open: there will be more."""


def _seen(running: Running) -> np.datetime64 | None:
    time = running.trader.state.time
    return None if time is None else unstamp(time)


def _late(running: Running, symbol: str, stored: Times) -> Times:
    """Return the times of stored bars that belong to the session's past, and that it has not seen."""
    until, start = _seen(running), running.request.start
    if until is None:
        return stored[:0]
    seen, first = running.trader.ledger.history.bars(symbol)
    if first:  # what is stored by now before the session began is none of its bars
        begin = np.searchsorted(stored, seen.time[first - 1], "right")
    else:
        begin = 0 if start is None else np.searchsorted(stored, np.datetime64(start, "us"))
    return np.setdiff1d(stored[begin : np.searchsorted(stored, until, "right")], seen.time)


def _miss(running: Running, late: Mapping[str, Times]) -> None:
    """Write down and tell what came late since the last look."""
    if running.trader.state.over or not any(len(times) for times in late.values()):
        return
    session = running.session
    known = SessionViews(stores().engine).missed(session.session_id)
    new: list[tuple[str, str]] = []
    for symbol, times in late.items():
        found = [time for time in map(stamp, times) if (symbol, time) not in known]
        running.trader.missed(symbol, found)
        new += [(symbol, time) for time in found]
    tell_missed(session, new)


def tell_missed(session: Session, missed: Sequence[tuple[str, str]]) -> None:
    """Tell of bars, symbol and time each, that came too late to be traded."""
    alerts = list(of_missed(session, missed))
    for alert in alerts:
        get_run_logger().warning("%s", alert.message)
    raise_alerts(alerts)


def rebase(running: Running, symbol: str, bars: Bars, seen: Bars) -> None:
    """Scale what a session knows of a symbol where the stored series has been scaled since."""
    if not len(seen):
        return
    overlap = seen[-_OVERLAP:]
    places = np.searchsorted(bars.time, overlap.time)
    if places[-1] >= len(bars) or not np.array_equal(bars.time[places], overlap.time):
        get_run_logger().warning("%s: bars that the session has seen are not stored any more", symbol)
        return
    ratios = bars.close[places] / overlap.close
    if np.all(np.abs(ratios - 1.0) <= _SAME):
        return
    if np.all(np.abs(ratios / ratios[-1] - 1.0) <= _SAME):
        running.trader.rebase(symbol, float(ratios[-1]))
        running.broker.restore(running.trader.state)
    else:
        get_run_logger().warning("%s: bars that the session has seen were restated since", symbol)
