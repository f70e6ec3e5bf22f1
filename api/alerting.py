"""Sends alerts, whoever raised them.

Every API process does it; alerts are locked while they are sent, so that each is sent once. What cannot be sent stays
due and is tried again. A channel's URL holds its secret: it is never told.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from gpt_trader.alerts import SEVERITIES
from gpt_trader.settings import Settings
from storage.alerts import AlertStore, StoredAlert

if TYPE_CHECKING:
    from apprise import Apprise

_log = structlog.get_logger("api")

#: How often it is looked what is due.
LOOK_SECONDS: Final = 5.0

_KINDS: Final = {"info": "info", "warning": "warning", "error": "failure", "critical": "failure"}


class Alerting:
    """The loop of one API process."""

    def __init__(self, settings: Settings, alerts: AlertStore) -> None:
        self._settings, self._alerts = settings, alerts
        self._channels: Apprise | None = None
        self._sent = SEVERITIES[SEVERITIES.index(settings.alert_severity) :]

    async def run(self) -> None:
        """Look every few seconds, for ever."""
        while True:
            try:
                await asyncio.to_thread(self.look)
            except (OperationalError, InterfaceError, NoConnection) as error:
                _log.warning("alerts wait: the database does not answer", error=type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Send what is due."""
        if self._settings.alert_channels is None:
            return
        with self._alerts.due(self._sent) as sending:
            for due in sending.alerts:
                sending.outcomes[due.id] = self._send(due)

    def _send(self, alert: StoredAlert) -> str | None:
        """Send one alert to every channel; return what went wrong, if anything."""
        times = f" ({alert.count} times since {alert.first_at:%Y-%m-%d %H:%M} UTC)" if alert.count > 1 else ""
        done = self._opened().notify(
            title=f"gpt-trader: {alert.severity}",
            body=f"{alert.message}{times}",
            notify_type=_KINDS[alert.severity],
        )
        if done:
            return None
        _log.warning("an alert could not be sent to every channel", alert=alert.id, rule=alert.rule)
        return "a channel did not take it"

    def _opened(self) -> Apprise:
        """Return the channels, made when the first alert is sent: the library takes a while to load."""
        if self._channels is None:
            from apprise import Apprise

            assert self._settings.alert_channels is not None
            self._channels = Apprise()
            for number, url in enumerate(self._settings.alert_channels.get_secret_value().split(), 1):
                if not self._channels.add(url):
                    scheme = url.partition(":")[0]
                    _log.error(
                        "a channel of alert_channels is no URL that Apprise knows",
                        place=number,
                        scheme=scheme,
                    )
        return self._channels
