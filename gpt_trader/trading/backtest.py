"""A session's backtest: the same request over the same bars, simulated apart from desk, broker and ledger.

It is what a certificate compares a session with, so it shares with the session what defines the terms (the strategies'
targets, the kernel's prices, sizes and costs, `sizing.budget`) and nothing of what a session is made of. vectorbt keeps
the books of its fills and must come to the same equity at each bar; with one leg vectorbt's own simulation of the
request's backtest is compared as well (`gpt_trader.trading.certificate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gpt_trader.backtesting.engine import wanted_targets
from gpt_trader.backtesting.execution import load_vectorbt
from gpt_trader.bars import Bars, Floats, Times
from gpt_trader.errors import GptTraderError
from gpt_trader.simulation import kernel
from gpt_trader.strategies.base import Strategy
from gpt_trader.trading.events import stamp
from gpt_trader.trading.orders import Purpose
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.trading.sizing import Room, budget, ruin_prices

_PURPOSE: dict[int, Purpose] = {
    kernel.ENTRY: "entry",
    kernel.TARGET: "target",
    kernel.STOP_LOSS: "stop_loss",
    kernel.TAKE_PROFIT: "take_profit",
    kernel.RUIN: "ruin",
}
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class SimulatedFill:
    """One fill: time of its bar, leg, signed units, price, commission (currency), and why."""

    time: str
    leg: int
    units: float
    price: float
    commission: float
    purpose: Purpose


@dataclass(frozen=True)
class SessionBacktest:
    """What a simulation found: times (n,) of all symbols' bars merged, equity (n,) at their closes, and the fills."""

    time: Times
    equity: Floats
    fills: tuple[SimulatedFill, ...]


@dataclass(slots=True)
class _Leg:
    symbol: str
    targets: Floats
    units: float = 0.0
    entry_price: float = 0.0
    entered: int = -1
    wanted: float = 0.0
    leaving: bool = False
    due: bool = False
    money: float | None = None


@dataclass(slots=True)
class _Account:
    cash: float
    last: dict[str, float] = field(default_factory=dict)
    fills: list[SimulatedFill] = field(default_factory=list)
    ruined: bool = False


def simulate(
    request: PaperTradeRequest,
    strategies: Sequence[Strategy],
    bars: Mapping[str, Bars],
    first: Mapping[str, int],
) -> SessionBacktest:
    """Simulate a request's legs with shared cash on bars by symbol, each with its warm-up before `first`.

    Raises GptTraderError with the first bar at which vectorbt's equity is another.
    """
    run = _Run(request, strategies, bars, first)
    found = run.whole()
    _require_same_books(found, run.closes, len(request.legs), request.capital)
    return found


class _Run:
    def __init__(
        self,
        request: PaperTradeRequest,
        strategies: Sequence[Strategy],
        bars: Mapping[str, Bars],
        first: Mapping[str, int],
    ) -> None:
        self.request = request
        self.costs = kernel.costs_of(request)
        self.terms = kernel.terms_of(request.backtest(request.legs[0]))
        self.bars = {symbol: each[first[symbol] :] for symbol, each in bars.items()}
        self.time: Times = np.unique(np.concatenate([each.time for each in self.bars.values()]))
        self.place = {symbol: np.searchsorted(each.time, self.time) for symbol, each in self.bars.items()}
        self.legs = [
            _Leg(
                leg.symbol,
                wanted_targets(strategy, bars[leg.symbol], first[leg.symbol], request.backtest(leg)),
            )
            for leg, strategy in zip(request.legs, strategies, strict=True)
        ]
        self.account = _Account(float(request.capital))
        self.seen: dict[str, float] = {}
        #: Last closes by leg at each time, (n, legs); NaN before a first one.
        self.closes = np.full((len(self.time), len(self.legs)), np.nan)

    def whole(self) -> SessionBacktest:
        equity = np.empty(len(self.time))
        for at, time in enumerate(self.time):
            here = {}
            for symbol, each in self.bars.items():
                place = int(self.place[symbol][at])
                if place < len(each) and each.time[place] == time:
                    here[symbol] = place
            if not self.account.ruined:
                self._bar(at, stamp(time), here)
            self.seen |= {symbol: float(self.bars[symbol].close[place]) for symbol, place in here.items()}
            if not self.account.ruined:
                self._decide(here)
            equity[at] = self._worth(self.seen)
            self.closes[at] = [self.seen.get(leg.symbol, np.nan) for leg in self.legs]
        return SessionBacktest(self.time, equity, tuple(self.account.fills))

    def _worth(self, prices: Mapping[str, float]) -> float:
        held = sum(leg.units * prices[leg.symbol] for leg in self.legs if leg.units != 0.0)
        return self.account.cash + held

    def _bar(self, at: int, time: str, here: Mapping[str, int]) -> None:
        """Trade one time: the auction, what waited for it, then the rest of the bar."""
        opens = {symbol: float(self.bars[symbol].open[place]) for symbol, place in here.items()}
        self.account.last |= opens
        if self._ruin(time):
            return
        exits = {}
        for number, leg in enumerate(self.legs):
            if leg.symbol in here and leg.units != 0.0:
                bar = kernel.Bar(
                    *(float(getattr(self.bars[leg.symbol], k)[here[leg.symbol]]) for k in kernel.Bar._fields)
                )
                price, reason = kernel.exit_at(leg.units, leg.entry_price, bar, leg.leaving, self.terms)
                if reason:
                    exits[number] = (price, reason, price == bar.open)
        # Those at the open come first; a stop that the open is beyond is one of them.
        for number in [n for n, (_, reason, _) in exits.items() if reason == kernel.TARGET]:
            if self._leave(number, *exits.pop(number)[:2], time):
                return
        self._enter_with_money(at, time, opens)
        for number in [n for n, (_, _, opening) in exits.items() if opening]:
            if self._leave(number, *exits.pop(number)[:2], time):
                return
        self._size(None if not any(leg.leaving for leg in self.legs) else frozenset(here))
        self._enter_with_money(at, time, opens)
        losses = [n for n, (_, reason, _) in exits.items() if reason == kernel.STOP_LOSS]
        for number in losses + [n for n in exits if n not in losses]:
            if self._leave(number, *exits[number][:2], time):
                return
        self.account.last |= {symbol: float(self.bars[symbol].close[place]) for symbol, place in here.items()}
        self._ruin(time)

    def _decide(self, here: Mapping[str, int]) -> None:
        for leg in self.legs:
            if leg.symbol not in here:
                continue
            target = float(leg.targets[here[leg.symbol]])
            if target != leg.wanted:
                leg.wanted, leg.due, leg.money = target, target != 0.0, None
                leg.leaving = leg.units != 0.0
        if not any(leg.leaving for leg in self.legs):
            self._size(None)

    def _size(self, opened: frozenset[str] | None) -> None:
        """Give money to the entries that are due; `opened`: to these symbols' alone, as somebody is leaving."""
        equity = self._worth(self.seen)
        gross = [abs(leg.units) * self.seen.get(leg.symbol, 0.0) + (leg.money or 0.0) for leg in self.legs]
        for number, leg in enumerate(self.legs):
            if (
                not leg.due
                or leg.leaving
                or leg.units != 0.0
                or (opened is not None and leg.symbol not in opened)
            ):
                continue
            of_symbol = sum(
                g for g, other in zip(gross, self.legs, strict=True) if other.symbol == leg.symbol
            )
            money = budget(self.request, number, leg.wanted, Room(equity, sum(gross), of_symbol))
            leg.due, leg.money = False, money or None
            gross[number] += money

    def _enter_with_money(self, at: int, time: str, opens: Mapping[str, float]) -> None:
        for number, leg in enumerate(self.legs):
            if leg.money is None or leg.symbol not in opens:
                continue
            side = 1.0 if leg.wanted > 0 else -1.0
            price = float(kernel.slipped(opens[leg.symbol], side, self.costs[1]))
            units = side * float(kernel.affordable(leg.money, price, self.costs[0]))
            commission = float(kernel.commission_of(units, price, self.costs[0]))
            leg.money = None
            dear = -units * price - commission < -self.account.cash * (1.0 + _ROUNDING)
            if units == 0.0 or commission > abs(units) * price or (dear and side > 0):
                continue
            self.account.cash += -units * price - commission
            leg.units, leg.entry_price, leg.entered = units, price, at
            self._note(time, number, kernel.ENTRY, (units, price, commission))

    def _leave(self, number: int, price: float, reason: int, time: str) -> bool:
        """Close a leg's position; return whether that was the account's ruin."""
        leg = self.legs[number]
        fill_price = float(kernel.slipped(price, -1.0 if leg.units > 0 else 1.0, self.costs[1]))
        commission = float(kernel.commission_of(leg.units, fill_price, self.costs[0]))
        if leg.units > 0:
            commission = min(commission, leg.units * fill_price)
        brings = leg.units * fill_price - commission
        cash = self.account.cash
        others = self._worth(self.account.last) - cash - leg.units * self.account.last[leg.symbol]
        if brings < 0.0 and cash + brings < -_ROUNDING * abs(cash) and cash + brings + others <= 0.0:
            return self._ruin(time, certain=True)
        self.account.cash += brings
        self._note(time, number, reason, (-leg.units, fill_price, commission))
        leg.units, leg.leaving = 0.0, False
        return False

    def _ruin(self, time: str, *, certain: bool = False) -> bool:
        """Liquidate an account that has nothing left; return whether it had."""
        held = [number for number, leg in enumerate(self.legs) if leg.units != 0.0]
        if not held or (not certain and self._worth(self.account.last) > 0.0):
            return False
        market = [(self.legs[n].units, self.account.last[self.legs[n].symbol]) for n in held]
        for number, price in zip(held, ruin_prices(self.account.cash, market), strict=True):
            leg = self.legs[number]
            self._note(time, number, kernel.RUIN, (-leg.units, price, 0.0))
            leg.units = 0.0
        self.account.cash, self.account.ruined = 0.0, True
        return True

    def _note(self, time: str, number: int, reason: int, traded: tuple[float, float, float]) -> None:
        self.account.fills.append(SimulatedFill(time, number, *traded, _PURPOSE[reason]))


def _require_same_books(found: SessionBacktest, closes: Floats, legs: int, capital: float) -> None:
    """Have vectorbt keep the books of the fills: one group of legs with shared cash, a row a fill and one a close."""
    kernels, enums = load_vectorbt()
    # What a ruin is closed at is a rule of ours, and nothing comes after it: the bars before it are compared.
    fills = [fill for fill in found.fills if fill.purpose != "ruin"]
    ruin = next((fill.time for fill in found.fills if fill.purpose == "ruin"), None)
    times = [stamp(time) for time in found.time]
    place = {time: number for number, time in enumerate(times)}
    bar_of = np.array([place[fill.time] for fill in fills], dtype=np.int64)
    rows = np.arange(len(bar_of)) + bar_of  # each fill before its bar's close, in order
    n = len(times) + len(bar_of)
    is_close = np.ones(n, dtype=np.bool_)
    is_close[rows] = False
    bar = np.empty(n, dtype=np.int64)
    bar[is_close], bar[rows] = np.arange(len(times)), bar_of
    price = np.where(np.isnan(closes[bar]), 1.0, closes[bar])
    close = np.ascontiguousarray(price)
    size, fees, price = np.full((n, legs), np.nan), np.zeros((n, legs)), price.copy()
    for row, fill in zip(rows, fills, strict=True):
        size[row, fill.leg], price[row, fill.leg], fees[row, fill.leg] = (
            fill.units,
            fill.price,
            fill.commission,
        )
    orders, _ = kernels.simulate_from_orders(
        (n, legs), np.array([legs]), np.array([capital]), np.tile(np.arange(legs), (n, 1)),
        size=size, price=price, size_type=np.asarray(enums.SizeType.Amount),
        direction=np.asarray(enums.Direction.Both), fixed_fees=fees, close=close, max_orders=max(len(rows), 1),
    )  # fmt: skip
    orders = np.asarray(orders)
    orders = orders[np.lexsort((orders["idx"], orders["col"]))]
    counts = np.bincount(orders["col"], minlength=legs).astype(np.int64)
    columns = (np.arange(len(orders), dtype=np.int64), counts)
    units = kernels.assets(kernels.asset_flow((n, legs), orders, columns, enums.Direction.Both))
    group = np.array([legs])
    flow = kernels.cash_flow_grouped(kernels.cash_flow((n, legs), orders, columns, False), group)
    worth = kernels.asset_value_grouped(kernels.asset_value(close, units), group)
    cash = kernels.cash_grouped((n, legs), flow, group, np.array([capital]))
    theirs = np.asarray(kernels.value(cash, worth))[is_close, 0]
    differs = np.abs(theirs - found.equity) > _ROUNDING * (np.abs(found.equity) + 1e-3 * capital)
    if ruin is not None:
        differs[place[ruin] :] = False
    if differs.any():
        at = int(np.argmax(differs))
        raise GptTraderError(
            f"the session's backtest and vectorbt disagree: at {times[at]} equity is {found.equity[at]!r} by the "
            f"simulation and {float(theirs[at])!r} by vectorbt. This is a fault of gpt-trader: please report it"
        )
