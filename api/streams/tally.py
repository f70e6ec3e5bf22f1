"""What the streams of one process have done so far, and how things stand, as Prometheus reads it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from storage.events import Event

if TYPE_CHECKING:
    from api.streams.connection import Connection
    from api.streams.streams import Streams

#: Channels that are named by their first part: the rest is a run's id or a user's word.
_FAMILIES: Final = ("runs", "custom")

_LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Tally:
    """Counts of one process; belongs to its loop."""

    def __init__(self) -> None:
        #: Server-sent event streams that are open.
        self.event_streams = 0
        #: Connections that ended, by the code that they were closed with (0: the client left).
        self.closed: Counter[int] = Counter()
        #: Subscriptions that were told that their position is gone.
        self.unrecoverable = 0
        #: Frames of connections that have ended.
        self.sent = 0
        self.conflated = 0
        self.lag = Histogram(
            "gpt_trader_stream_lag_seconds",
            "Seconds from an event's append (the database's clock) to its way out to subscribers.",
            buckets=_LAG_BUCKETS,
            registry=None,
        )

    @contextmanager
    def event_stream(self) -> Iterator[None]:
        """Count a stream of server-sent events while the block lasts."""
        self.event_streams += 1
        try:
            yield
        finally:
            self.event_streams -= 1

    def ended(self, connection: Connection) -> None:
        """Take over what an ended connection counted."""
        self.closed[connection.closed_with or 0] += 1
        self.sent += connection.outbox.sent
        self.conflated += connection.outbox.conflated

    def passed_on(self, oldest: Event) -> None:
        """Note how old the oldest of a batch was when it went out."""
        self.lag.observe(max(time.time() - oldest.at.timestamp(), 0.0))


class StreamCollector(Collector):
    """Reads a process's streams whenever Prometheus asks."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        streams, tally = self._streams, self._streams.tally
        connections = list(streams.connections)
        codecs = Counter(str(each.outbox.codec) for each in connections)
        yield _gauge("connections", "Clients of the WebSocket.", "codec", {"json": 0, "msgpack": 0, **codecs})
        yield _gauge("event_streams", "Open streams of server-sent events.", None, {"": tally.event_streams})
        names = Counter(_family(stream.channel) for each in connections for stream in each.streams)
        yield _gauge("subscriptions", "Subscriptions of the WebSocket's clients.", "channel", names)
        yield _gauge("topics", "Streams that this process follows.", None, {"": len(streams.topics.all)})
        waiting = [each.outbox.messages for each in connections]
        held = [each.outbox.bytes for each in connections]
        yield _gauge("queued_messages", "Frames that wait for clients.", None, {"": sum(waiting)})
        yield _gauge("queued_messages_max", "The longest queue.", None, {"": max(waiting, default=0)})
        yield _gauge("queued_bytes", "Bytes that this process holds for clients.", None, {"": sum(held)})
        sent = tally.sent + sum(each.outbox.sent for each in connections)
        conflated = tally.conflated + sum(each.outbox.conflated for each in connections)
        yield _counter("sent", "Frames that went out.", None, {"": sent})
        yield _counter("conflated", "Publications that a later one stood for.", None, {"": conflated})
        lost = {"": tally.unrecoverable}
        yield _counter(
            "unrecoverable", "Subscriptions whose position was gone, as they were told.", None, lost
        )
        closed = {"4408": 0, **{str(code): count for code, count in tally.closed.items()}}
        yield _counter("closed", "Ended connections, by close code (0: the client left).", "code", closed)
        yield from tally.lag.collect()


def _family(channel: str) -> str:
    first = channel.partition(".")[0]
    return f"{first}.*" if first in _FAMILIES else channel


def _gauge(name: str, about: str, label: str | None, values: dict[str, int] | Counter[str]) -> Metric:
    family = GaugeMetricFamily(f"gpt_trader_stream_{name}", about, labels=[label] if label else None)
    return _filled(family, label, values)


def _counter(name: str, about: str, label: str | None, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"gpt_trader_stream_{name}", about, labels=[label] if label else None)
    return _filled(family, label, values)


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, label: str | None, values: dict[str, int] | Counter[str]
) -> Metric:
    for value, count in sorted(values.items()):
        family.add_metric([value] if label else [], count)
    return family
