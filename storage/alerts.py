"""Alerts as they are kept: raised once, counted when they repeat, sent, acknowledged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Engine, Row, func, select, text, update

from gpt_trader.alerts import SEVERITIES, Alert, Severity
from gpt_trader.errors import NotFound
from gpt_trader.runs import SYSTEM
from storage.tables import ALERTS

#: A sender looks at so many at once.
BATCH: Final = 10

#: What could not be sent is tried again after this.
RETRY_SECONDS: Final = 60.0


@dataclass(frozen=True)
class StoredAlert:
    """One alert, raised `count` times between `first_at` and `last_at`; `sending_error`: why it was not sent."""

    id: int
    owner: str
    rule: str
    about: str
    severity: Severity
    message: str
    data: dict[str, Any]
    count: int
    first_at: datetime
    last_at: datetime
    sent_at: datetime | None
    sending_error: str | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None


@dataclass
class Sending:
    """Alerts that somebody is sending: tell for each id None, or why it was not sent; it is tried again then."""

    alerts: tuple[StoredAlert, ...]
    outcomes: dict[int, str | None] = field(default_factory=dict)


class AlertStore:
    """Raises, finds and acknowledges alerts. Safe among threads and across a fork."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put(self, alert: Alert, repeat_seconds: float) -> int:
        """Raise an alert; one that is open already is counted, and sent again after `repeat_seconds` or if it is worse.

        Returns its id.
        """
        values = {
            "owner": alert.owner,
            "rule": alert.rule,
            "about": alert.about,
            "severity": alert.severity,
            "message": alert.message,
            "data": json.dumps(alert.data, allow_nan=False),
            "repeat": timedelta(seconds=repeat_seconds),
            "order": list(SEVERITIES),
        }
        with self._engine.begin() as connection:
            found: int = connection.execute(_PUT, values).scalar_one()
        return found

    def list(
        self, owner: str | None = None, *, open_only: bool = True, limit: int = 50, before: int | None = None
    ) -> tuple[StoredAlert, ...]:
        """Return up to `limit` alerts, newest first, of one owner or of all; `before`: the last id seen."""
        wanted = _ALERT.order_by(ALERTS.c.id.desc()).limit(limit)
        if owner is not None:
            wanted = wanted.where(ALERTS.c.owner == owner)
        if open_only:
            wanted = wanted.where(ALERTS.c.acknowledged_at.is_(None))
        if before is not None:
            wanted = wanted.where(ALERTS.c.id < before)
        with self._engine.connect() as connection:
            return tuple(_alert(row) for row in connection.execute(wanted))

    def get(self, alert_id: int) -> StoredAlert:
        """Return an alert; raise NotFound if there is none."""
        with self._engine.connect() as connection:
            row = connection.execute(_ALERT.where(ALERTS.c.id == alert_id)).one_or_none()
        if row is None:
            raise no_alert(alert_id)
        return _alert(row)

    def acknowledge(self, alert_id: int, by: str) -> None:
        """Close an alert: it is sent no more, and the next like it is a new one. Again, it changes nothing."""
        closing = (
            update(ALERTS)
            .where(ALERTS.c.id == alert_id, ALERTS.c.acknowledged_at.is_(None))
            .values(acknowledged_at=func.clock_timestamp(), acknowledged_by=by, due=False)
        )
        with self._engine.begin() as connection:
            connection.execute(closing)

    def clear(self, owner: str, rule: str, about: str) -> None:
        """Close an alert that is open, if there is one: what it told of is over."""
        mine = (ALERTS.c.owner == owner, ALERTS.c.rule == rule, ALERTS.c.about == about)
        with self._engine.connect() as connection:
            found = connection.execute(
                select(ALERTS.c.id).where(*mine, ALERTS.c.acknowledged_at.is_(None))
            ).scalar()
        if found is not None:
            self.acknowledge(found, SYSTEM)

    @contextmanager
    def due(self, severities: Sequence[Severity], limit: int = BATCH) -> Iterator[Sending]:
        """Give the alerts of these severities that are to be sent, locked inside the block: no other sender gets them.

        What is not told to have been sent, or to have failed, stays due.
        """
        with self._engine.begin() as connection:
            waits = ALERTS.c.sending_error.is_not(None) & (
                ALERTS.c.sent_at > func.clock_timestamp() - timedelta(seconds=RETRY_SECONDS)
            )
            chosen = (ALERTS.c.due, ALERTS.c.severity.in_(severities), ~func.coalesce(waits, False))
            wanted = _ALERT.where(*chosen).order_by(ALERTS.c.id)
            rows = connection.execute(wanted.limit(limit).with_for_update(skip_locked=True)).all()
            sending = Sending(tuple(_alert(row) for row in rows))
            yield sending
            for alert_id, error in sending.outcomes.items():
                connection.execute(
                    update(ALERTS)
                    .where(ALERTS.c.id == alert_id)
                    .values(due=error is not None, sent_at=func.clock_timestamp(), sending_error=error)
                )


def no_alert(alert_id: int) -> NotFound:
    """Return what is raised for an alert that there is not, or that is somebody else's."""
    return NotFound(f"there is no alert {alert_id}: `gpt-trader alerts list` lists them")


_ALERT: Final = select(*(ALERTS.c[each.name] for each in fields(StoredAlert)))

_PUT: Final = text(
    """
    INSERT INTO alerts AS known (owner, rule, about, severity, message, data)
    VALUES (:owner, :rule, :about, :severity, :message, CAST(:data AS json))
    ON CONFLICT (owner, rule, about) WHERE acknowledged_at IS NULL DO UPDATE SET
        count = known.count + 1, last_at = clock_timestamp(), message = excluded.message, data = excluded.data,
        severity = excluded.severity,
        due = known.due OR known.sent_at IS NULL OR known.sent_at < clock_timestamp() - :repeat
            OR array_position(CAST(:order AS text[]), excluded.severity)
                > array_position(CAST(:order AS text[]), known.severity)
    RETURNING id
    """
)


def _alert(row: Row[Any]) -> StoredAlert:
    return StoredAlert(**row._mapping)
