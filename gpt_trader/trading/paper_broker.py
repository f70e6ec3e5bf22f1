"""The simulated broker: bars in, fills out, by the rules of the backtest.

Within one bar, in this order: at the open, an account that has lost everything is liquidated; then market orders are
filled, and stops that the open is beyond; then orders that are sent in answer to those fills are still part of the
auction. In the rest of the bar stops go before touched and limit orders; only orders that came before this bar take
part, because a bar does not tell what came first within it. At the close, liquidation again.

Prices, slippage and commission are the kernel's own functions (`gpt_trader.simulation.kernel`). A limit order is not
filled worse than its limit; all others slip. With `participation` a fill is at most that part of the bar's volume, and
the rest waits for the next bar.

It keeps nothing that the ledger does not tell: rebuilt from a session's state it goes on as if never interrupted, and
the same order in the same bar has the same execution id.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from decimal import Decimal
from math import inf
from typing import Final, Literal, NamedTuple

from gpt_trader.simulation import kernel
from gpt_trader.trading.events import BarRow, Moment
from gpt_trader.trading.orders import (
    Accepted,
    Ended,
    Fill,
    Order,
    Purpose,
    Report,
    exact,
    exactly,
    outlay,
    paid,
    plain,
)
from gpt_trader.trading.sizing import ruin_prices
from gpt_trader.trading.state import State, Working

_ZERO: Final = Decimal(0)

#: A cost that is more than there is by less than this fraction is rounding.
_ROUNDING: Final = 1e-9

#: What is looked at first, of orders that could trade at the same price.
_RANK: Final = {"market": 0, "stop": 1, "touched": 2, "limit": 3}


@dataclass(slots=True)
class _Resting:
    order: Order
    filled: Decimal
    spent: Decimal
    #: A stop that has gone off, and is filled bar by bar.
    triggered: bool = False


class _Deal(NamedTuple):
    """What is traded: signed units, prices with slippage and before it, commission, what the broker bears."""

    units: Decimal
    price: float
    reference: float
    commission: float
    write_off: Decimal = _ZERO


class PaperBroker:
    """Simulates one account."""

    venue = "paper"

    def __init__(
        self, costs: tuple[kernel.CommissionTerms, kernel.SlippageTerms], participation: float | None
    ) -> None:
        self._commission, self._slippage = costs
        self._participation = participation
        self._cash = _ZERO
        self._units: dict[int, Decimal] = {}
        self._symbols: list[str] = []
        self._resting: dict[str, _Resting] = {}
        self._reports: list[Report] = []
        self._last: dict[str, float] = {}
        self._moment: Moment | None = None
        self._opened: str | None = None
        self._auction = False
        self._traded: dict[str, Decimal] = {}

    def restore(self, state: State) -> None:
        """Take over the account as a session's ledger tells it.

        What happened to it is reported no more; an order that it has not accepted has not arrived.
        """
        self._cash = state.cash
        self._symbols = list(state.symbols)
        self._units = {number: leg.units for number, leg in enumerate(state.legs)}
        self._resting = {id_: _resting(working) for id_, working in state.working.items() if working.accepted}
        self._traded = dict(state.traded)
        self._last = dict(state.closes)
        self._reports = []
        self._moment, self._auction = None, False
        self._opened = None if state.current is None else state.current.time

    def submit(self, order: Order) -> None:
        """Take an order; one that comes in a bar's auction is part of it."""
        if order.id in self._resting:
            return
        self._resting[order.id] = resting = _Resting(order, _ZERO, _ZERO)
        self._reports.append(Accepted(order.id))
        if self._auction and order.type == "market":
            self._at_the_open(resting)

    def cancel(self, order_id: str) -> None:
        """End an order, unless it has ended already."""
        self._end(order_id, "cancelled", "asked for")

    def reports(self) -> list[Report]:
        """Return what happened since the last call."""
        found, self._reports = self._reports, []
        return found

    def auction(self, moment: Moment) -> None:
        """Open the bars of a moment."""
        self._moment, self._auction = moment, True
        if moment.time != self._opened:
            self._traded = {}
        self._last |= {symbol: bar.open for symbol, bar in moment.bars.items()}
        if moment.time == self._opened:  # interrupted in this bar: its auction is over but for what comes now
            return
        if self._lost():
            self._liquidate()
        for resting in self._in_turn():
            if resting.order.id in self._resting:
                self._at_the_open(resting)

    def range(self, moment: Moment) -> None:
        """Pass the rest of the bars, up to their close."""
        self._auction = False
        for resting in self._in_turn():
            if resting.order.id in self._resting and _before(resting.order, moment):
                self._within(resting, moment.bars[resting.order.symbol])
        self._last |= {symbol: bar.close for symbol, bar in moment.bars.items()}
        if self._lost():
            self._liquidate()
        self._moment = None

    def _in_turn(self) -> list[_Resting]:
        assert self._moment is not None
        here = (each for each in self._resting.values() if each.order.symbol in self._moment.bars)
        return sorted(here, key=lambda each: _RANK[each.order.type])

    def _at_the_open(self, resting: _Resting) -> None:
        assert self._moment is not None
        order = resting.order
        bar = self._moment.bars.get(order.symbol)
        if bar is None:
            return
        if order.type == "market" or resting.triggered:
            self._trade(resting, bar.open, None)
        elif _before(order, self._moment) and _reached(order, bar.open):
            self._trade(resting, bar.open, order.price if order.type == "limit" else None)

    def _within(self, resting: _Resting, bar: BarRow) -> None:
        order = resting.order
        if order.type == "market" or order.price is None or resting.triggered:
            return  # a market order that is left has had this bar's share of the volume
        lowest = order.side > 0 if order.type != "stop" else order.side < 0
        if _reached(order, bar.low if lowest else bar.high):
            self._trade(resting, float(order.price), order.price if order.type == "limit" else None)

    def _trade(self, resting: _Resting, reference: float, limit: Decimal | None) -> None:
        """Fill an order, or as much of it as the volume allows, at a price before slippage."""
        order = resting.order
        price = kernel.slipped(reference, float(order.side), self._slippage)
        if limit is not None:
            price = min(price, float(limit)) if order.side > 0 else max(price, float(limit))
        wanted = self._wanted(resting, price)
        units = exact(float(order.side * min(wanted, self._volume(order.symbol))))
        if abs(units) < abs(exact(wanted)):
            if not units:
                return
            whole = False
        else:
            units = units if order.units is None else order.units - resting.filled
            whole = True
        commission = kernel.commission_of(float(units), price, self._commission)
        notional = abs(float(units)) * price
        if order.budget is not None and (not units or commission > notional):
            self._end(order.id, "rejected", "it is worth less than its commission")
            return
        if order.side < 0 and order.budget is None:  # a sale costs no more than it brings
            commission = min(commission, notional)
        brings = paid(units, exact(price), exact(commission))
        if self._too_much(order, brings):
            return
        self._fill(resting, _Deal(units, price, reference, commission), whole=whole)

    def _wanted(self, resting: _Resting, price: float) -> float:
        """Return how many units, unsigned, an order still wants at this price."""
        order = resting.order
        if order.budget is None:
            assert order.units is not None
            return abs(float(order.units - resting.filled))
        left = float(order.budget - resting.spent)
        return float(kernel.affordable(left, price, self._commission))

    def _volume(self, symbol: str) -> float:
        """Return how many units of a symbol may still be traded in this bar."""
        assert self._moment is not None
        if self._participation is None:
            return inf
        traded = float(self._traded.get(symbol, _ZERO))
        return max(self._moment.bars[symbol].volume * self._participation - traded, 0.0)

    def _too_much(self, order: Order, brings: Decimal) -> bool:
        """Refuse what cannot be paid; liquidate an account that a cover leaves nothing."""
        after = float(self._cash + brings)
        if after >= -_ROUNDING * abs(float(self._cash)) or brings >= 0:
            return False
        if order.units is None or order.purpose == "entry":
            self._end(
                order.id, "rejected", f"it costs {-float(brings):.2f}, and there is {float(self._cash):.2f}"
            )
            return True
        others = sum(
            float(units) * self._last[self._symbols[leg]]
            for leg, units in self._units.items()
            if leg != order.leg
        )
        if after + others > 0.0:
            return False
        self._liquidate()
        return True

    def _fill(self, resting: _Resting, deal: _Deal, *, whole: bool) -> None:
        order = resting.order
        fill = self._report(order.id, order.leg, deal, order.purpose, whole=whole)
        resting.filled += deal.units
        resting.spent += outlay(deal.units, fill.price, fill.commission)
        self._traded[order.symbol] = self._traded.get(order.symbol, _ZERO) + abs(deal.units)
        if whole:
            del self._resting[order.id]
        elif order.type in ("stop", "touched"):
            resting.triggered = True
        group = [
            each.order.id
            for each in self._resting.values()
            if order.group and each.order.group == order.group
        ]
        for other in group:
            if other != order.id:
                self._end(other, "cancelled", f"order {order.id} of its group was filled")

    def _report(self, order_id: str, leg: int, deal: _Deal, purpose: Purpose, *, whole: bool) -> Fill:
        assert self._moment is not None
        time, units = self._moment.time, deal.units
        execution = hashlib.sha256(f"{order_id}\n{time}\n{plain(units)}".encode()).hexdigest()[:32]
        fill = Fill(
            order_id=order_id,
            execution_id=execution,
            time=time,
            leg=leg,
            symbol=self._symbols[leg],
            units=units,
            price=exact(deal.price),
            reference=exact(deal.reference),
            commission=exact(deal.commission),
            purpose=purpose,
            complete=whole,
            write_off=deal.write_off,
        )
        with exactly():
            self._cash += paid(units, fill.price, fill.commission) + fill.write_off
            self._units[leg] += units
        self._reports.append(fill)
        return fill

    def _lost(self) -> bool:
        """Whether nothing is left of the account, at the prices as they stand."""
        held = [(float(units), self._last[self._symbols[leg]]) for leg, units in self._units.items() if units]
        return bool(held) and float(self._cash) + sum(units * price for units, price in held) <= 0.0

    def _liquidate(self) -> None:
        """Close everything, so that exactly nothing is left."""
        for order_id in list(self._resting):
            self._end(order_id, "cancelled", "the account has lost everything")
        held = [(leg, units) for leg, units in self._units.items() if units]
        market = [(float(units), self._last[self._symbols[leg]]) for leg, units in held]
        time = self._moment.time if self._moment else ""
        for (leg, units), price in zip(held, ruin_prices(float(self._cash), market), strict=True):
            left = _ZERO
            if leg == held[-1][0]:
                with exactly():
                    left = self._cash + paid(-units, exact(price), _ZERO)
            deal = _Deal(-units, price, price, 0.0, -left)
            self._report(f"ruin:{leg}:{time}", leg, deal, "ruin", whole=True)

    def _end(self, order_id: str, state: Literal["cancelled", "rejected"], reason: str) -> None:
        if self._resting.pop(order_id, None) is not None:
            self._reports.append(Ended(order_id, state, reason))


def _resting(working: Working) -> _Resting:
    order = working.order
    return _Resting(
        order, working.filled, working.spent, bool(working.filled) and order.type in ("stop", "touched")
    )


def _before(order: Order, moment: Moment) -> bool:
    """Whether an order came before this bar."""
    return order.after < moment.time


def _reached(order: Order, price: float) -> bool:
    """Whether a price is where the order trades: a stop beyond it, the others at it or better."""
    assert order.price is not None
    beyond = order.side * (price - float(order.price))
    return beyond >= 0.0 if order.type == "stop" else beyond <= 0.0
