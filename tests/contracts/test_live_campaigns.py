"""Sessions on a live stream under seeded faults, each with its figure: streams that are cut (row 11)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import datetime

import pytest

from storage.market_stream import channel_of_symbol
from tasks.stores import stores
from tests.contracts.live_sessions import BTC, ETH, begun, subscribed, text_of
from tests.fakes.alpaca_server import AlpacaServer, Fault, Session
from tests.live_market import MINUTE, LiveMarket, minutes_ago

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
    told = {symbol: stores().events.read(channel_of_symbol(symbol), limit=10_000) for symbol in (BTC, ETH)}
    streamed = Counter(
        (symbol, bar["time"])
        for symbol, events in told.items()
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
