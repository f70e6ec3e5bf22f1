"""Collects live bars: from a source's stream into the lake and the market stream, once for all sessions.

Each session on a live stream has a collector in its process; of those of one source and timeframe one leads. It holds
the connection, for the symbols of all of them, and another takes over within a second of its end. What a stream left
out (bars before the connection stood, a hole, silence) is fetched from the source's history, committed before what
comes after it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, cast

import numpy as np
from sqlalchemy.exc import InterfaceError, OperationalError

from gpt_trader.adapters.base import LiveBar, Source
from gpt_trader.bars import instant
from gpt_trader.calendars import calendar
from gpt_trader.errors import BadBars, GptTraderError
from gpt_trader.instruments import TIMEFRAMES
from gpt_trader.raw_bars import RawBars, inspect
from gpt_trader.requests import DataRequest
from gpt_trader.trading.events import unstamp
from storage.clock import DatabaseClock
from storage.lake_writing import Arrival
from storage.leadership import SILENCE_SECONDS, Leadership
from storage.manifest import Manifest
from storage.market_stream import publishing
from tasks.fetching import Fetching
from tasks.ingest_plan import Series
from tasks.quality import admission
from tasks.stores import Stores

#: How often the lead, the symbols that are wanted, and silence are looked at.
LOOK_SECONDS: Final = 0.5
#: Bars that come within so long are one commit: those of one minute come together.
BATCH_SECONDS: Final = 0.05
#: A bar that has not come so long after its end is looked for in the history.
OVERDUE: Final = timedelta(seconds=10)
#: Whoever does not lead looks for its own bars too, later: should the leader be stuck.
OVERDUE_STANDBY: Final = timedelta(seconds=30)
#: The history is asked for the same symbols so often at most.
HEAL_SECONDS: Final = 20.0
#: A connection that was asked for stands after so long, usually.
SETTLE_SECONDS: Final = 2.0
#: What has come live waits so long for the bars of a hole before it.
HOLE_SECONDS: Final = 10.0
#: The pause after a stream that ended with an error: doubled each time, from the first to the longest.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0

_FAULTS: Final = (GptTraderError, OperationalError, InterfaceError)


#: What says how it goes.
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


@dataclass(frozen=True)
class Collected:
    """What is collected: the session's own symbols, and what all sessions on this stream want."""

    source: Source
    timeframe: str
    symbols: tuple[str, ...]
    wanted: Callable[[], Iterable[str]]


class Collector:
    """One session's part in the collection, in a thread of its own. Start it, and close it."""

    def __init__(self, stores: Stores, what: Collected, log: Log) -> None:
        self._stores, self._what, self._log = stores, what, log
        self._commit = publishing(stores.lake, stores.events, self._untold)
        self._step = TIMEFRAMES[what.timeframe]
        self._lead = Leadership(stores.engine, f"collect {what.source.name} {what.timeframe}")
        self._clock = DatabaseClock(stores.engine)
        self._healed: dict[str, float] = {}
        self._streams: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._over = threading.Event()
        #: Set once the history has been asked for the session's own symbols, whatever came of it.
        self.caught_up = threading.Event()
        #: What ended the thread before its time: no refusal of a source, but a fault of ours.
        self.fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="live bars", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, seconds: float = 10.0) -> None:
        """End, and give the lead up."""
        self._over.set()
        self._thread.join(seconds)

    # --- the thread

    def _run(self) -> None:
        try:
            asyncio.run(self._collect())
        except BaseException as fault:  # noqa: BLE001 - the session raises it
            self.fault = fault
        finally:
            self._lead.close()
            self.caught_up.set()

    async def _collect(self) -> None:
        self._heal_lock, self._lead_lock = asyncio.Lock(), asyncio.Lock()
        self._arrived: asyncio.Queue[LiveBar] = asyncio.Queue()
        await self._heal(self._what.symbols)
        self.caught_up.set()
        writing, leading = asyncio.create_task(self._write()), asyncio.create_task(self._keep_the_lead())
        try:
            while not self._over.is_set():
                if writing.done():
                    writing.result()  # a fault of ours: the thread ends with it, and the session hears of it
                try:
                    await self._look()
                except _FAULTS as error:
                    self._log.warning("live bars: %s", _said(error))
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._ended([*self._streams.values(), writing, leading])

    async def _keep_the_lead(self) -> None:
        """Say often enough that this process leads, however long the history of a source takes to answer."""
        while True:
            await self._leads()
            await asyncio.sleep(SILENCE_SECONDS / 5)

    async def _leads(self) -> bool:
        async with self._lead_lock:
            return await asyncio.to_thread(self._lead.held)

    async def _look(self) -> None:
        """Lead where nobody does, stream what is wanted, and see what is late."""
        if not await self._leads():
            await self._ended(self._streams.values())
            self._streams.clear()
            await self._heal_late(self._what.symbols, OVERDUE_STANDBY)
            return
        wanted = sorted({*self._what.symbols, *await asyncio.to_thread(self._what.wanted)})
        streamed = {symbol for group in self._streams for symbol in group}
        if not streamed.issuperset(wanted):
            await self._subscribe(wanted)
        await self._heal_late(wanted, OVERDUE)

    async def _subscribe(self, wanted: Sequence[str]) -> None:
        """Make the connections anew that lack a symbol; what came meanwhile is fetched."""
        groups = self._what.source.stream_groups(wanted)
        for gone in [group for group in self._streams if group not in groups]:
            await self._ended([self._streams.pop(gone)])
        for group in groups:
            if group not in self._streams:
                self._streams[group] = asyncio.create_task(self._stream(group))
                self._log.info("streaming %s bars of %s", self._what.timeframe, ", ".join(group)[:200])
        # What came between the last look into the history and the subscription is fetched once that stands.
        self._healed |= dict.fromkeys(
            wanted, asyncio.get_running_loop().time() - HEAL_SECONDS + SETTLE_SECONDS
        )

    async def _stream(self, symbols: tuple[str, ...]) -> None:
        """Pass on what the stream gives; an adapter makes lost connections again, and gives up only for a reason."""
        pause = FIRST_PAUSE
        while True:
            try:
                stream = self._what.source.stream(symbols, self._what.timeframe)
                async with aclosing(cast("AsyncGenerator[LiveBar]", stream)) as bars:
                    async for bar in bars:
                        pause = FIRST_PAUSE
                        await self._arrived.put(bar)
            except GptTraderError as error:
                self._log.warning("live bars: %s; again in %.0f s", error.detail, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _write(self) -> None:
        """Commit what has come, bars that came together as one; a hole before them is filled first."""
        while True:
            batch = [await self._arrived.get()]
            await asyncio.sleep(BATCH_SECONDS)
            while not self._arrived.empty():
                batch.append(self._arrived.get_nowait())
            batch = [live for live in batch if self._is_of_session(live)]
            holes = await asyncio.to_thread(self._holes, batch)
            if holes:
                healing = asyncio.create_task(self._heal(holes))
                await asyncio.wait({healing}, timeout=HOLE_SECONDS)
            try:
                await asyncio.to_thread(self._put, batch)
            except _FAULTS as error:  # the history has them, once it is asked
                self._log.warning("live bars are not stored: %s", _said(error))

    # --- what blocks, in threads of its own

    def _is_of_session(self, live: LiveBar) -> bool:
        """Whether a bar is one of its market's sessions: what is traded before and after them, histories leave out."""
        label = live.bar.time[0]
        return bool(np.isnat(label)) or _is_open(self._stores.lake.manifest(), live.symbol, label)

    def _holes(self, batch: Sequence[LiveBar]) -> set[str]:
        """Return the symbols whose bar does not follow the last one that is stored."""
        entries = self._stores.lake.manifest().entries
        found = set()
        for live in batch:
            entry = entries.get((live.symbol, live.timeframe))
            if entry is None or live.bar.time[0] > unstamp(entry.last) + np.timedelta64(self._step):
                found.add(live.symbol)
        return found

    def _put(self, batch: Sequence[LiveBar]) -> None:
        arrivals = []
        for symbol in dict.fromkeys(live.symbol for live in batch):
            raw = RawBars.empty()
            for live in batch:
                if live.symbol == symbol:
                    raw = RawBars.joined(raw, live.bar)
            try:
                found = inspect(raw, self._what.timeframe)
            except BadBars as error:
                self._log.warning("live bars: %s: %s", symbol, error.detail)
                continue
            source = self._what.source
            arrivals.append(Arrival(source.instrument(symbol), self._what.timeframe, found, source.name))
        admit = admission(self._stores.settings, self._stores.lake)
        admitted = admit(arrivals) if admit and arrivals else list(arrivals)
        good = [each for each in admitted if isinstance(each, Arrival)]
        for outcome in (*admitted, *(self._commit(good) if good else ())):
            if isinstance(outcome, GptTraderError):
                self._log.warning("live bars: %s", outcome.detail)

    async def _heal_late(self, symbols: Collection[str], overdue: timedelta) -> None:
        late = await asyncio.to_thread(self._late, symbols, overdue)
        now = asyncio.get_running_loop().time()
        due = [each for each in late if now - self._healed.get(each, -HEAL_SECONDS) >= HEAL_SECONDS]
        if due:
            await self._heal(due)

    def _late(self, symbols: Collection[str], overdue: timedelta) -> list[str]:
        """Return the symbols of which a bar should be there by now."""
        manifest, due = self._stores.lake.manifest(), instant(self._clock.now() - overdue - self._step)
        found = []
        for symbol in symbols:
            entry = manifest.entries.get((symbol, self._what.timeframe))
            late = entry is None or unstamp(entry.last) + np.timedelta64(self._step) <= due
            if late and (entry is None or _is_open(manifest, symbol, due)):
                found.append(symbol)
        return found

    async def _heal(self, symbols: Collection[str]) -> None:
        """Fetch what the history has behind the last stored bars, once at a time, and commit it together."""
        async with self._heal_lock:
            now = asyncio.get_running_loop().time()
            self._healed |= dict.fromkeys(symbols, now)
            try:
                await asyncio.to_thread(self._fetch, symbols)
            except _FAULTS as error:
                self._log.warning("history: %s", _said(error))

    def _fetch(self, symbols: Collection[str]) -> None:
        source, timeframe = self._what.source, self._what.timeframe
        request = DataRequest(symbols=tuple(symbols), source=source.name, timeframes=(timeframe,))
        fetching = Fetching(
            request, self._stores.lake, lambda _: source, now=self._clock.now(), commit=self._commit
        )
        wanted = [Series(symbol, timeframe, source.name) for symbol in symbols]
        admit = admission(self._stores.settings, self._stores.lake)
        for outcome in fetching.run(wanted, lambda _done, _outcome: None, admit):
            if outcome.error is not None:
                self._log.warning("history of %s: %s", outcome.series.symbol, outcome.error.detail)

    def _untold(self, symbol: str, error: Exception) -> None:
        self._log.warning(
            "bars of %s are stored, but the stream could not tell: %s", symbol, type(error).__name__
        )

    @staticmethod
    async def _ended(tasks: Iterable[asyncio.Task[None]]) -> None:
        ending = list(tasks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


def _is_open(manifest: Manifest, symbol: str, time: np.datetime64) -> bool:
    """Return whether a symbol's market is open then; of one without a calendar nothing is known against it."""
    known = manifest.instruments.get(symbol)
    return (
        known is None or known.calendar is None or bool(calendar(known.calendar).is_open(np.array([time]))[0])
    )


def _said(error: Exception) -> str:
    """Return what an error says; a database's may hold more than a log should."""
    return error.detail if isinstance(error, GptTraderError) else type(error).__name__
