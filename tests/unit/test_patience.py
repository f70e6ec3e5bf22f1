"""How long we wait for a vendor, how often we try, and how fast we ask: by a clock of our own."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest

from gpt_trader.adapters.patience import Passing, Patience, RateLimit
from gpt_trader.errors import Denied, SourceUnavailable


@dataclass
class Vendor:
    """Answers after failing as told, one failure a call."""

    failures: list[BaseException]
    calls: int = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "bars"


@dataclass
class Clock:
    """A clock that only sleeping moves."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def limit(clock: Clock, calls: int, seconds: float) -> RateLimit:
    return RateLimit(calls, seconds, clock=clock, sleep=clock.sleep)


def test_what_works_is_asked_once_and_waits_for_nothing():
    clock, vendor = Clock(), Vendor([])
    assert Patience(sleep=clock.sleep).insist(vendor, "bars of AAPL") == "bars"
    assert (vendor.calls, clock.slept) == (1, [])


def test_what_passes_is_asked_again_after_longer_and_longer_waits():
    clock, vendor = Clock(), Vendor([Passing("busy")] * 5)
    assert (
        Patience(attempts=6, first_wait=1, longest_wait=60, sleep=clock.sleep).insist(vendor, "bars")
        == "bars"
    )
    assert vendor.calls == 6
    for wait, ceiling in zip(clock.slept, (1, 2, 4, 8, 16), strict=True):
        assert ceiling / 2 <= wait <= ceiling


def test_attempts_used_up_say_what_of_whom_why_and_how_often():
    clock, vendor = Clock(), Vendor([Passing("busy"), Passing("busy"), Passing("lost connection")])
    with pytest.raises(SourceUnavailable) as caught:
        Patience(attempts=3, first_wait=1, sleep=clock.sleep).insist(vendor, "bars of AAPL")
    assert "bars of AAPL: lost connection (tried 3 times)" in caught.value.detail
    assert caught.value.__suppress_context__, "a vendor's own error may show an address or a key"
    assert (vendor.calls, len(clock.slept)) == (3, 2), "no wait after the last attempt"


def test_what_does_not_pass_by_itself_is_not_asked_again():
    clock, vendor = Clock(), Vendor([Passing("busy"), Denied("wrong key")])
    with pytest.raises(Denied, match="wrong key"):
        Patience(sleep=clock.sleep).insist(vendor, "bars")
    assert (vendor.calls, len(clock.slept)) == (2, 1)


def test_a_wait_that_the_vendor_asks_for_is_kept_to_the_second():
    clock, vendor = Clock(), Vendor([Passing("limit", retry_after=7.0), Passing("limit", retry_after=0.0)])
    assert Patience(first_wait=1, sleep=clock.sleep).insist(vendor, "bars") == "bars"
    assert clock.slept == [7.0, 0.0]


@pytest.mark.parametrize(("retry_after", "calls"), [(60.0, 2), (60.1, 1)])
def test_a_vendor_that_asks_for_too_long_a_wait_is_given_up_at_once(retry_after: float, calls: int):
    clock, vendor = Clock(), Vendor([Passing("limit", retry_after=retry_after)] * 2)
    with pytest.raises(SourceUnavailable, match=rf"limit \(tried {calls} times\)"):
        Patience(attempts=2, longest_wait=60.0, sleep=clock.sleep).insist(vendor, "bars")
    assert vendor.calls == calls


@pytest.mark.parametrize(
    ("attempt", "ceiling"), [(1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (50, 60.0)]
)
def test_waits_double_up_to_the_longest_and_spread(attempt: int, ceiling: float):
    waits = [Patience().wait_before(attempt, None) for _ in range(200)]
    assert ceiling / 2 <= min(waits) <= max(waits) <= ceiling
    assert max(waits) - min(waits) > ceiling / 4, "callers that failed together must not come back together"


@pytest.mark.parametrize("attempt", [1, 5])
@pytest.mark.parametrize("retry_after", [0.0, 3.5, 1000.0])
def test_what_the_vendor_says_overrules_the_doubling(attempt: int, retry_after: float):
    assert Patience().wait_before(attempt, retry_after) == retry_after


def test_no_more_calls_than_allowed_start_in_any_window():
    clock = Clock()
    rate = limit(clock, 3, 60.0)
    starts = []
    for _ in range(10):
        rate.wait()
        starts.append(clock.now - 1000)
    assert starts == [0, 0, 0, 60, 60, 60, 120, 120, 120, 180]
    assert clock.slept == [60.0, 60.0, 60.0]


def test_calls_that_are_slow_by_themselves_never_wait():
    clock = Clock()
    rate = limit(clock, 2, 10.0)
    for _ in range(20):
        rate.wait()
        clock.now += 5.0
    assert clock.slept == []


def test_a_window_slides_and_does_not_start_anew():
    clock = Clock()
    rate = limit(clock, 2, 10.0)
    for passing in (0.0, 8.0, 0.0, 0.0):  # calls at 0 and 8, so the next may start at 10 and at 18
        clock.now += passing
        rate.wait()
    assert clock.slept == [2.0, 8.0]


def test_turns_are_given_out_among_threads_before_anybody_sleeps():
    clock, waits, lock = Clock(), [], threading.Lock()

    def sleep(seconds: float) -> None:  # time stands still: all threads come at once
        with lock:
            waits.append(seconds)

    rate = RateLimit(2, 1.0, clock=clock, sleep=sleep)
    threads = [threading.Thread(target=rate.wait) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]


def test_by_the_real_clock_it_waits_as_long_as_it_says():
    rate = RateLimit(1, 0.05)
    began = time.monotonic()
    for _ in range(3):
        rate.wait()
    assert time.monotonic() - began >= 0.1
