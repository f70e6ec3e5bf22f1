"""Requests counted in this process: exact moving windows, without a lock, a thread or a list to move."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

#: Windows kept; beyond them the one that was hit longest ago goes.
PLACES: Final = 20_000


@dataclass(frozen=True)
class Hit:
    """Whether a request was within its limit, how many more are, and the seconds until the oldest counts no more."""

    allowed: bool
    remaining: int
    reset_seconds: float


class MovingWindows:
    """Counts hits by key. Not thread-safe: it belongs to the event loop.

    Args:
        clock: Monotonic seconds.
        places: How many keys are kept.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, places: int = PLACES) -> None:
        self._clock = clock
        self._places = places
        self._windows: OrderedDict[Hashable, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def hit(self, key: Hashable, amount: int, seconds: float) -> Hit:
        """Count one hit of `key`, of which `amount` are allowed in any `seconds`; a refused one is not counted."""
        now = self._clock()
        times = self._windows.get(key)
        if times is None:
            times = self._windows[key] = deque()
            if len(self._windows) > self._places:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(key)
        while times and times[0] <= now - seconds:
            times.popleft()
        allowed = len(times) < amount
        if allowed:
            times.append(now)
        return Hit(allowed, amount - len(times), times[0] + seconds - now)
