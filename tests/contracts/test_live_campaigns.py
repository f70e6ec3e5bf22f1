"""Sessions on a live stream under seeded faults, each with its figure: cut streams (row 11), wrong clocks (row 12)."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gpt_trader.trading.certificate import replay
from gpt_trader.trading.events import LedgerEvent
from storage.alerts import StoredAlert
from storage.market_stream import channel_of_symbol
from tasks.sessions import sessions, strategies_of
from tasks.stores import stores
from tests.contracts.live_sessions import BTC, ETH, WARM, Trading, begun, subscribed, text_of
from tests.contracts.skewed_clock import SkewedClock, compiler
from tests.fakes.alpaca_server import AlpacaServer, Fault, Session
from tests.live_market import MINUTE, LiveMarket, minutes_ago
from tests.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HISTORY = 20
CUTS = 25


class CutMarket:
    """A market whose stream is cut where chance has it: between two minutes, or between two bars of one."""

    def __init__(self, alpaca: AlpacaServer, market: LiveMarket, chance: random.Random) -> None:
        self.alpaca, self.market, self.chance = alpaca, market, chance
        self.unheard = 0

    def cut(self) -> datetime:
        """Cut the stream, let minutes pass that nobody hears of, and return the last."""
        subscriptions = len(self.alpaca.heard)
        self._refuse_now_and_then()
        middle = self.chance.random() < 0.5
        at = self.market.go(*((BTC,) if middle else (BTC, ETH)))
        self.alpaca.cut()
        if middle:
            self.market.tell(ETH, at)  # heard or not: that is a race, as it is in the world
        silent = self.chance.randint(0, 4)
        for _ in range(silent):
            at = self.market.go()
        self.unheard += silent
        subscribed(self.alpaca, subscriptions + 1)
        return at

    def _refuse_now_and_then(self) -> None:
        """Have the next connection fail in one of the ways that connections do, and history too."""
        how = self.chance.choice(
            [None, Session(handshake=503), Session(end="cut"), Session(end="close"), Session(auth_error=406)]
        )
        if how is not None:
            self.alpaca.sessions.append(how)
        if self.chance.random() < 0.3:
            kind = self.chance.choice(["status", "cut", "lost"])
            self.alpaca.faults.append(Fault(kind, 503, path="/v1beta3/crypto/us/bars"))


def test_a_stream_that_is_cut_at_random_loses_no_bar_and_gives_none_twice(
    alpaca: AlpacaServer, figure: Callable[[str], None]
) -> None:
    """Row 11."""
    chance = random.Random(11)
    market = LiveMarket(alpaca, [BTC, ETH], minutes_ago(600), history=HISTORY)
    one = begun(BTC, ETH, grace=60)
    subscribed(alpaca)
    cutting = CutMarket(alpaca, market, chance)
    for _ in range(CUTS):
        for _ in range(chance.randint(0, 2)):
            one.until(market.go())
        cutting.cut()
        one.until(market.go())
    one.stop()
    wanted = [text_of(market.begin + n * MINUTE) for n in range(HISTORY, market.minute)]
    bars = Counter((symbol, each["time"]) for each in one.events("bars") for symbol in each["bars"])
    lost = [(symbol, time) for symbol in (BTC, ETH) for time in wanted if not bars[symbol, time]]
    log = {symbol: stores().events.read(channel_of_symbol(symbol), limit=10_000) for symbol in (BTC, ETH)}
    streamed = Counter(
        (symbol, bar["time"])
        for symbol, events in log.items()
        for event in events
        for bar in event.data["bars"]
    )
    twice = [each for counted in (bars, streamed) for each, times in counted.items() if times > 1]
    figure(
        f"a stream cut {CUTS} times at random: {len(bars)} bars traded, {cutting.unheard} minutes that nobody heard of "
        f"filled from the history, lost {len(lost)}, twice {len(twice)}, missed {len(one.events('missed'))}"
    )
    assert (lost, twice, one.events("missed")) == ([], [], [])
    assert [each["time"] for each in one.events("bars")] == wanted
    assert cutting.unheard >= CUTS
    assert one.verdict() == "equal"


JUMPS = 40
#: The most that a clock is off, in seconds.
FAR = 300


def mistimed(one: Trading) -> tuple[int, int]:
    """Return a session's orders, and how many of them one whose clock was right would not have sent, or not then."""
    stored = sessions().events(one.session_id, limit=100_000)
    events = [LedgerEvent(each.type, each.data) for each in stored]
    right, _ = replay(one.request, strategies_of(one.request), WARM[one.session_id], events)
    orders, wanted = ([each.data for each in found if each.type == "order"] for found in (events, right))
    return len(orders), sum(each not in wanted for each in orders) + sum(
        each not in orders for each in wanted
    )


def told(rule: str, ahead: float = -math.inf) -> list[StoredAlert]:
    """Return the alerts of a rule; of those about the clock, where it is so many seconds ahead."""
    found = stores().alerts.list("local", open_only=False)
    return [each for each in found if each.rule == rule and each.data.get("ahead_seconds", ahead) >= ahead]


@pytest.mark.skipif(
    sys.platform != "linux" or compiler() is None, reason="sets a process's clock by a C library"
)
def test_a_clock_that_jumps_by_minutes_mistimes_no_order_and_ends_nothing_early(
    alpaca: AlpacaServer, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Row 12: the trading process's clock is set, 5 minutes ahead to 5 behind, while the session trades."""
    chance, clock = random.Random(12), SkewedClock(tmp_path)
    market = LiveMarket(alpaca, [BTC, ETH], minutes_ago(600), history=HISTORY)
    closes = datetime.now(UTC) + timedelta(seconds=FAR - 60)  # a clock that is ahead is past it
    one = begun(BTC, ETH, here=False, until=closes.isoformat())
    clock.set(chance.choice([-FAR, FAR]))
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.contracts.live_worker", str(one.session_id)],
        env={**os.environ, **clock.environment},
    ) as trading:
        eventually(lambda: alpaca.heard or trading.poll() is not None, seconds=90, what="a subscription")
        for _ in range(JUMPS):
            clock.set(chance.randint(-FAR, FAR))
            for _ in range(chance.randint(0, 2)):
                one.until(market.go())
            if chance.random() < 0.2:
                subscriptions = len(alpaca.heard)
                alpaca.cut()
                market.go()
                subscribed(alpaca, subscriptions + 1)
            one.until(market.go())
        clock.set(FAR)
        (skewed,) = eventually(
            lambda: told("clock_skew", FAR - 5), seconds=30, what="what is said of the clock"
        )
        assert datetime.now(UTC) < closes, (
            "too slow a machine: the session was to be stopped before its close"
        )
        assert sessions().get(one.session_id).status == "active"
        sessions().command(one.session_id, "stop", "the test")
        assert trading.wait(60) == 0
    session = sessions().get(one.session_id)
    orders, wrong = mistimed(one)
    wanted = [text_of(market.begin + n * MINUTE) for n in range(HISTORY, market.minute)]
    traded = [each["time"] for each in one.events("bars")]
    false_alarms = [
        each for each in stores().alerts.list("local", open_only=False) if each.rule == "stale_data"
    ]
    figure(
        f"a clock set {JUMPS} times, up to {FAR} s ahead or behind: {len(traded)} bars, {orders} orders, mistimed "
        f"{wrong}; bars lost {len(set(wanted) - set(traded))}, missed {len(one.events('missed'))}; leases lost "
        f"{session.lease_token - 1}; false alarms of silence {len(false_alarms)}; told of the clock "
        f"{skewed.count} times"
    )
    assert (wrong, traded, one.events("missed"), false_alarms) == (0, wanted, [], [])
    assert orders > JUMPS // 4
    assert session.lease_token == 1
    assert session.reason == "stopped by the test"
    assert one.verdict() == "equal"
