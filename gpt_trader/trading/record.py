"""What a session's ledger shows: its equity curve, its round trips, its metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from gpt_trader.backtesting import metrics as measure
from gpt_trader.backtesting.result import Metrics, Trade
from gpt_trader.bars import Floats, Times
from gpt_trader.trading.events import LedgerEvent, unstamp
from gpt_trader.trading.orders import Fill, exact, exactly


@dataclass(frozen=True)
class SessionTrade(Trade):
    """One position of one leg, from its first fill to its last; as in `Trade`, with what was traded.

    Entered or left in parts, prices are means by units. `exit_reason` also `flatten`: the session was closed out.
    """

    leg: int
    symbol: str


@dataclass(frozen=True)
class Record:
    """A session's curve, (n,) a value a bar: times, equity and cash at the closes, currency; and its trades."""

    time: Times
    equity: Floats
    cash: Floats
    trades: tuple[SessionTrade, ...]

    def metrics(self, capital: float, periods_a_year: float) -> Metrics | None:
        """Return the metrics, defined as a backtest's; None before the first bar."""
        if not len(self.time):
            return None
        return measure.metrics(self.equity, self.trades, capital, periods_a_year, self.equity - self.cash)


def record(events: Iterable[LedgerEvent], closes: Mapping[str, float]) -> Record:
    """Read a ledger's events; `closes` are the last closes by symbol, at which what is open is valued.

    A position that was held over a split or a dividend has the units and prices of its end.
    """
    curve: list[tuple[str, float, float]] = []
    open_: dict[int, _Open] = {}
    trades: list[SessionTrade] = []
    for event in events:
        if event.type == "closed":
            curve.append((event.data["time"], float(event.data["equity"]), float(event.data["cash"])))
            for each in open_.values():
                each.bars += 1
        elif event.type == "rebased":
            for each in open_.values():
                if each.symbol == event.data["symbol"]:
                    each.rescale(event.data["factor"])
        elif event.type == "fill":
            for fill in _parts(Fill.of(event.data), open_):
                position = open_.setdefault(fill.leg, _Open(fill.leg, fill.symbol, fill.time))
                if position.take(fill):
                    trades.append(position.trade(np.nan))
                    del open_[fill.leg]
    trades += [each.trade(closes[each.symbol]) for each in open_.values()]
    time = np.array([unstamp(at) for at, _, _ in curve], dtype="datetime64[us]")
    equity, cash = (np.array([row[place] for row in curve]) for place in (1, 2))
    return Record(time, equity, cash, tuple(trades))


def _parts(fill: Fill, open_: Mapping[int, _Open]) -> list[Fill]:
    """Return a fill of more than is held as two: what closes the position, and what opens another."""
    held = open_[fill.leg].units if fill.leg in open_ else Decimal(0)
    with exactly():
        if held * fill.units >= 0 or abs(fill.units) <= abs(held):
            return [fill]
        fee = exact(float(fill.commission * -held / fill.units))
        return [
            replace(fill, units=-held, commission=fee),
            replace(fill, units=fill.units + held, commission=fill.commission - fee),
        ]


class _Open:
    """A position under way: what came in, and what went out, each (units > 0, price, costs)."""

    def __init__(self, leg: int, symbol: str, time: str) -> None:
        self.leg, self.symbol, self.time = leg, symbol, time
        self.bars = 0
        self._side = 0
        self._units = Decimal(0)
        self._in: list[tuple[float, float, float]] = []
        self._out: list[tuple[float, float, float]] = []
        self._paid = 0.0
        self._reason = "open"
        self._end: str | None = None

    @property
    def units(self) -> Decimal:
        """What is held, signed."""
        return self._units

    def take(self, fill: Fill) -> bool:
        """Take a fill; return whether nothing is held any more."""
        units, price = abs(float(fill.units)), float(fill.price)
        slipped = units * abs(price - float(fill.reference))
        with exactly():
            self._units += fill.units
            self._paid += float(fill.commission)
        self._side = self._side or (1 if fill.units > 0 else -1)
        if fill.units * self._side > 0:
            self._in.append((units, price, float(fill.commission) + slipped))
        else:
            self._out.append((units, price, float(fill.commission) + slipped))
            self._reason, self._end = fill.purpose, fill.time
        return not self._units

    def rescale(self, factor: float) -> None:
        """Bring all units and prices to a new scale."""
        self._in = [(units / factor, price * factor, costs) for units, price, costs in self._in]
        self._out = [(units / factor, price * factor, costs) for units, price, costs in self._out]
        self._units = exact(float(self._units) / factor)

    def trade(self, close: float) -> SessionTrade:
        """Return the round trip; what is still held is valued at the close."""
        held = abs(float(self._units))
        out = [*self._out, (held, close, 0.0)] if held else self._out
        size, entry_price = _mean(self._in)
        _, exit_price = _mean(out)
        pnl = self._side * size * (exit_price - entry_price) - self._paid
        return SessionTrade(
            entry_time=unstamp(self.time),
            exit_time=None if held or self._end is None else unstamp(self._end),
            side=self._side,
            size=size,
            entry_price=entry_price,
            exit_price=exit_price,
            entry_costs=math.fsum(costs for _, _, costs in self._in),
            exit_costs=math.fsum(costs for _, _, costs in self._out),
            pnl=pnl,
            return_=pnl / (size * entry_price),
            bars=self.bars,
            exit_reason="open" if held else self._reason,
            leg=self.leg,
            symbol=self.symbol,
        )


def _mean(parts: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Return the units of some fills and their mean price."""
    units = math.fsum(each for each, _, _ in parts)
    if len(parts) == 1:
        return units, parts[0][1]
    return units, math.fsum(each * price for each, price, _ in parts) / units
