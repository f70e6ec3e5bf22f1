"""What paper sessions cost: `python -m benchmarks.sessions [--home FOLDER]`.

A real embedded server with fsync on. The yardstick is a bare INSERT of as many bytes with its commit on one connection,
taken in short turns with the sessions' bars in the same run. Both are also taken without waiting for the disk: what is
between is what an fsync costs each.
"""

from __future__ import annotations

import argparse
import bisect
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy import URL, Engine

from benchmarks.event_log import served
from gpt_trader.bars import Bars, Floats
from gpt_trader.instruments import Instrument
from gpt_trader.settings import Home, Settings
from gpt_trader.simulation import kernel
from gpt_trader.strategies import registry
from gpt_trader.strategies.base import Strategy
from gpt_trader.trading.desk import Desk
from gpt_trader.trading.events import LedgerEvent, document
from gpt_trader.trading.feed import moments
from gpt_trader.trading.ledger import Journal, Ledger, MemoryJournal
from gpt_trader.trading.paper_broker import PaperBroker
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.trading.trader import Trader
from storage import database
from storage.events import EventLog
from storage.session_ledger import SessionJournal, load, save_snapshot
from storage.session_stream import Publisher, PublishingJournal, portfolio_channel
from storage.sessions import SessionStore

WARM = 300

#: Bars of a turn: short, so that what else the machine does meets all alike.
TURN = 20


def walking(n: int, seed: int, symbol: str) -> Bars:
    random = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(random.normal(0.0002, 0.015, n))), 4) + 1
    open_ = np.concatenate([close[:1], close[:-1]]) * np.exp(random.normal(0, 0.002, n))
    high, low = np.maximum(open_, close) * 1.002, np.minimum(open_, close) * 0.998
    time_ = np.datetime64("1900-01-01", "us") + np.arange(n) * np.timedelta64(1, "D")
    return Bars(Instrument(symbol=symbol), "1d", time_, open_, high, low, close, np.full(n, 1e6))


def begun(
    symbols: int,
    bars: int,
    journal: Journal,
    *,
    warm: int = WARM,
    seed: int = 0,
    strategy: Strategy | None = None,
) -> tuple[Trader, list[Any]]:
    """Return a session of moving averages on so many symbols, and its bars to come."""
    series = {f"S{n}": walking(warm + bars, seed + n, f"S{n}") for n in range(symbols)}
    legs = [{"symbol": s, "strategy": "ma_crossover", "params": {"fast": 5, "slow": 20}} for s in series]
    request = PaperTradeRequest(legs=legs, capital=1e6)
    strategies = [
        strategy or registry.build(registry.strategy_type(leg.strategy), leg.params, request.direction)
        for leg in request.legs
    ]
    broker = PaperBroker(kernel.costs_of(request), None)
    trader = Trader(
        Desk(request, strategies), Ledger({s: each[:warm] for s, each in series.items()}), broker, journal
    )
    data = {"session_id": "bench", "capital": "1000000", "request": request.model_dump(mode="json")}
    trader.open(LedgerEvent("opened", {"schema_version": 1, **data}, key="opened"))
    broker.restore(trader.state)
    return trader, list(moments({s: each[warm:] for s, each in series.items()}))


def created(store: SessionStore, warm: dict[str, Bars] | None = None) -> UUID:
    session_id = uuid4()
    store.create(
        session_id, "bench", "paper_trade", {"feed": "replay"}, warm or {}, name="bench", capital="1000000"
    )
    return session_id


class Turning(Strategy):
    """In for two bars, out for two: as many events a bar as a session may have."""

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        wanted = (np.arange(len(bars)) // 2 % 2).astype(float)
        wanted[:first] = 0.0
        return wanted


def long_session(store: SessionStore, events: int) -> UUID:
    """Store a session with so many events, and its last snapshot as far behind them as one may be (an eighth)."""
    journal = MemoryJournal()
    trader, coming = begun(2, events // 6, journal, warm=30, strategy=Turning())
    warm = {s: trader.ledger.history.bars(s)[0] for s in trader.ledger.history.symbols}
    for moment in coming:
        if len(journal.events) >= events:
            break
        trader.step(moment)
    assert len(journal.events) >= events, len(journal.events)
    session_id, kept = created(store, warm), Ledger(warm)
    lease = store.lease(session_id, "bench", seconds=600)
    writer = SessionJournal(store.engine, lease, 0, snapshot_at=10**9)
    snapshot, batch = False, []
    for event in journal.events:
        kept.take(event)
        batch.append(event)
        if len(batch) >= 2_000 and event.type == "closed":
            writer.commit(batch, kept)
            batch = []
            if not snapshot and kept.seq * 1.125 >= len(journal.events):
                save_snapshot(store.engine, session_id, kept)
                snapshot = True
    writer.commit(batch, kept)
    assert snapshot
    writer.close()
    store.release(lease)
    return session_id


class Kept(Journal):
    """A journal that keeps nothing."""

    def append(self, events: Sequence[LedgerEvent], ledger: Ledger) -> None: ...

    def flush(self) -> None: ...


def step_times(symbols: int, bars: int) -> list[float]:
    """Return CPU seconds of each step."""
    trader, coming = begun(symbols, bars, Kept())
    found = []
    for moment in coming:
        begun_ = time.process_time()
        trader.step(moment)
        found.append(time.process_time() - begun_)
    return found


@dataclass
class Contender:
    """Something that is timed in turns with others: seconds and CPU seconds of this process a bar, each turn's."""

    turn: Callable[[Sequence[Any]], None]
    coming: list[Any]
    close: Callable[[], None] = lambda: None
    session_id: UUID | None = None
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def take(self, number: int) -> None:
        moments_ = self.coming[number * TURN : (number + 1) * TURN]
        began, busy = time.perf_counter(), time.process_time()
        self.turn(moments_)
        self.seconds.append((time.perf_counter() - began) / TURN)
        self.cpu.append((time.process_time() - busy) / TURN)

    @property
    def rate(self) -> float:
        return 1 / statistics.median(self.seconds)

    @property
    def undisturbed(self) -> float:
        """The rate of the fastest tenth of the turns: the machine may have others on it."""
        return 1 / statistics.quantiles(self.seconds, n=10)[0]


def steps(trader: Trader) -> Callable[[Sequence[Any]], None]:
    def turn(coming: Sequence[Any]) -> None:
        for moment in coming:
            trader.step(moment)
        trader.flush()

    return turn


def stored(store: SessionStore, bars: int, *, told: bool = False, durable: bool = True) -> Contender:
    """Return a session that commits, and with `told` has the streams told, as a run has them."""
    session_id = created(store)
    writer = SessionJournal(store.engine, store.lease(session_id, "bench", seconds=600), 0)
    publisher = Publisher(store, EventLog(store.engine), session_id, "bench")
    telling = PublishingJournal(writer, publisher)
    journal: Journal = telling if told else writer
    trader, coming = begun(1, bars, journal)
    if not durable:
        assert writer._connection is not None
        writer._connection._connection.execute("SET synchronous_commit = off")
    if not told:
        return Contender(steps(trader), coming, writer.close)
    publisher.start(0, 0)

    def close() -> None:
        telling.close()
        publisher.close()

    return Contender(steps(trader), coming, close, session_id)


def told_within(store: SessionStore, session_id: UUID) -> list[float]:
    """Return for each bar the seconds from its commit until the portfolio's stream has its equity, or a later one's."""
    log = EventLog(store.engine).read(portfolio_channel("bench"), limit=10**6)
    told = [(each.data["time"] or "", each.at) for each in log if each.data["session_id"] == str(session_id)]
    closes = store.events(session_id, types=["closed"], limit=10**6)
    found = [bisect.bisect_left(told, bar.data["time"], key=lambda each: each[0]) for bar in closes]
    return [(told[at][1] - bar.at).total_seconds() for at, bar in zip(found, closes, strict=True)]


def bare(url: URL, bars: int, size: int, *, durable: bool = True) -> Contender:
    """Return the yardstick: one INSERT of `size` bytes and its commit for each bar."""
    connection = psycopg.connect(**database.libpq_arguments(url), autocommit=True)
    connection.execute("CREATE TABLE IF NOT EXISTS yardstick (n int, content text)")
    connection.execute(f"SET synchronous_commit = {'on' if durable else 'off'}".encode())

    def turn(coming: Sequence[Any]) -> None:
        for number, _ in enumerate(coming):
            connection.execute("INSERT INTO yardstick VALUES (%s, %s)", [number, "x" * size])

    return Contender(turn, list(range(bars)), connection.close)


def commits(engine: Engine, home: Home, bars: int) -> tuple[dict[str, Contender], float]:
    """Time sessions and bare inserts in turns of `TURN` bars; return them, and the commits a bar."""
    store, url = SessionStore(engine), database.app_url(Settings(), home)
    counting = Counting()
    trader, coming = begun(1, bars, counting)
    for moment in coming:
        trader.step(moment)
    size = counting.size // bars
    trader, coming = begun(1, bars, Kept())
    found = {
        "bare": bare(url, bars, size),
        "session": stored(store, bars),
        "told": stored(store, bars, told=True),
        "bare, no fsync": bare(url, bars, size, durable=False),
        "session, no fsync": stored(store, bars, durable=False),
        "step": Contender(steps(trader), coming),
    }
    for number in range(bars // TURN):
        for each in found.values():
            each.take(number)
    for each in found.values():
        each.close()
    return found, counting.count / bars


class Counting(Journal):
    """Counts commits, and the characters of their events."""

    def __init__(self) -> None:
        self.count = self.size = 0

    def append(self, events: Sequence[LedgerEvent], ledger: Ledger) -> None:
        self.count += 1
        self.size += sum(len(document(event)) for event in events)

    def flush(self) -> None: ...


def fsyncs(folder: Path, count: int = 200) -> float:
    """Return the median seconds of an fsync of 8 kB behind a file that is there."""
    found = []
    with (folder / "probe").open("wb") as file:
        for _ in range(count):
            file.write(b"x" * 8192)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            found.append(time.perf_counter() - began)
    return statistics.median(found)


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def side_by_side(sessions: int, bars: int) -> tuple[float, float]:
    """Return bytes a session, and CPU seconds a bar of each, of so many in one process."""
    gc.collect()
    before = resident()
    many = [begun(1, bars, MemoryJournal(), seed=n) for n in range(sessions)]
    began = time.process_time()
    for number in range(bars):
        for trader, coming in many:
            trader.step(coming[number])
    seconds = time.process_time() - began
    return (resident() - before) / sessions, seconds / bars / sessions


def timed(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def told_of(
    found: dict[str, Contender], count: float, fsync: float, lags: list[float]
) -> Iterator[tuple[str, str, str]]:
    """Yield the rows of what was timed in turns."""
    yardstick = found["bare"]

    def row(what: str, name: str, target: str = "", *, beside: bool = False) -> tuple[str, str, str]:
        each = found[name]
        cpu = f"{statistics.median(each.cpu) * 1e6:.0f} µs CPU here"
        rates = f"{each.rate:,.0f}/s, fastest tenth of turns {each.undisturbed:,.0f}/s"
        if not beside:
            return what, f"{rates}, {cpu}", target
        return what, f"{rates}, {each.rate / yardstick.rate:.0%} of bare, {cpu}", target

    yield "fsync of 8 kB", f"{fsync * 1e3:.2f} ms", ""
    yield row("bare INSERT and commit", "bare")
    yield "commits a bar", f"{count:.2f}", ""
    target = "≥ 80 % of bare commits, or ≥ 2,000/s"
    yield row("replayed bars with durable commits", "session", target, beside=True)
    yield row("the same, streams told beside it", "told", beside=True)
    waits = statistics.quantiles(lags, n=100)
    shown = f"{waits[49] * 1e3:.0f} ms, {waits[98] * 1e3:.0f} ms, {max(lags) * 1e3:.0f} ms"
    yield "from a bar's commit to its equity in the stream: median, p99, most", shown, "≤ 50 ms"
    for what, name in (("bare INSERT", "bare"), ("a bar", "session")):
        waited, not_ = found[name], found[f"{name}, no fsync"]
        cost = statistics.median(waited.seconds) - statistics.median(not_.seconds)
        yield f"of it waiting for the disk, {what}", f"{cost * 1e3:.2f} ms", ""
        yield row(f"{what}, its commit not waited for", f"{name}, no fsync")
    yield row("replayed bars without commits", "step")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path)
    parser.add_argument("--bars", type=int, default=1_000)
    given = parser.parse_args()
    table = Table("what", "measured", "target", title="paper sessions")
    steps = sorted(step_times(50, 200))
    table.add_row(
        "a bar of 50 symbols without commit, CPU: median, p95",
        f"{steps[100] * 1e3:.1f} ms, {steps[190] * 1e3:.1f} ms",
        "p95 ≤ 10 ms",
    )
    memory, seconds = side_by_side(50, 250)
    table.add_row(
        "50 sessions side by side, 250 bars each: memory a session (with all its events), CPU a bar",
        f"{memory / 1e6:.2f} MB, {seconds * 1e3:.2f} ms",
        "",
    )
    folder = given.home or Path(tempfile.mkdtemp(prefix="gt-bench-"))
    home = Home(folder / "home")
    with served(home):
        database.ensure_databases(Settings(), home)
        database.migrate(database.engine(Settings(), home))
        found, count = commits(database.engine(Settings(), home), home, given.bars)
        store = SessionStore(database.engine(Settings(), home))
        assert found["told"].session_id is not None
        lags = told_within(store, found["told"].session_id)
        for what, measured, target in told_of(found, count, fsyncs(folder), lags):
            table.add_row(what, measured, target)
        session_id = long_session(store, 100_000)
        for snapshots, name in ((True, "from its last snapshot"), (False, "from its first event")):
            table.add_row(
                f"taking up a ledger of 100,000 events, {name}, CPU",
                f"{timed(lambda s=snapshots: load(store.engine, session_id, snapshots=s)):.2f} s",
                "≤ 2 s" if snapshots else "",
            )
        database.dispose_engines()
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
