"""Fetches many series side by side and commits what has come, again and again, in bounded memory.

Threads fetch, page by page; the caller's thread commits: whatever is killed goes on behind its last committed page.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

import numpy as np

from gpt_trader.adapters.base import Source
from gpt_trader.calendars import calendar, complete, trading
from gpt_trader.errors import GptTraderError, NotEnoughBars
from gpt_trader.ingestion import Range, ranges
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars, inspect
from gpt_trader.requests import DataRequest
from storage.lake import Lake
from storage.lake_writing import Arrival, Ingest
from storage.market_stream import Commit
from tasks.ingest_plan import Series

#: Series fetched at the same time; a vendor's own limit of rate counts among them.
THREADS: Final = 4
#: What has come is committed at the latest after so many seconds or bars: one snapshot each time.
COMMIT_SECONDS: Final = 5.0
COMMIT_BARS: Final = 200_000
#: Pages that may wait for the commit: with them memory is bounded, whatever the number of series.
_WAITING_PAGES: Final = 8
_LOOK_SECONDS: Final = 0.1


@dataclass
class Outcome:
    """What became of one series: rows as in `Ingest`, the remarks of all pages, and the error that ended it early."""

    series: Series
    added: int = 0
    restated: int = 0
    unchanged: int = 0
    quarantined: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, None] = field(default_factory=dict)
    error: GptTraderError | None = None

    def count(self, ingest: Ingest) -> None:
        """Add what one commit did."""
        self.added += ingest.added
        self.restated += ingest.restated
        self.unchanged += ingest.unchanged
        self.quarantined += ingest.quarantined
        for reason, rows in ingest.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + rows
        self.remarks |= dict.fromkeys(ingest.remarks)


@dataclass(frozen=True)
class _Delivery:
    """A page on its way to the commit, or the end of its series: with an error where it did not end well."""

    outcome: Outcome
    arrival: Arrival | None = None
    error: BaseException | None = None


class Fetching:
    """One ingest's fetching: the request, the lake it goes to, and the sources by name.

    `commit` is called instead of the lake's own `upsert_many`: one that tells what it committed.
    """

    def __init__(
        self,
        request: DataRequest,
        lake: Lake,
        source_of: Callable[[str], Source],
        now: datetime | None = None,
        commit: Commit | None = None,
    ) -> None:
        self._request = request
        self._lake = lake
        self._put = commit or lake.upsert_many
        self._source_of = source_of
        self._now = now or datetime.now(UTC)
        self._pages: queue.Queue[_Delivery] = queue.Queue(_WAITING_PAGES)
        self._stop = threading.Event()

    def run(
        self,
        wanted: Sequence[Series],
        tell: Callable[[int, Outcome], None],
        admit: Callable[[list[Arrival]], list[Arrival | GptTraderError]] | None = None,
    ) -> list[Outcome]:
        """Fetch and commit every series; return what became of each, in order.

        `tell` is called with the number of series that have ended each time one does. `admit` may hold rows of an
        arrival back or refuse it, before it is committed. What fails for one series stands in its outcome; what fails
        for all (a full disk) is raised, and what was committed before stays.
        """
        outcomes = [Outcome(series) for series in wanted]
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="fetch")
        try:
            for outcome in outcomes:
                pool.submit(self._fetch, outcome)
            ended = 0
            while ended < len(outcomes):
                batch = self._batch(len(outcomes) - ended)
                self._commit(batch, admit)
                for delivery in batch:
                    if delivery.arrival is None:
                        ended += 1
                        _close(delivery)
                        tell(ended, delivery.outcome)
        finally:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        return outcomes

    def _batch(self, running: int) -> list[_Delivery]:
        """Return what has come in until it is time to commit; `running` series have not ended yet."""
        batch: list[_Delivery] = []
        rows = 0
        deadline: float | None = None
        while running and rows < COMMIT_BARS and (deadline is None or time.monotonic() < deadline):
            wait = None if deadline is None else max(deadline - time.monotonic(), 0)
            try:
                delivery = self._pages.get(timeout=wait)
            except queue.Empty:
                break
            batch.append(delivery)
            if deadline is None:
                deadline = time.monotonic() + COMMIT_SECONDS
            if delivery.arrival is None:
                running -= 1
            else:
                rows += len(delivery.arrival.found.clean)
        return batch

    def _commit(
        self,
        deliveries: list[_Delivery],
        admit: Callable[[list[Arrival]], list[Arrival | GptTraderError]] | None,
    ) -> None:
        by_series: dict[int, tuple[Outcome, Arrival]] = {}
        for delivery in deliveries:
            if delivery.arrival is not None:
                # Pages of one series are one write: each write of a file is forced to disk.
                before = by_series.get(id(delivery.outcome))
                joined = _joined(before[1], delivery.arrival) if before else delivery.arrival
                by_series[id(delivery.outcome)] = delivery.outcome, joined
        outcomes = [outcome for outcome, _ in by_series.values()]
        arrivals = [arrival for _, arrival in by_series.values()]
        admitted = admit(arrivals) if admit and arrivals else list(arrivals)
        good = [arrival for arrival in admitted if isinstance(arrival, Arrival)]
        done = iter(self._put(good) if good else [])
        for outcome, arrival in zip(outcomes, admitted, strict=True):
            ingest = next(done) if isinstance(arrival, Arrival) else arrival
            if isinstance(ingest, Ingest):
                outcome.count(ingest)
            elif outcome.error is None:
                outcome.error = ingest

    def _fetch(self, outcome: Outcome) -> None:
        """Deliver a series' pages and its end; whatever goes wrong is the end's error."""
        error: BaseException | None = None
        try:
            for arrival in self._arrivals(outcome):
                if outcome.error is not None or not self._deliver(_Delivery(outcome, arrival)):
                    break
        except BaseException as failure:  # noqa: BLE001 - raised again where it is taken from the queue
            error = failure
        self._deliver(_Delivery(outcome, error=error))

    def _deliver(self, delivery: _Delivery) -> bool:
        """Wait for room in the queue; return whether it was there before everything was called off."""
        while not self._stop.is_set():
            try:
                self._pages.put(delivery, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def _arrivals(self, outcome: Outcome) -> Iterator[Arrival]:
        series = outcome.series
        source = self._source_of(series.source)
        instrument = trading(source.instrument(series.symbol), self._request.calendar)
        manifest = self._lake.manifest()
        known = manifest.instruments.get(instrument.symbol)
        facts = instrument if known is None else known.updated(instrument)
        stored = manifest.entries.get((instrument.symbol, series.timeframe))
        span = None
        again = self._request.refetch or self._request.replace
        if stored is not None and source.live and not again:
            span = _moment(stored.first), _moment(stored.last)
        actions = source.actions(series.symbol)
        replaces = self._request.replace
        awaited = stored is None or replaces  # a page without bars has nothing to be merged with
        for part in ranges(span, series.timeframe, self._request.start, self._request.end):
            for raw in self._pages_of(source, series, part):
                held = self._held_back(source, raw, series.timeframe, facts)
                outcome.remarks |= dict.fromkeys(_remarks(raw, held))
                clean = inspect(held, series.timeframe)
                if awaited and not len(clean.clean):
                    continue
                awaited = False
                yield Arrival(instrument, series.timeframe, clean, source.name, actions, replaces)
                actions, replaces = None, False  # once is enough
        if awaited:
            raise NotEnoughBars(f"source {source.name} gave no bars of {series.symbol} {series.timeframe}")

    def _pages_of(self, source: Source, series: Series, part: Range) -> Iterator[RawBars]:
        """Yield the pages of a range: one by one, or as one where a part would leave a hole or stand for the whole.

        Nothing before what is stored is no error. Nothing from the last stored bars on is one: they were there once.
        """
        asked = (series.symbol, series.timeframe, part.start, part.end)
        if self._request.replace:
            yield source.fetch(*asked)
            return
        if part.ascending:
            yield from source.pages(*asked)
            return
        with contextlib.suppress(NotEnoughBars):
            yield source.fetch(*asked)

    def _held_back(self, source: Source, raw: RawBars, timeframe: str, facts: Instrument) -> RawBars:
        """Return the page without bars that are still forming."""
        if not source.live or not len(raw):
            return raw
        found = calendar(facts.calendar) if facts.calendar else None
        known = ~np.isnat(raw.time)
        over = np.ones(len(raw), np.bool_)
        over[known] = complete(raw.time[known], timeframe, found, self._now)
        return raw if over.all() else raw[over]


def _joined(first: Arrival, second: Arrival) -> Arrival:
    return replace(first, found=first.found.followed_by(second.found))


def _remarks(raw: RawBars, held: RawBars) -> list[str]:
    forming = len(raw) - len(held)
    return [f"{forming} bar still forming was left out: it comes with the next ingest"] if forming else []


def _close(delivery: _Delivery) -> None:
    """Keep the error of a series that did not end well; raise what is no refusal but a fault of ours."""
    error = delivery.error
    if isinstance(error, GptTraderError):
        delivery.outcome.error = delivery.outcome.error or error
    elif error is not None:
        raise error


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
