"""What was looked up a moment ago, so that not every request asks the database who its caller is."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

#: Seconds after which another process's change of an account, a login or a key counts here; our own counts at once.
SECONDS: Final = 5.0
PLACES: Final = 10_000


class Remembered(Generic[Key, Value]):
    """Answers of a look-up (None too) for a few seconds. Belongs to one event loop.

    `forget` counts at once, for look-ups that are under way too: what they find is not kept.
    """

    def __init__(
        self,
        look_up: Callable[[Key], Awaitable[Value | None]],
        *,
        seconds: float = SECONDS,
        places: int = PLACES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_up = look_up
        self._seconds = seconds
        self._places = places
        self._clock = clock
        self._kept: OrderedDict[Key, tuple[float, Value | None]] = OrderedDict()
        self._forgettings = 0

    async def get(self, key: Key) -> Value | None:
        """Return what the look-up says, or said a moment ago."""
        kept = self._kept.get(key)
        if kept is not None and self._clock() - kept[0] < self._seconds:
            return kept[1]
        asked_at, forgettings = self._clock(), self._forgettings
        found = await self._look_up(key)
        if forgettings == self._forgettings:
            self._kept[key] = (asked_at, found)
            self._kept.move_to_end(key)
            while len(self._kept) > self._places:
                self._kept.popitem(last=False)
        return found

    def forget(self, key: Key | None = None) -> None:
        """Ask again the next time, for one key or for all."""
        self._forgettings += 1
        if key is None:
            self._kept.clear()
        else:
            self._kept.pop(key, None)
