"""What the API offers for alerts, as typed calls."""

from __future__ import annotations

from typing import Self

from cli.client.api import ROOT, Json
from cli.client.wire import Wire


class AlertClient:
    """Calls of the API about alerts."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.close()

    def alerts(self, *, acknowledged: bool) -> list[Json]:
        """Return alerts, newest first; acknowledged ones as well where asked for."""
        path = f"{ROOT}/system/alerts?limit=200&acknowledged={str(acknowledged).lower()}"
        found: list[Json] = self._wire.request("GET", path).json()["items"]
        return found

    def acknowledge(self, alert_id: int) -> Json:
        """Close an alert."""
        found: Json = self._wire.request("DELETE", f"{ROOT}/system/alerts/{alert_id}").json()
        return found

    def send(self, message: str, severity: str) -> Json:
        """Raise an alert by hand."""
        body = {"message": message, "severity": severity}
        found: Json = self._wire.request("POST", f"{ROOT}/system/alerts", body=body).json()
        return found
