"""Tasks that outlive whoever asked for them: for work that must not be cut off in the middle.

A handshake that is cancelled half-way costs more than it saves: PostgreSQL keeps the slot until authentication_timeout,
a minute, and httpcore 1.0.9 keeps the place in its pool for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class ShieldedTasks:
    """The tasks that are under way. Belongs to one event loop."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Start work as a task of its own; wait for it through `asyncio.shield`, or not at all."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return task

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do work and return its result or raise its error; when cancelled, the work goes on."""
        return await asyncio.shield(self.start(work))

    async def close(self, seconds: float) -> None:
        """Wait so long for what is under way, then cancel it."""
        if not self._under_way:
            return
        _, late = await asyncio.wait(set(self._under_way), timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # mark as seen: whoever waited for it may be gone
