"""What the `alerts` commands do."""

from __future__ import annotations

from typing import Final

from cli.client.alerts import AlertClient
from cli.client.api import Json
from cli.client.connect import wire
from cli.terminal.render import emit, grid, pairs, to_the_second

_COLUMNS: Final = {
    "id": "id",
    "severity": "severity",
    "rule": "rule",
    "count": "times",
    "last_at": "last",
    "sent_at": "sent",
    "message": "message",
}


def list_alerts(*, everything: bool) -> None:
    """List the alerts that are open, or all."""
    with AlertClient(wire()) as client:
        items = client.alerts(acknowledged=everything)
    emit(
        items,
        rows=lambda: items,
        table=lambda: [grid(map(_to_the_second, items), _COLUMNS) if items else "no alerts"],
    )


def _to_the_second(alert: Json) -> Json:
    """Return an alert with its times as a person reads them."""
    times = {name: alert[name] and to_the_second(alert[name]) for name in ("last_at", "sent_at")}
    return {**alert, **times}


def acknowledge_alert(alert_id: int) -> None:
    """Close an alert and show it."""
    with AlertClient(wire()) as client:
        found = client.acknowledge(alert_id)
    emit(found, table=lambda: [pairs(found)])


def send_alert(message: str, severity: str) -> None:
    """Raise an alert by hand and show it."""
    with AlertClient(wire()) as client:
        found = client.send(message, severity)
    emit(found, table=lambda: [pairs(found)])
