"""Slows the guessing of passwords down without locking anybody out.

Failures are counted for an address, and for an account as tried from an address. Beyond a few free ones each doubles
the time until the next attempt. Nothing is counted for an account alone: whoever tries passwords of somebody else's
account shuts their own address out of it, and its owner logs in from another one as before.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Pace:
    """How failures slow down: so many are free, then 1, 2, 4, … seconds up to a longest."""

    free: int
    longest: float

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after so many failures."""
        over = failures - self.free
        return 0.0 if over <= 0 else min(self.longest, 2.0 ** min(over - 1, 30))


#: For an account from an address, and for an address whatever the account.
ACCOUNT: Final = Pace(free=3, longest=900)
ADDRESS: Final = Pace(free=20, longest=900)

#: Seconds after which failures are forgotten where no other followed.
FORGET_SECONDS: Final = 3600.0

#: Counters kept, a few MB; beyond them the ones that were touched longest ago go.
PLACES: Final = 20_000


@dataclass
class _Counter:
    failures: int = 0
    touched: float = 0.0
    free_at: float = 0.0


class Throttle:
    """Counts failed attempts. Not thread-safe: it belongs to the event loop.

    Args:
        clock: Monotonic seconds.
        places: How many counters are kept.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, places: int = PLACES) -> None:
        self._clock = clock
        self._places = places
        self._counters: OrderedDict[tuple[str, str], _Counter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counters)

    def begin(self, account: str, address: str) -> int:
        """Let an attempt begin, and count it as failed until `succeeded` says otherwise: many may be under way at once.

        Returns:
            0, or the whole seconds to wait where it may not begin; it is not counted then.
        """
        pairs = [
            (self._counter(key), pace)
            for key, pace in zip(keys_of(account, address), (ACCOUNT, ADDRESS), strict=True)
        ]
        now = self._clock()
        wait = max(counter.free_at for counter, _ in pairs) - now
        if wait > 0:
            return math.ceil(wait)
        for counter, pace in pairs:
            counter.failures += 1
            counter.touched = now
            counter.free_at = now + pace.pause(counter.failures)
        return 0

    def succeeded(self, account: str, address: str) -> None:
        """Forget the failures of this account from this address, and take them back from the address.

        They were its owner's: a mistyped password, or a login that first learns that it needs a code. What was tried on
        other accounts stays counted.
        """
        of_account, of_address = keys_of(account, address)
        own = self._counters.pop(of_account, None)
        counter = self._counters.get(of_address)
        if counter is not None:
            counter.failures = max(0, counter.failures - (own.failures if own else 1))
            counter.free_at = counter.touched + ADDRESS.pause(counter.failures)

    def _counter(self, key: tuple[str, str]) -> _Counter:
        counter = self._counters.get(key)
        if counter is None or self._clock() - counter.touched > FORGET_SECONDS:
            counter = self._counters[key] = _Counter(touched=self._clock())
        self._counters.move_to_end(key)
        while len(self._counters) > self._places:
            self._counters.popitem(last=False)
        return counter


def keys_of(account: str, address: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return what is counted: the account as tried from the address, and the address."""
    network = network_of(address)
    return (account.strip().lower()[:320], network), ("", network)


def network_of(address: str) -> str:
    """Return what counts as one address: an IPv6 network of 64 bits is one customer's."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return address
