"""What one client may do and what is kept for it; and how often it may speak."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """The bounds of every connection; the public contract names them."""

    #: Seconds to say who it is.
    auth_seconds: float = 5.0
    #: Seconds between two pings; dead after `unanswered_pings`.
    ping_seconds: float = 30.0
    unanswered_pings: int = 2
    #: Seconds between two looks at whether the credential is still good.
    look_seconds: float = 10.0
    #: Client messages a second, and how many may come at once (enough to subscribe to everything).
    messages_a_second: float = 20.0
    burst: int = 60
    subscriptions: int = 50
    #: What may wait for a client that does not keep up.
    queue_messages: int = 256
    queue_bytes: int = 1024 * 1024
    #: Milliseconds that clients of a server that ends are told to wait: a random one of this range each.
    reconnect_ms: tuple[int, int] = (500, 4500)


class Allowance:
    """A bucket of tokens: `burst` at once, `rate` a second for ever."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._left = float(burst)
        self._at = time.monotonic()

    def take(self) -> bool:
        """Take one; return whether there was one."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
