"""What Prometheus reads: requests by route template, and the state of the engine's parts at the time of asking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.registry import Collector

from storage.session_care import Figures

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_1_0_0

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The counters of one API process, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "gpt_trader_http_requests",
            "Requests that were answered.",
            ("route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "gpt_trader_http_request_seconds",
            "Seconds from a request's head to the end of its answer (a stream's is its whole life).",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        #: Finding a counter by its labels costs more than counting.
        self._known: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._parts = Gauge(
            "gpt_trader_part_up", "Whether a part of the engine is ready.", ("part",), registry=self._registry
        )
        self._runs = Gauge(
            "gpt_trader_runs",
            "Runs that are kept, by slice, finished or not.",
            ("slice", "finished"),
            registry=self._registry,
        )

        self._sessions = Gauge(
            "gpt_trader_sessions",
            "Trading sessions that are kept, by status and feed.",
            ("status", "feed"),
            registry=self._registry,
        )
        self._ledger_events = Gauge(
            "gpt_trader_ledger_events", "Events committed to all sessions' ledgers.", registry=self._registry
        )
        self._session_bars = Gauge(
            "gpt_trader_session_bars", "Bars that all sessions have traded.", registry=self._registry
        )
        self._since_commit = Gauge(
            "gpt_trader_session_seconds_since_commit",
            "The longest time since a commit among sessions that a run is trading, by feed.",
            ("feed",),
            registry=self._registry,
        )

    def include(self, collector: Collector) -> None:
        """Have another part of the process be asked whenever Prometheus asks."""
        self._registry.register(collector)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is `METHOD /template`, never a path with ids in it."""
        known = self._known.get((route, status))
        if known is None:
            known = self._requests.labels(route, str(status)), self._seconds.labels(route)
            self._known[route, status] = known
        known[0].inc()
        known[1].observe(seconds)

    def exposed(
        self, engine: Mapping[str, bool], runs: Mapping[tuple[str, bool], int], sessions: Figures
    ) -> bytes:
        """Return everything in Prometheus's text format.

        Args:
            engine: Whether each part is ready, by name.
            runs: How many runs there are by slice and whether they are finished.
            sessions: How many sessions there are, and how they fare.
        """
        for part, ready in engine.items():
            self._parts.labels(part).set(ready)
        self._runs.clear()
        for (of_slice, finished), count in runs.items():
            self._runs.labels(of_slice, str(finished).lower()).set(count)
        for each in (self._sessions, self._since_commit):
            each.clear()
        for labels, count in sessions.sessions.items():
            self._sessions.labels(*labels).set(count)
        for feed, seconds in sessions.seconds_since_commit.items():
            self._since_commit.labels(feed).set(seconds)
        self._ledger_events.set(sessions.events)
        self._session_bars.set(sessions.steps)
        return generate_latest(self._registry)
