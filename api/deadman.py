"""Finds sessions that are dead, that hang, or that get no bars: from outside of the processes that trade them.

It asks the database alone, by its clock: whatever else of the engine is away, what it finds is told. Each thing that it
finds is one event of `system.events` (for everybody, so without a reason) and one alert of the session's owner, raised
again every `repeat_seconds` for as long as it is so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from gpt_trader.alerts import Alert, AlertRules, of_abandoned, of_silence, of_staleness
from gpt_trader.instruments import TIMEFRAMES
from storage.alerts import AlertStore
from storage.events import EventLog
from storage.market_stream import SYSTEM_CHANNEL
from storage.session_care import SessionCare
from storage.session_cases import SessionCases
from storage.session_rows import Session

#: Bars of a slow replay that may pass without a commit, beyond the seconds that every session has.
SILENT_BARS: Final = 5

#: The events that everybody may know of; other findings are alerts alone.
_EVENTS: Final = {"session_dead": "session.dead", "session_silent": "session.silent"}

_log = structlog.get_logger("api")


class Deadman:
    """One look after the other. Not safe among threads."""

    def __init__(
        self, rules: AlertRules, care: SessionCare, cases: SessionCases, alerts: AlertStore, events: EventLog
    ) -> None:
        self._rules, self._care, self._cases = rules, care, cases
        self._alerts, self._events = alerts, events
        #: When each finding was raised last: rule, session, and where the session stood.
        self._raised: dict[tuple[str, UUID, int, int], float] = {}

    def look(self, abandoned: Sequence[tuple[Session, float]]) -> None:
        """Raise what there is to raise now; `abandoned` is what `SessionCare.abandoned` returned just now."""
        found = {
            (alert.rule, each.session_id, each.seq, each.lease_token): (each, alert)
            for each, alert in self._found(abandoned)
        }
        now = time.monotonic()
        for key, (session, alert) in found.items():
            last = self._raised.get(key)
            if last is None or now - last >= self._rules.repeat_seconds:
                self._raise(session, alert)
                self._raised[key] = now
        self._raised = {key: at for key, at in self._raised.items() if key in found}

    def _found(self, abandoned: Sequence[tuple[Session, float]]) -> Iterator[tuple[Session, Alert]]:
        rules = self._rules
        for session, seconds in abandoned:
            case = self._cases.of(session)
            left = case.left(session)
            if left != "cancelled":  # somebody wanted that
                for alert in of_abandoned(
                    session, seconds, case.deaths, given_up=left == "dead", rules=rules
                ):
                    yield session, alert
        for session, seconds in self._care.silent(timedelta(seconds=rules.silent_seconds)):
            if seconds > rules.silent_seconds + _between_bars(session):
                yield session, of_silence(session, seconds)
        for session, seconds in self._care.stale(timedelta(days=rules.stale_days)):
            yield session, of_staleness(session, seconds)

    def _raise(self, session: Session, alert: Alert) -> None:
        self._alerts.put(alert, self._rules.repeat_seconds)
        kind = _EVENTS.get(alert.rule)
        if kind is None:
            return
        _log.error("a session is not traded", rule=alert.rule, session_id=str(session.session_id))
        data: dict[str, Any] = {
            "schema_version": 1,
            "session_id": str(session.session_id),
            "status": session.status,
        }
        data |= {name: alert.data[name] for name in ("silent_seconds", "deaths") if name in alert.data}
        key = f"{kind}:{session.session_id}:{session.seq}:{session.lease_token}"
        self._events.append(SYSTEM_CHANNEL, kind, data, key)


def _between_bars(session: Session) -> float:
    """Return how many seconds more without a commit are no news: bars of a slow replay are far apart.

    On a live stream nights are silent; what is not is told by its feed (`stale_data`).
    """
    if session.feed == "stream":
        return math.inf
    speed = session.request.get("speed", "max")
    bar = TIMEFRAMES.get(session.request.get("timeframe", ""), timedelta(0)).total_seconds()
    return 0.0 if speed == "max" else SILENT_BARS * bar / float(speed)
