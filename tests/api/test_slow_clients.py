"""Clients that do not read: the market's stream is conflated, others are closed and recover; nobody else notices."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed

from gpt_trader.runs import LOCAL
from storage.events import NewEvent
from storage.market_stream import channel_of_symbol
from tests.api.conftest import Engine
from tests.api.sockets import Json, Plain
from tests.waiting import eventually

#: What a connection may hold in this process: its queue, the transport's buffer (64 KiB) and a frame over each.
HELD = 1024 * 1024 + 192 * 1024


def stuck(engine: Engine) -> Plain:
    """A client with a small window, whose library stops reading when two messages wait."""
    parts = urlsplit(engine.url)
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    peer.connect((parts.hostname, parts.port))
    return Plain(engine, engine.key, sock=peer, max_queue=2)


def publish(engine: Engine, channel: str, count: int, size: int = 8000, **more: str) -> None:
    for begin in range(0, count, 50):
        numbers = range(begin, min(begin + 50, count))
        events = [NewEvent("message", {"n": n, "filling": "x" * size, **more}) for n in numbers]
        engine.events.append_many(channel, events)


class Reading(threading.Thread):
    """A client that keeps up: it reads beside the test, so many messages."""

    def __init__(self, client: Plain, count: int) -> None:
        super().__init__(name="reader")
        self.messages: list[Json] = []
        self._client, self._count = client, count
        self.start()

    def run(self) -> None:
        while len(self.messages) < self._count:
            self.messages.append(self._client.take())

    def all(self) -> list[Json]:
        self.join(timeout=30)
        assert len(self.messages) == self._count
        return self.messages


def numbers(messages: list[Json]) -> list[int]:
    return [each["data"]["n"] for each in messages]


def test_who_does_not_read_is_closed_and_recovers_all_of_it(engine_api: Engine) -> None:
    count, channel = 600, f"custom.{LOCAL}.slow"
    streams = engine_api.context.streams
    with stuck(engine_api) as slow, Plain(engine_api, engine_api.key) as well:
        for client in (slow, well):
            assert client.subscribe("custom.slow")["type"] == "subscribed"
        (one,) = [
            each for each in streams.connections if each.number == min(c.number for c in streams.connections)
        ]
        reading = Reading(well, count)
        publish(engine_api, channel, count)
        assert numbers(reading.all()) == list(range(count))
        eventually(lambda: one.closed_with is not None, what="the slow one is closed")
        assert one.outbox.bytes < HELD
        told: list[Json] = []
        with pytest.raises(ConnectionClosed) as closed:
            told.extend(iter(slow.take, None))  # it wakes up
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4408
        assert "recover" in closed.value.rcvd.reason
    assert 0 < len(told) < count
    position = {"epoch": told[-1]["epoch"], "offset": told[-1]["offset"]}
    with Plain(engine_api, engine_api.key) as client:
        answer = client.subscribe("custom.slow", position)
        rest = list(answer["publications"])
        rest += [client.take() for _ in range(count - len(told) - len(rest))]
    assert numbers(told + rest) == list(range(count))


def test_the_market_is_conflated_for_the_slow_alone(engine_api: Engine) -> None:
    """Two symbols, two timeframes: who reads gets each publication; who does not, the latest of each, and stays."""
    symbols, each = ("SLOWA", "SLOWB"), 300
    total = len(symbols) * 2 * each
    with stuck(engine_api) as slow, Plain(engine_api, engine_api.key) as well:
        for client in (slow, well):
            for symbol in symbols:
                assert client.subscribe("market.stream", symbol=symbol, bars=0)["type"] == "subscribed"
        reading = Reading(well, total)
        for symbol in symbols:
            for timeframe in ("1d", "1h"):
                publish(engine_api, channel_of_symbol(symbol), each, timeframe=timeframe)
        everything = reading.all()
        told = []
        while sum(1 + one.get("conflated", 0) for one in told) < total:
            told.append(slow.take())
        assert slow.ask("ping")["type"] == "pong"
    assert not any("conflated" in one for one in everything)
    for symbol in symbols:
        assert [one["offset"] for one in everything if one["key"] == symbol] == list(range(1, 2 * each + 1))
        for timeframe in ("1d", "1h"):
            of_it = [one for one in told if (one["key"], one["data"]["timeframe"]) == (symbol, timeframe)]
            assert of_it[-1]["data"]["n"] == each - 1  # the latest of each came
            assert sum(1 + one.get("conflated", 0) for one in of_it) == each
    assert len(told) < total


def test_what_conflation_left_out_is_counted_exactly(engine_api: Engine) -> None:
    symbol, count = "SLOWC", 700
    with stuck(engine_api) as slow:
        assert slow.subscribe("market.stream", symbol=symbol, bars=0)["type"] == "subscribed"
        publish(engine_api, channel_of_symbol(symbol), count, timeframe="1d")
        streams = engine_api.context.streams
        eventually(lambda: _delivered(engine_api, symbol, count), what="all of it is delivered or conflated")
        (connection,) = streams.connections
        assert connection.outbox.bytes < HELD
        assert connection.outbox.conflated > 0
        told = slow.take_until(lambda message: message.get("offset") == count, seconds=20)
    assert told[-1]["data"]["n"] == count - 1  # the latest always comes
    assert sum(1 + each.get("conflated", 0) for each in told) == count
    before = 0
    for each in told:
        assert each["offset"] == before + 1 + each.get("conflated", 0)
        before = each["offset"]


def _delivered(engine: Engine, symbol: str, count: int) -> bool:
    topics = [each for each in engine.context.streams.topics.all if each.stream.key == symbol]
    return bool(topics) and topics[0].position is not None and topics[0].position.offset == count


def test_a_client_of_many_channels_recovers_at_its_own_pace(engine_api: Engine) -> None:
    """History is sent as the client takes it: one that wants far more than a queue holds is not closed for it."""
    count = 500
    publish(engine_api, f"custom.{LOCAL}.history", count, size=20_000)
    with stuck(engine_api) as slow:
        slow.say("subscribe", channel="custom.history", recover={"epoch": None, "offset": 0})
        eventually(lambda: bool(engine_api.context.streams.topics.all), what="it is being recovered")
        answer = slow.take_until(lambda message: message["type"] == "subscribed")[-1]
        told = list(answer["publications"])
        told += [slow.take() for _ in range(count - len(told))]
    assert numbers(told) == list(range(count))


def test_pings_that_nobody_reads_the_answers_of_do_not_pile_up(engine_api: Engine) -> None:
    with stuck(engine_api) as flood:
        (connection,) = engine_api.context.streams.connections
        sent = 0
        with suppress(ConnectionClosed, OSError):
            for sent in range(1_000_000):
                flood.socket.ping(b"%08d" % sent + b"x" * 117)
                assert connection.outbox.bytes < HELD
        assert sent < 900_000  # it was cut


@pytest.mark.slow
def test_forty_clients_that_never_read_cost_bounded_memory(
    engine_api: Engine, figure: Callable[[str], None]
) -> None:
    """Forty stuck clients under 80 MB of publications: RSS bounded, and a reader's latency stays what it was."""
    publish(engine_api, f"custom.{LOCAL}.calm", 50)
    with Plain(engine_api, engine_api.key) as well:
        well.subscribe("custom.flood")
        calm = _latencies(engine_api, well, 200)
        before = _rss()
        crowd = [stuck(engine_api) for _ in range(40)]
        for client in crowd:
            client.subscribe("custom.flood")
        beside = _latencies(engine_api, well, 5000, size=16_000)
        grown = _rss() - before
        streams = engine_api.context.streams
        eventually(lambda: len(streams.connections) == 1, seconds=40, what="the stuck ones are closed")
        for client in crowd:
            client.socket.socket.close()
    p99 = [sorted(each)[int(len(each) * 0.99)] * 1000 for each in (calm, beside)]
    figure(
        f"40 clients that never read: RSS +{grown / 2**20:.0f} MB, a reader's p99 {p99[0]:.0f} → {p99[1]:.0f} ms"
    )
    assert grown < 40 * 2 * HELD  # this process holds the clients' sides as well
    assert p99[1] < 1000


def _latencies(engine: Engine, reader: Plain, count: int, size: int = 100) -> list[float]:
    seconds = []
    for number in range(count):
        began = time.perf_counter()
        engine.events.append(f"custom.{LOCAL}.flood", "message", {"n": number, "filling": "x" * size})
        reader.take()
        seconds.append(time.perf_counter() - began)
    return seconds


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
