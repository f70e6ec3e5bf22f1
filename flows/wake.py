"""When to ask the server for runs: often while there is something to do, at once when a run is announced, else seldom.

A poll costs Prefect's server some 20 ms of processor time: ten a second are a fifth of a core, for nothing, on an idle
machine. So the worker polls every `poll_seconds` only while it has runs or had some lately. Besides, it listens to
the event log's announcements: the first event of a run's channel means that somebody has just asked for that run.
Runs that nobody announces (the Prefect UI, a schedule, Prefect's own API) wait for the idle interval at most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

import psycopg
from sqlalchemy import URL

from storage.events import ANNOUNCEMENTS

logger = logging.getLogger("gpt_trader.worker")

#: The interval of an idle worker.
IDLE_SECONDS: Final = 0.5

#: How long after its last run a worker still counts as busy.
BUSY_SECONDS: Final = 20.0

#: Payload of the announcement of a run's first event (`<offset> <channel>`).
_FIRST: Final = "1 runs."

_RECONNECT_SECONDS: Final = 1.0


class Pace:
    """The waiting between two polls.

    Args:
        url: Our database, where events are announced.
        poll_seconds: The interval of a busy worker, and the shortest one.
    """

    def __init__(self, url: URL, poll_seconds: float) -> None:
        self._url = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._poll_seconds = poll_seconds
        self._announced = asyncio.Event()
        self._busy_until = 0.0

    def busy(self) -> None:
        """Note that there was something to do."""
        self._busy_until = time.monotonic() + BUSY_SECONDS

    async def pause(self) -> None:
        """Wait until it is time for the next poll."""
        await asyncio.sleep(self._poll_seconds)
        if time.monotonic() >= self._busy_until:
            try:
                await asyncio.wait_for(self._announced.wait(), max(IDLE_SECONDS - self._poll_seconds, 0))
            except TimeoutError:
                return
        self._announced.clear()

    async def listen(self) -> None:
        """Listen for announcements for ever; while the database is away, the idle interval alone counts."""
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, connect_timeout=10, application_name="gpt-trader worker"
                )
                async with connection:
                    await connection.execute(f"LISTEN {ANNOUNCEMENTS}")
                    async for notification in connection.notifies():
                        if notification.payload.startswith(_FIRST):
                            self._announced.set()
            except psycopg.OperationalError as error:
                logger.debug("Not listening for announcements: %s", error)
            await asyncio.sleep(_RECONNECT_SECONDS)
