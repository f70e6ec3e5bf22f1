"""When a session on a live stream closes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from gpt_trader.calendars import Calendar


def moment_text(value: str) -> str:
    """Return a clock's time as `HH:MM`, or a time with a zone as UTC ISO 8601 with `Z`; raise ValueError for others."""
    text = value.strip()
    try:
        if len(text) <= len("HH:MM"):
            return f"{time.fromisoformat(text):%H:%M}"
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(
            f"{value[:40]!r} is no time: give HH:MM on the exchange's clock, e.g. 16:00, or a time with a zone, "
            "e.g. 2026-11-05T21:00Z"
        )
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def closes_at(
    until: str | None, hours: float | None, began: datetime, calendars: Sequence[Calendar | None]
) -> datetime | None:
    """Return when a session that began then closes, UTC; None: when it is stopped.

    `until` is what `moment_text` returns; a clock's time is the first such one after the beginning, on the clock of
    the first calendar (UTC without one). With neither: the next close of each market, and of those the last; None
    where one of them never closes.
    """
    if hours is not None:
        return began + timedelta(hours=hours)
    if until is not None and len(until) > len("HH:MM"):
        return datetime.fromisoformat(until)
    if until is not None:
        first = calendars[0] if calendars else None
        return _next_on_the_clock(time.fromisoformat(until), began, first.zone if first else ZoneInfo("UTC"))
    closes = [None if each is None else each.next_close(began) for each in calendars]
    known = [close for close in closes if close is not None]
    return max(known) if known and len(known) == len(closes) else None


def _next_on_the_clock(clock: time, after: datetime, zone: ZoneInfo) -> datetime:
    day = after.astimezone(zone).date()
    while (found := datetime.combine(day, clock, tzinfo=zone).astimezone(UTC)) <= after:
        day += timedelta(days=1)
    return found
