"""The time by the database's clock: one for all that lease, trade and look after sessions."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Engine, text
from sqlalchemy.exc import InterfaceError, OperationalError

#: How often the database is asked.
EVERY_SECONDS: Final = 5.0

_NOW: Final = text("SELECT clock_timestamp()")


class DatabaseClock:
    """The database's clock, carried on by the monotonic one from its last answer on.

    This machine's own clock may be wrong, or be set while a session trades: nothing is early or late for it. While the
    database does not answer the last answer is carried on. Safe among threads.
    """

    def __init__(self, engine: Engine, every: float = EVERY_SECONDS) -> None:
        """Ask on the first use; raises what the engine does where there is no answer to begin with."""
        self._engine, self._every = engine, every
        #: The last answer, and when it was true by the monotonic clock.
        self._told: tuple[datetime, float] | None = None
        self._asked = 0.0
        #: Seconds by which this machine's clock was ahead when the database was asked last.
        self.skew = 0.0

    def now(self) -> datetime:
        """Return the time, UTC."""
        if self._told is None or time.monotonic() - self._asked >= self._every:
            self._ask()
        assert self._told is not None
        told, at = self._told
        return told + timedelta(seconds=time.monotonic() - at)

    def _ask(self) -> None:
        self._asked = time.monotonic()
        try:
            with self._engine.connect() as connection:
                began = time.monotonic()
                answer: datetime = connection.execute(_NOW).scalar_one()
        except (OperationalError, InterfaceError):
            if self._told is None:
                raise
            return
        at = (began + time.monotonic()) / 2
        told = answer.astimezone(UTC)
        self._told = told, at
        here = datetime.now(UTC) - timedelta(seconds=time.monotonic() - at)
        self.skew = (here - told).total_seconds()
