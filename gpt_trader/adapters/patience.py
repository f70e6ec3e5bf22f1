"""Waiting for a vendor: calls no faster than it allows, and calls again when what went wrong passes by itself.

Only reading is ever repeated here. Submitting an order never goes through this module.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from gpt_trader.errors import SourceUnavailable

Answer = TypeVar("Answer")

#: Of our own: the module's generator belongs to whoever seeds it.
_jitter: Final = random.Random()  # noqa: S311 - spreads callers, hides nothing


class Passing(Exception):
    """What went wrong may pass by itself: a limit of rate, a server error, a lost connection, a page cut short.

    `retry_after` is what the vendor asked for, in seconds.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


@dataclass(frozen=True)
class Patience:
    """How often and how long to wait: exponentially, with full jitter, unless the vendor says how long."""

    attempts: int = 6
    first_wait: float = 0.5
    longest_wait: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    def insist(self, call: Callable[[], Answer], what: str) -> Answer:
        """Return what `call` gives, called again after each `Passing`.

        Raises SourceUnavailable, naming `what` and the last reason, when the attempts are used up or the vendor
        asks for a longer wait than `longest_wait`.
        """
        for attempt in range(1, self.attempts + 1):
            try:
                return call()
            except Passing as passing:
                wait = self.wait_before(attempt, passing.retry_after)
                if attempt == self.attempts or wait > self.longest_wait:
                    raise SourceUnavailable(
                        f"{what}: {passing.reason} (tried {attempt} times); what has come in is kept: "
                        "start the same again later and it goes on from there"
                    ) from None
                self.sleep(wait)
        raise AssertionError("attempts must be at least 1")

    def wait_before(self, attempt: int, retry_after: float | None) -> float:
        """Return the seconds to wait after the failure of an attempt (from 1 on)."""
        if retry_after is not None:
            return retry_after
        ceiling = min(self.first_wait * 2 ** (attempt - 1), self.longest_wait)
        return float(ceiling * _jitter.uniform(0.5, 1.0))


@dataclass
class RateLimit:
    """At most `calls` in any `seconds`, among the threads of this process; `wait` blocks until one is allowed."""

    calls: int
    seconds: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _given: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self) -> None:
        """Return as soon as one more call is allowed, and count it."""
        with self._lock:
            now = self.clock()
            self._given = [at for at in self._given if at > now - self.seconds]
            free = len(self._given) < self.calls
            turn = now if free else self._given[-self.calls] + self.seconds  # behind the oldest that counts
            self._given.append(turn)
        if turn > now:
            self.sleep(turn - now)
