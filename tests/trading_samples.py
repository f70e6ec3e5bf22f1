"""Sessions for tests: bars of a seeded walk, strategies that want what a seed says, brokers that are out of order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpt_trader.bars import Bars, Floats
from gpt_trader.instruments import Instrument
from gpt_trader.simulation import kernel
from gpt_trader.strategies.base import Strategy
from gpt_trader.trading.desk import Desk
from gpt_trader.trading.events import BarRow, LedgerEvent, Moment
from gpt_trader.trading.feed import moments
from gpt_trader.trading.ledger import Journal, Ledger, MemoryJournal
from gpt_trader.trading.orders import Ended, Order, Report
from gpt_trader.trading.paper_broker import PaperBroker
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.trading.trader import Trader

SESSION = "11111111-2222-3333-4444-555555555555"


class Given(Strategy):
    """Wants something else every `period` bars, as the seed says; or what `wants` lists, bar by bar."""

    seed: int = 0
    period: int = 5
    wants: tuple[float, ...] = ()

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        random_ = np.random.default_rng(self.seed)
        drawn = np.repeat(random_.choice([-1, -0.5, 0, 0.5, 1], size=1000), self.period)
        wanted = np.array(self.wants) if self.wants else drawn
        found = np.concatenate([wanted, np.zeros(max(len(bars) - len(wanted), 0))])[: len(bars)].astype(float)
        found[:first] = 0
        return found


def walk(n: int, seed: int, volatility: float = 0.03, *, symbol: str = "X", holes: bool = False) -> Bars:
    """Return n daily bars of a random walk with jumps at the open; with `holes` a fifth of them is missing."""
    chance = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(chance.normal(0, volatility, n)))
    open_ = np.concatenate(([100.0], close[:-1])) * np.exp(chance.normal(0, volatility / 2, n))
    high = np.maximum(open_, close) * np.exp(np.abs(chance.normal(0, volatility / 2, n)))
    low = np.minimum(open_, close) * np.exp(-np.abs(chance.normal(0, volatility / 2, n)))
    time = np.datetime64("2010-01-01", "us") + np.arange(n) * np.timedelta64(1, "D")
    keep = chance.random(n) < (0.8 if holes else 1.1)
    keep[0] = True
    columns = (each[keep] for each in (time, open_, high, low, close, np.full(n, 1e6)))
    return Bars(Instrument(symbol=symbol), "1d", *columns)


def flat(
    rows: Sequence[tuple[float, float, float, float]], *, symbol: str = "X", volume: float = 1e6
) -> Bars:
    """Return daily bars of these opens, highs, lows and closes."""
    prices = np.array(rows, dtype=float).T
    time = np.datetime64("2010-01-01", "us") + np.arange(len(rows)) * np.timedelta64(1, "D")
    columns = [np.ascontiguousarray(each) for each in prices]
    return Bars(Instrument(symbol=symbol), "1d", time, *columns, np.full(len(rows), volume))


def random_request(
    chance: random.Random, symbols: Sequence[str], legs: int, **more: Any
) -> PaperTradeRequest:
    """Return a request for so many legs, each symbol used, with terms as the seed says."""
    chosen = [
        {"symbol": symbols[n] if n < len(symbols) else chance.choice(symbols), "params": {"seed": n}}
        for n in range(legs)
    ]
    if chance.random() < 0.4:
        chosen = [{**leg, "weight": chance.choice([0.5, 1]) / legs} for leg in chosen]
    terms: dict[str, Any] = {
        "direction": chance.choice(["long", "both", "short"]),
        "size": chance.choice([1.0, 0.7]),
        "stop_loss": chance.choice([None, 0.02, 0.1]),
        "take_profit": chance.choice([None, 0.03, 0.2]),
        "commission": chance.choice([0.001, 0.0, {"per_unit": 0.005, "minimum": 1.0}]),
        "slippage": chance.choice([0.0, 0.0005, {"per_unit": 0.01}]),
    }
    return PaperTradeRequest(legs=chosen, strategy="given", capital=10_000, **{**terms, **more})


def strategies_for(request: PaperTradeRequest, chance: random.Random) -> list[Strategy]:
    """Return a strategy for each leg."""
    return [
        Given(seed=chance.randrange(10**6), period=chance.choice([1, 3, 10]), direction=request.direction)
        for _ in request.legs
    ]


def random_session(
    seed: int, *, most_legs: int = 5, most_bars: int = 80, **more: Any
) -> tuple[PaperTradeRequest, list[Strategy], dict[str, Bars]]:
    """Return a request, its strategies and bars by symbol, from a seed."""
    chance = random.Random(seed)
    legs = chance.randint(1, most_legs)
    symbols = [f"S{n}" for n in range(chance.randint(1, legs))]
    bars = {
        symbol: walk(
            chance.randint(20, most_bars),
            seed * 10 + n,
            chance.choice([0.005, 0.03, 0.12]),
            symbol=symbol,
            holes=chance.random() < 0.5,
        )
        for n, symbol in enumerate(symbols)
    }
    request = random_request(chance, symbols, legs, **more)
    return request, strategies_for(request, chance), bars


def opening(request: PaperTradeRequest) -> LedgerEvent:
    data = {
        "schema_version": 1,
        "session_id": SESSION,
        "capital": repr(float(request.capital)),
        "request": request.model_dump(mode="json"),
    }
    return LedgerEvent("opened", data, key="opened")


def paper_broker(request: PaperTradeRequest) -> PaperBroker:
    return PaperBroker(kernel.costs_of(request), request.participation)


def warm_of(bars: Mapping[str, Bars], first: int = 0) -> dict[str, Bars]:
    return {symbol: each[:first] for symbol, each in bars.items()}


@dataclass
class Session:
    """A session on bars, under way: what it did so far."""

    request: PaperTradeRequest
    trader: Trader
    broker: Any
    journal: MemoryJournal
    equity: list[float] = field(default_factory=list)

    @classmethod
    def begun(
        cls,
        request: PaperTradeRequest,
        strategies: Sequence[Strategy],
        warm: Mapping[str, Bars],
        *,
        broker: Any = None,
        journal: Journal | None = None,
    ) -> Session:
        """Open a session."""
        kept: Any = journal or MemoryJournal()
        broker = broker or paper_broker(request)
        trader = Trader(Desk(request, strategies), Ledger(warm), broker, kept)
        trader.open(opening(request))
        broker.restore(trader.state)
        return cls(request, trader, broker, kept)

    def feed(self, coming: Iterator[Moment]) -> Session:
        """Trade what comes, for as long as the session trades."""
        for moment in coming:
            if not self.trader.state.over:
                self.trader.step(moment)
            self.equity.append(float(self.trader.state.equity))
        return self

    @property
    def events(self) -> list[LedgerEvent]:
        return self.journal.events

    def of(self, *types: str) -> list[Mapping[str, Any]]:
        """Return the content of events of these types."""
        return [event.data for event in self.events if event.type in types]

    def fills(self) -> list[tuple[str, int, float, float, str]]:
        """Return time, leg, units, price and purpose of each fill, by time and leg."""
        rows = [
            (f["time"], f["leg"], float(f["units"]), float(f["price"]), f["purpose"]) for f in self.of("fill")
        ]
        return sorted(rows, key=lambda row: row[:2])


def traded(
    request: PaperTradeRequest,
    strategies: Sequence[Strategy],
    bars: Mapping[str, Bars],
    first: int = 0,
    **more: Any,
) -> Session:
    """Trade all bars from the `first` on."""
    coming = moments({symbol: each[first:] for symbol, each in bars.items()})
    return Session.begun(request, strategies, warm_of(bars, first), **more).feed(coming)


def one_leg(
    rows: Sequence[tuple[float, float, float, float]], wants: Sequence[float], **terms: Any
) -> Session:
    """Trade one leg without costs on given bars, wanting what is listed at each close."""
    request = PaperTradeRequest(
        symbol="X", strategy="given", **{"capital": 1000, "commission": 0, "slippage": 0, **terms}
    )
    strategy = Given(wants=tuple(wants), direction=request.direction)
    return traded(request, [strategy], {"X": flat(rows)})


class UnrulyBroker:
    """A venue that trades rightly and tells badly: late, twice, in another order; or not that it has an order.

    Inside is a paper broker with the account as it truly is; `truth` is what happened. With `rude` it loses the
    reply to a submission (the order has arrived), and rejects some.
    """

    venue = "unruly"

    def __init__(self, request: PaperTradeRequest, seed: int, *, rude: bool = False) -> None:
        self._inner = paper_broker(request)
        self._chance = random.Random(seed)
        self._rude = rude
        self._mail: list[tuple[int, Report]] = []
        self._now = 0
        self._opened = ""
        self.submissions: dict[str, list[Order]] = {}
        self.truth: list[Report] = []

    def restore(self, state: Any) -> None:
        """Begin an account (its own, not what a ledger tells of it)."""
        if not self.submissions:
            self._inner.restore(state)

    def submit(self, order: Order) -> None:
        first = order.id not in self.submissions
        self.submissions.setdefault(order.id, []).append(order)
        if not first:
            return
        if self._rude and order.purpose == "entry" and self._chance.random() < 0.2:
            self.truth.append(Ended(order.id, "rejected", "not today"))
            self._post(self.truth[-1])
        else:
            self._inner.submit(order)
        if self._rude and self._chance.random() < 0.2:
            raise TimeoutError("no answer")

    def cancel(self, order_id: str) -> None:
        self._inner.cancel(order_id)

    def tell_again(self) -> None:
        """Tell all that happened once more, as a venue that is asked for it."""
        self.reports()
        self._mail = [(self._now, report) for report in self.truth]

    def auction(self, moment: Moment) -> None:
        if (
            moment.time == self._opened
        ):  # a session that was resumed in this bar: a venue calls an auction once
            self._inner._opened = moment.time
        self._opened = moment.time
        self._inner.auction(moment)

    def range(self, moment: Moment) -> None:
        self._inner.range(moment)

    def reports(self) -> list[Report]:
        self._now += 1
        for report in self._inner.reports():
            self.truth.append(report)
            self._post(report)
        due = [report for at, report in self._mail if at <= self._now]
        self._mail = [(at, report) for at, report in self._mail if at > self._now]
        if self._chance.random() < 0.5:
            self._chance.shuffle(due)
        return due

    def _post(self, report: Report) -> None:
        late = self._chance.choice([0, 0, 0, 1, 2, 7])
        self._mail.append((self._now + late, report))
        while self._chance.random() < 0.3:
            self._mail.append((self._now + late + self._chance.choice([0, 3, 11]), report))


class Killed(BaseException):
    """What a crash point does in a test: the process is gone."""


@dataclass
class CrashPoints:
    """Kills at random places: at crash points, and around commits."""

    chance: random.Random | None = None
    likely: float = 0.0
    kills: int = 0

    def __call__(self, name: str) -> None:
        if self.chance is not None and self.chance.random() < self.likely:
            self.kills += 1
            raise Killed(name)


class KilledJournal(Journal):
    """Keeps what was committed; the process may end before, while, or after it is."""

    def __init__(self, crash: Callable[[str], None], chance: random.Random) -> None:
        self.events: list[LedgerEvent] = []
        self._coming: list[LedgerEvent] = []
        self._crash, self._chance = crash, chance

    def append(self, events: Sequence[LedgerEvent], ledger: Ledger) -> None:
        self.flush()
        self._crash("ledger.before_commit")
        self._coming = list(events)
        self._crash("ledger.sent")

    def flush(self) -> None:
        if self._coming:
            self.events += self._coming
            self._coming = []
            self._crash("ledger.after_commit")

    def died(self) -> None:
        """Have what was on its way when the process ended be stored, or not, as a whole."""
        if self._chance.random() < 0.5:
            self.events += self._coming
        self._coming = []


def folded(events: Sequence[LedgerEvent], warm: Mapping[str, Bars]) -> Ledger:
    ledger = Ledger(warm)
    ledger.take_all(events)
    return ledger


def scaled(bars: Bars, factor: float) -> Bars:
    """Return bars as a split or a dividend since makes them."""
    prices = {name: getattr(bars, name) * factor for name in ("open", "high", "low", "close")}
    return replace(bars, **prices, volume=bars.volume / factor)


def row(bars: Bars, at: int) -> BarRow:
    return BarRow(*(float(getattr(bars, name)[at]) for name in BarRow._fields))
