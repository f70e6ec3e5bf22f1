"""What the API offers for alerts, as typed calls."""

from __future__ import annotations

from typing import Final

from cli.client.api import ROOT, Client, Json

_ALERTS: Final = f"{ROOT}/system/alerts"
#: The most that a page of the list has; the newest of them are shown.
_A_PAGE: Final = 200


class AlertClient(Client):
    """Calls of the API about alerts."""

    def alerts(self, *, acknowledged: bool) -> list[Json]:
        """Return the newest alerts; acknowledged ones as well where asked for."""
        return self._items(_ALERTS, _A_PAGE, limit=_A_PAGE, acknowledged=str(acknowledged).lower())

    def acknowledge(self, alert_id: int) -> Json:
        """Close an alert."""
        return self._object("DELETE", f"{_ALERTS}/{alert_id}")

    def send(self, message: str, severity: str) -> Json:
        """Raise an alert by hand."""
        return self._object("POST", _ALERTS, {"message": message, "severity": severity})
