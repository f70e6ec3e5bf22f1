"""Alerts: what is worth waking somebody for, by rules over measured values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Severity = Literal["info", "warning", "error", "critical"]

#: Severities, the mildest first.
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "error", "critical")


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
        description="A session that is to feed itself, and that nobody has traded for so long.",
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
    """What the rules look at in a session (`storage.sessions.Session` has it)."""

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
    def feed(self) -> str:
        """`schedule`, or it feeds itself (`replay`, `stream`)."""

    @property
    def status(self) -> str:
        """Its status."""

    @property
    def reason(self) -> str:
        """Why it has that status."""

    @property
    def bar(self) -> str | None:
        """Time of its last bar, UTC with `Z`."""

    @property
    def lease_until(self) -> datetime | None:
        """Until when somebody has the right to trade it."""

    @property
    def ended_at(self) -> datetime | None:
        """When it ended."""


def of_silence(session: Watched, rules: AlertRules, now: datetime) -> Iterator[Alert]:
    """Yield what a session's silence says, seen from outside of the process that trades it."""
    if session.ended_at is not None:
        return
    lease = session.lease_until
    silent = (now - lease).total_seconds() if lease is not None else 0.0
    if session.feed != "schedule" and silent > rules.dead_seconds:
        message = f"nobody has traded it for {silent:.0f} s: its process died, and it was not taken up again"
        yield _alert(session, "session_dead", "critical", message, {"silent_seconds": round(silent, 1)})
    if session.feed == "schedule" and session.bar is not None:
        age = now - datetime.fromisoformat(session.bar)
        if age > timedelta(days=rules.stale_days):
            days = age / timedelta(days=1)
            message = f"its last bar is of {session.bar[:10]}, {days:,.0f} days ago: bars or the daily run are missing"
            yield _alert(
                session, "stale_data", "warning", message, {"bar": session.bar, "days": round(days, 2)}
            )


def of_stream(session: Watched, rules: AlertRules, silent: Mapping[str, float]) -> Iterator[Alert]:
    """Yield what the silence of a live stream says: symbols whose market is open, and for how many seconds."""
    late = {symbol: seconds for symbol, seconds in silent.items() if seconds > rules.stale_seconds}
    if late:
        longest = max(late.values())
        message = f"no bar of {', '.join(sorted(late))} for {longest:.0f} s, and the market is open: nothing is traded"
        data = {"symbols": sorted(late), "silent_seconds": round(longest, 1), "bar": session.bar}
        yield _alert(session, "stale_data", "warning", message, data)


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


def _alert(session: Watched, rule: str, severity: Severity, message: str, data: dict[str, Any]) -> Alert:
    told = {"session_id": str(session.session_id), "session": session.name, **data}
    return Alert(
        rule, severity, session.owner, f"session:{session.session_id}", f"{session.name}: {message}", told
    )
