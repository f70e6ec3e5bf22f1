"""Longer bars made of shorter ones, as the market's own sessions group them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from gpt_trader.bars import Flags, Times
from gpt_trader.calendars import Calendar, clock_floor, ends_of, monday_of
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import Problem, Refused
from gpt_trader.instruments import TIMEFRAMES
from gpt_trader.raw_bars import RawBars


@dataclass(frozen=True, eq=False)
class Resampled:
    """Longer bars, and what was left out: rows outside of every session, and the labels of groups not whole."""

    bars: RawBars
    outside: int
    unfinished: tuple[np.datetime64, ...]

    def remarks(self) -> list[str]:
        """Return what a user should know, a sentence each."""
        said = []
        if self.outside:
            said.append(f"{self.outside} bars lie outside of every session and were left out")
        said.extend(
            f"the bar of {np.datetime_as_string(label, unit='m')}Z is not whole and was left out"
            for label in self.unfinished
        )
        return said


def finer(timeframe: str) -> list[str]:
    """Return the timeframes from which bars of this one can be made, the longest first."""
    whole = TIMEFRAMES[timeframe]
    return [
        t for t, length in reversed(TIMEFRAMES.items()) if length < whole and whole % length == timedelta(0)
    ]


def resampled(
    raw: RawBars,
    of: str,
    to: str,
    calendar: Calendar | None = None,
    actions: CorporateActions | None = None,
) -> Resampled:
    """Return bars of the timeframe `to` made of sorted, clean bars (n,) of the timeframe `of`.

    Groups follow the calendar: a day is a session (labeled by its date at 00:00 UTC), a week its sessions (labeled by
    the Monday), intraday groups count from the session's open and from the end of its break. Without a calendar they
    follow the clock and the dates of UTC. A group is whole when the bars reach its end: the first and the last group
    are left out where they may not.

    Within a group, prices are brought to the last bar's terms where a split or the source's own factor changes.

    Raises Refused where bars of `to` cannot be made of bars of `of`.
    """
    if of not in finer(to):
        raise Refused.of(
            Problem("timeframe", to, f"cannot be made of {of} bars", allowed=", ".join(finer(to)) or "none")
        )
    label, inside = _labels(raw.time, of, to, calendar)
    rows, label = raw[inside], label[inside]
    outside = len(raw) - len(rows)
    if not len(rows):
        return Resampled(RawBars.empty(), outside, ())
    bars = _grouped(rows, label, actions)
    whole = _whole(rows.time, of, bars.time, to, calendar)
    return Resampled(bars[whole], outside, tuple(bars.time[~whole]))


def _labels(time: Times, of: str, to: str, calendar: Calendar | None) -> tuple[Times, Flags]:
    """Return each bar's group, and whether it has one."""
    length = np.timedelta64(TIMEFRAMES[to])
    daily = TIMEFRAMES[to] >= timedelta(days=1)
    if calendar is None or not len(time) or TIMEFRAMES[of] >= timedelta(days=1):
        day = time.astype("datetime64[D]")
        label = _of_day(day, to) if daily else clock_floor(time, length)
        return label, np.ones(len(time), np.bool_)
    first, last = time[0].astype("datetime64[D]").item(), time[-1].astype("datetime64[D]").item()
    sessions = calendar.sessions(first - timedelta(days=2), last + timedelta(days=2))
    place = sessions.holding(time)
    inside: Flags = place >= 0
    at = np.maximum(place, 0)
    if not len(sessions):
        return time, inside
    if daily:
        return _of_day(sessions.day[at], to), inside
    after_break = ~np.isnat(sessions.break_end[at]) & (time >= sessions.break_end[at])
    anchor: Times = np.where(after_break, sessions.break_end[at], sessions.open[at])
    return anchor + ((time - anchor) // length) * length, inside


def _of_day(day: np.ndarray[tuple[int, ...], np.dtype[np.datetime64]], to: str) -> Times:
    label: Times = (monday_of(day) if TIMEFRAMES[to] >= timedelta(weeks=1) else day).astype("datetime64[us]")
    return label


def _grouped(rows: RawBars, label: Times, actions: CorporateActions | None) -> RawBars:
    starts = np.flatnonzero(np.concatenate([[True], label[1:] != label[:-1]]))
    ends = np.concatenate([starts[1:], [len(label)]]) - 1
    group = np.repeat(np.arange(len(starts)), ends - starts + 1)
    split = np.ones(len(rows)) if actions is None else actions.split_factor(rows.time)
    # The source's own ratio holds splits too; where both are known they agree, and one of them is enough.
    own = bool((rows.factor != 1.0).any())
    terms = rows.factor if own else split
    price = terms / terms[ends][group]
    volume = split[ends][group] / split
    return RawBars(
        label[starts],
        (rows.open * price)[starts],
        np.maximum.reduceat(rows.high * price, starts),
        np.minimum.reduceat(rows.low * price, starts),
        rows.close[ends],
        np.add.reduceat(rows.volume * volume, starts),
        rows.factor[ends],
    )


def _whole(time: Times, of: str, label: Times, to: str, calendar: Calendar | None) -> Flags:
    """Return which groups the bars cover from their start to their end: all but, perhaps, the first and the last."""
    whole = np.ones(len(label), np.bool_)
    reached = ends_of(time[-1:], of, calendar)[0]
    whole[-1] = ends_of(label[-1:], to, calendar)[0] <= reached
    whole[0] &= time[0] < _first_of(label[0], of, to, calendar) + np.timedelta64(TIMEFRAMES[of])
    return whole


def _first_of(label: np.datetime64, of: str, to: str, calendar: Calendar | None) -> np.datetime64:
    """Return the label of the first shorter bar in a group: of a day or week, that of its first session."""
    if calendar is None or TIMEFRAMES[to] < timedelta(days=1):
        return label
    day = label.astype("datetime64[D]").item()
    sessions = calendar.sessions(day, day + TIMEFRAMES[to] - timedelta(days=1))
    if not len(sessions):
        return label
    daily = TIMEFRAMES[of] >= timedelta(days=1)
    first: np.datetime64 = (sessions.day if daily else sessions.open)[0].astype("datetime64[us]")
    return first
