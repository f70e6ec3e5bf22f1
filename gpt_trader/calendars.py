"""When markets trade: sessions with holidays, half-days and changes of clocks, and the bars to expect of them.

The schedules are those of `exchange_calendars` (24/7 for markets that never close). Where a schedule is coarser than
the market we are stricter, and say so in `_PAUSED` below. Importing this module is cheap; the library, which brings
pandas, is loaded when the first calendar is.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from gpt_trader.bars import Flags, Times, instant
from gpt_trader.corporate_actions import Days
from gpt_trader.errors import Problem, Refused, UnknownName
from gpt_trader.instruments import TIMEFRAMES, Instrument

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

#: Where intraday labels count from: the session's open (and the end of its break), or the clock in UTC.
Anchor = Literal["open", "clock"]

#: The field's conventions, which differ a little from the average of a decade: daily bars a year, minutes of a day.
_CONVENTIONS: Final = {"XNYS": (252.0, 390.0), "24/7": (365.0, 1440.0)}

#: Futures of the CME pause for an hour before the next session opens; the library lets one session touch the next.
_PAUSED: Final = {"CMES": timedelta(hours=1), "us_futures": timedelta(hours=1)}

#: One calendar for many products: on holidays some close at noon and others trade on. Nobody's bars are missing after
#: the early close, and nobody's are too many up to the regular one.
_OPTIONAL_AFTER_EARLY_CLOSE: Final = frozenset({"CMES"})

_FIRST_YEAR: Final = 1990
_library: Final = threading.RLock()
_HOUR: Final = np.timedelta64(3600, "s")


@dataclass(frozen=True, eq=False)
class Sessions:
    """Trading sessions, oldest first; every array is (n,).

    `day` is datetime64[D], the date that names the session; the others are datetime64[us] in UTC. Bars are expected
    from `open` up to, not including, `close`, but for a break (NaT: none). From `close` to `latest_close` bars may be
    or not.
    """

    day: Days
    open: Times
    close: Times
    break_start: Times
    break_end: Times
    latest_close: Times

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self.day)

    def __getitem__(self, part: slice | NDArray[np.bool_]) -> Sessions:
        """Return the chosen sessions."""
        return Sessions(*(getattr(self, name)[part] for name in self.__dataclass_fields__))

    def spans(self) -> tuple[Times, Times]:
        """Return starts and ends of the times in which bars are expected: a session with a break is two of them."""
        paused = ~np.isnat(self.break_start)
        starts = np.concatenate([self.open, self.break_end[paused]])
        ends = np.concatenate([np.where(paused, self.break_start, self.close), self.close[paused]])
        order = np.argsort(starts, kind="stable")
        return starts[order], ends[order]

    def holding(self, time: Times) -> NDArray[np.intp]:
        """Return for each time (n,) the index of the session that it lies in, −1 for none (breaks count as none)."""
        index = np.searchsorted(self.open, time, "right") - 1
        inside = index >= 0
        at = np.maximum(index, 0)
        if len(self):
            inside &= time < self.latest_close[at]
            inside &= ~((time >= self.break_start[at]) & (time < self.break_end[at]))
        return np.where(inside, index, -1)


class Calendar:
    """One market's sessions. Instances are shared: get them from `calendar`."""

    def __init__(self, name: str, schedule: ExchangeCalendar) -> None:
        self.name = name
        self._schedule = schedule

    @cached_property
    def _all(self) -> Sessions:
        with _unwarned():
            return self._read()

    def _read(self) -> Sessions:
        frame = self._schedule.schedule
        columns = {name: _instants(frame[name]) for name in ("open", "close", "break_start", "break_end")}
        day = frame.index.values.astype("datetime64[D]")
        close = columns["close"]
        regular: Times = close
        pause = _PAUSED.get(self.name)
        if pause is not None:
            early = np.isin(day, self._schedule.early_closes.values.astype("datetime64[D]"))
            with_early = np.where(early, _regular_close(day, close, early), close)
            regular = (with_early - np.timedelta64(pause)).astype("datetime64[us]")
            close = np.where(early, close, regular)
        latest = regular if self.name in _OPTIONAL_AFTER_EARLY_CLOSE else close
        return Sessions(day, columns["open"], close, columns["break_start"], columns["break_end"], latest)

    @property
    def first_day(self) -> date:
        """First day that the schedule knows."""
        found: date = self._all.day[0].item()
        return found

    @property
    def last_day(self) -> date:
        """Last day that the schedule knows; of the future about a year."""
        found: date = self._all.day[-1].item()
        return found

    @property
    def zone(self) -> ZoneInfo:
        """The clock of the exchange."""
        return ZoneInfo(str(self._schedule.tz))

    @property
    def never_closes(self) -> bool:
        """Whether one session's close is the next one's open, every day."""
        recent = self._all[-10:]
        return bool((recent.close[:-1] == recent.open[1:]).all())

    def next_close(self, after: datetime) -> datetime | None:
        """Return the first regular close behind a time, UTC; None where the market never closes."""
        moment = instant(after)
        place = int(np.searchsorted(self._all.close, moment, "right"))
        if self.never_closes or place >= len(self._all):
            return None
        found: datetime = self._all.close[place].item()
        return found.replace(tzinfo=UTC)

    def is_open(self, time: Times) -> Flags:
        """Return which of the times (n,), UTC, lie in a session (a break is none)."""
        found: Flags = self._all.holding(time) >= 0
        return found

    def sessions(self, first: date, last: date) -> Sessions:
        """Return the sessions named `first` to `last`, both inclusive, as far as the schedule knows them."""
        known = self._all
        start = int(np.searchsorted(known.day, np.datetime64(first, "D"), "left"))
        stop = int(np.searchsorted(known.day, np.datetime64(last, "D"), "right"))
        return known[start:stop]

    @cached_property
    def bars_a_year(self) -> float:
        """Daily bars a year: the field's convention, else the mean of the last ten whole years, to the day."""
        if self.name in _CONVENTIONS:
            return _CONVENTIONS[self.name][0]
        years = self._all.day.astype("datetime64[Y]").astype(int) + 1970
        last = datetime.now(UTC).year - 1
        counts = [int(np.count_nonzero(years == year)) for year in range(last - 9, last + 1)]
        return float(round(sum(counts) / max(sum(count > 0 for count in counts), 1)))

    @cached_property
    def session_minutes(self) -> float:
        """Minutes of a usual session, breaks left out."""
        if self.name in _CONVENTIONS:
            return _CONVENTIONS[self.name][1]
        recent = self._all[-500:]
        pause = np.where(
            np.isnat(recent.break_start), np.timedelta64(0, "us"), recent.break_end - recent.break_start
        )
        return float(np.median((recent.close - recent.open - pause) / np.timedelta64(60, "s")))


@contextmanager
def _unwarned() -> Iterator[None]:
    """Keep quiet about what pandas 3.1 deprecates and the library still calls: no user can change it.

    One thread at a time: Python's filters of warnings are global.
    """
    with _library, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


def read_common() -> None:
    """Read the calendars of most instruments now: a process that forks others spares them 0.2 s each."""
    for name in ("XNYS", "24/7"):
        calendar(name).sessions(date.min, date.min)


def trading(instrument: Instrument, name: str | None) -> Instrument:
    """Return the instrument with a calendar and the facts that it implies; unchanged for None.

    Raises UnknownName for a calendar that there is not, with the nearest one.
    """
    if name is None:
        return instrument
    found = calendar(name)
    facts: dict[str, Any] = {
        "calendar": name,
        "bars_a_year": found.bars_a_year,
        "session_minutes": found.session_minutes,
    }
    return instrument.model_copy(update=facts)


def calendar_names() -> list[str]:
    """Return every name of a calendar, aliases (NASDAQ, CME) among them."""
    from exchange_calendars import get_calendar_names

    return sorted(get_calendar_names(include_aliases=True))


@lru_cache(maxsize=64)
def calendar(name: str) -> Calendar:
    """Return a calendar by its name or alias.

    Raises UnknownName with the nearest one, Refused for one that the installed library cannot build.
    """
    from exchange_calendars import errors, get_calendar, resolve_alias
    from exchange_calendars.calendar_utils import global_calendar_dispatcher

    try:
        canonical = resolve_alias(name)
        factory: Any = global_calendar_dispatcher._calendar_factories[
            canonical
        ]  # a class tells its bounds before it is built
    except (errors.InvalidCalendarName, KeyError):
        raise UnknownName.among(
            "calendar",
            name,
            calendar_names(),
            hint="names are those of exchange_calendars, e.g. XNYS, 24/7, CMES",
        ) from None
    if canonical != name:
        return calendar(canonical)
    import pandas as pd

    today = pd.Timestamp(datetime.now(UTC).date())
    first, last = pd.Timestamp(_FIRST_YEAR, 1, 1), today + pd.Timedelta(days=366)
    earliest, latest = factory.bound_min(), factory.bound_max()
    first = first if earliest is None else max(first, earliest)
    last = last if latest is None else min(last, latest)
    try:
        with _unwarned():
            return Calendar(canonical, get_calendar(canonical, start=first, end=last))
    except (NotImplementedError, ValueError):
        # Orthodox Easter and the holidays of Tel Aviv meet arithmetic of dates that pandas 3.1 has no more.
        message = "cannot be built by the installed exchange_calendars: set another calendar, or none"
        raise Refused.of(Problem("calendar", name, message)) from None


def expected_labels(
    found: Calendar, timeframe: str, first: date, last: date, anchor: Anchor = "open"
) -> Times:
    """Return the labels (n,) of every bar to expect of the sessions `first` to `last`: open times in UTC.

    Daily bars: the session's date at 00:00 UTC; weekly: the Monday of a week with a session. Intraday bars count
    from each session's open, or by the clock (the bar that holds the open comes first then).
    """
    sessions = found.sessions(first, last)
    step = TIMEFRAMES[timeframe]
    if step >= timedelta(weeks=1):
        return np.unique(monday_of(sessions.day)).astype("datetime64[us]")
    if step >= timedelta(days=1):
        return sessions.day.astype("datetime64[us]")
    length = np.timedelta64(step)
    starts, ends = sessions.spans()
    if anchor == "clock":
        starts = clock_floor(starts, length)
    counts = -((starts - ends) // length)  # rounded up: a session's last bar may be a short one
    counts = np.maximum(counts.astype(np.int64), 0)
    place = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    labels: Times = np.repeat(starts, counts) + place * length
    return np.unique(labels) if anchor == "clock" else labels


def ends_of(time: Times, timeframe: str, found: Calendar | None) -> Times:
    """Return for each bar label (n,) when the bar is over, in UTC.

    Daily and weekly bars end with their (last) session's latest close, intraday ones after their length or at that
    close, whichever is first. Without a calendar, or where it knows no such session, a bar lasts its whole length.
    """
    length = np.timedelta64(TIMEFRAMES[timeframe])
    whole = time + length
    if found is None or not len(time):
        return whole
    first, last = time.min().astype("datetime64[D]").item(), time.max().astype("datetime64[D]").item()
    sessions = found.sessions(first - timedelta(days=1), last + timedelta(days=8))
    if not len(sessions):
        return whole
    if TIMEFRAMES[timeframe] >= timedelta(days=1):
        upto = time + length - np.timedelta64(1, "us")
        place = np.searchsorted(sessions.day.astype("datetime64[us]"), upto, "right") - 1
        at = np.maximum(place, 0)
        known = (place >= 0) & (sessions.day[at].astype("datetime64[us]") >= time)
        ends: Times = np.where(known, sessions.latest_close[at], whole)
        return ends
    place = sessions.holding(time)
    return np.where(place >= 0, np.minimum(whole, sessions.latest_close[np.maximum(place, 0)]), whole)


def complete(time: Times, timeframe: str, found: Calendar | None, now: datetime) -> Flags:
    """Return which of the labels (n,) belong to bars that were over at `now`: none is taken before it is whole."""
    if now.tzinfo is None:
        raise Refused.of(Problem("now", now, "is a time without a zone"))
    moment = instant(now)
    flags: Flags = ends_of(time, timeframe, found) <= moment
    return flags


def monday_of(day: Days) -> Days:
    """Return for each date the Monday of its week."""
    number = day.astype("datetime64[D]").astype(np.int64)
    return (number - (number + 3) % 7).astype("datetime64[D]")  # 1970-01-01 was a Thursday


def clock_floor(time: Times, length: np.timedelta64) -> Times:
    """Return the times rounded down to whole multiples of `length` since midnight UTC."""
    day = time.astype("datetime64[D]").astype("datetime64[us]")
    floored: Times = day + ((time - day) // length) * length
    return floored


def _instants(column: Any) -> Times:  # noqa: ANN401 - a pandas Series, which this module does not import
    """Return a column of zoned timestamps as datetime64[us] in UTC, NaT kept."""
    times: Times = column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    return times


def _regular_close(day: Days, close: Times, early: Flags) -> Times:
    """Return for each session the close it would have on a regular day: that of the nearest regular one before.

    Taken as a time since the session's date, to the hour of the change of clocks exact but for the week around it.
    """
    since = close - day.astype("datetime64[us]")
    place = np.maximum.accumulate(np.where(early, -1, np.arange(len(day))))
    place = np.where(place < 0, int(np.argmin(early)), place)
    regular: Times = day.astype("datetime64[us]") + since[place]
    return regular
