"""Alerts: what is worth waking somebody for, by rules over measured values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Severity = Literal["info", "warning", "error", "critical"]

#: Severities, the mildest first.
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "error", "critical")

#: The rule about bars that do not come.
STALE: Final = "stale_data"

#: The rule about clocks that differ.
SKEW: Final = "clock_skew"


class AlertRules(BaseModel):
    """When sessions raise alerts. Fractions of equity, and seconds or days of silence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    drawdown: float = Field(default=0.05, gt=0, le=1, description="Fall from the highest equity.")
    daily_loss: float = Field(
        default=0.02, gt=0, le=1, description="Loss since the last close of the day before."
    )
    dead_seconds: float = Field(
        default=60,
        ge=1,
        description="A session whose run died, and that no other run has taken up for so long.",
    )
    silent_seconds: float = Field(
        default=60, ge=1, description="A session that a run holds, and that has written nothing for so long."
    )
    stale_days: float = Field(
        default=5, gt=0, description="A session by schedule whose last bar is older than so many days."
    )
    stale_seconds: float = Field(
        default=180,
        ge=1,
        description="A session on a live stream that gets no bar for so long, and the length of one, while its market "
        "is open.",
    )
    skew_seconds: float = Field(
        default=2,
        gt=0,
        description="A clock that is so far off: this machine's from the database's, or that one from bars that come "
        "before they can be over.",
    )
    repeat_seconds: float = Field(
        default=300, ge=0, description="The same alert is not sent again within this time."
    )


@dataclass(frozen=True)
class Alert:
    """Something that somebody should know. `about` is what it is about: with the rule it tells repetitions apart."""

    rule: str
    severity: Severity
    owner: str
    about: str
    message: str
    data: dict[str, Any]


class Watched(Protocol):
    """What the rules look at in a session (`storage.session_rows.Session` has it)."""

    @property
    def session_id(self) -> UUID:
        """Its id."""

    @property
    def owner(self) -> str:
        """Who is told."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def status(self) -> str:
        """Its status."""

    @property
    def reason(self) -> str:
        """Why it has that status."""

    @property
    def bar(self) -> str | None:
        """Time of its last bar, UTC with `Z`."""


def of_abandoned(
    session: Watched, seconds: float, deaths: int, *, given_up: bool, rules: AlertRules
) -> Iterator[Alert]:
    """Yield that a session is dead: its lease ran out so many seconds ago, and nobody will take it up.

    Given up: so many runs that were started for it died one after the other. Or none has taken it up for too long.
    """
    told = {"silent_seconds": round(seconds, 1), "deaths": deaths}
    if given_up:
        message = f"{deaths} runs that were to go on with it died without one event in its ledger: it is left"
    elif seconds > rules.dead_seconds:
        message = f"nobody has traded it for {seconds:.0f} s: its run died, and it was not taken up again"
    else:
        return
    yield _alert(session, "session_dead", "critical", message, told)


def of_silence(session: Watched, seconds: float) -> Alert:
    """Return that a session hangs: somebody holds its lease, and commits nothing."""
    message = f"a run holds it and has written nothing for {seconds:.0f} s: it hangs, or its bars do not come"
    return _alert(session, "session_silent", "error", message, {"silent_seconds": round(seconds, 1)})


def of_staleness(session: Watched, seconds: float) -> Alert:
    """Return that a session by schedule gets no bars: the last one is so old."""
    days, bar = seconds / 86_400, str(session.bar)
    message = f"its last bar is of {bar[:10]}, {days:.1f} days ago: bars or the daily run are missing"
    return _alert(session, STALE, "warning", message, {"bar": bar, "days": round(days, 2)})


def of_missed(session: Watched, missed: Sequence[tuple[str, str]]) -> Iterator[Alert]:
    """Yield that bars came too late to be traded: symbol and time of each."""
    if missed:
        symbol, time = missed[0]
        message = f"{len(missed)} bars came after later ones had been traded, and are not traded: {symbol} of {time}"
        more = " and others" if len(missed) > 1 else ""
        told = {"bars": len(missed), "symbol": symbol, "time": time}
        yield _alert(session, "missed_bars", "warning", message + more, told)


def of_stream(session: Watched, rules: AlertRules, silent: Mapping[str, float]) -> Iterator[Alert]:
    """Yield what the silence of a live stream says: symbols whose market is open, and for how many seconds."""
    late = {symbol: seconds for symbol, seconds in silent.items() if seconds > rules.stale_seconds}
    if late:
        longest = max(late.values())
        message = f"no bar of {', '.join(sorted(late))} for {longest:.0f} s, and the market is open: nothing is traded"
        data = {"symbols": sorted(late), "silent_seconds": round(longest, 1), "bar": session.bar}
        yield _alert(session, STALE, "warning", message, data)


def of_skew(session: Watched, rules: AlertRules, ahead: float, early: float) -> Iterator[Alert]:
    """Yield that a clock is wrong: this machine's is ahead of the database's, or a bar came early by the latter's.

    Seconds; below 0: behind it, late.
    """
    told = {"ahead_seconds": round(ahead, 1), "early_seconds": round(max(early, 0.0), 1)}
    if early > rules.skew_seconds:
        message = f"a bar came {early:.0f} s before it can be over: the database's clock is behind"
    elif abs(ahead) > rules.skew_seconds:
        way = "ahead of" if ahead > 0 else "behind"
        message = (
            f"this machine's clock is {abs(ahead):.0f} s {way} the database's: sessions go by the latter"
        )
    else:
        return
    yield _alert(session, SKEW, "error", message, told)


def of_standing(session: Watched, rules: AlertRules, standing: Standing) -> Iterator[Alert]:
    """Yield what a session's equity and status say."""
    if session.status == "halted":
        yield _alert(
            session, "session_halted", "critical", f"it halted: {session.reason}", {"reason": session.reason}
        )
    fallen = _fraction(standing.peak, standing.equity)
    if fallen >= rules.drawdown:
        message = f"its equity is {fallen:.2%} below its peak of {standing.peak:,.2f}"
        yield _alert(
            session, "drawdown", "warning", message, {"drawdown": fallen, "equity": str(standing.equity)}
        )
    lost = _fraction(standing.day_began, standing.equity)
    if lost >= rules.daily_loss:
        message = f"{lost:.2%} were lost on {standing.day}"
        yield _alert(session, "daily_loss", "warning", message, {"loss": lost, "day": standing.day})


@dataclass(frozen=True)
class Standing:
    """A session's equity now, at its highest, and when its day began (money); the day as `YYYY-MM-DD`."""

    equity: Decimal
    peak: Decimal
    day_began: Decimal
    day: str


def _fraction(before: Decimal, now: Decimal) -> float:
    return float(1 - now / before) if before > 0 else 0.0


def about(session_id: UUID) -> str:
    """Return what an alert of a session is about."""
    return f"session:{session_id}"


def _alert(session: Watched, rule: str, severity: Severity, message: str, data: dict[str, Any]) -> Alert:
    told = {"session_id": str(session.session_id), "session": session.name, **data}
    return Alert(rule, severity, session.owner, about(session.session_id), f"{session.name}: {message}", told)
