"""A session's state: what the fold of its ledger's events has come to. Nothing else ever changes it.

So a session that was killed and one that was not are the same fold of the same events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final

from gpt_trader.trading.events import LedgerEvent, Moment
from gpt_trader.trading.orders import Fill, Order, exact, exactly, outlay, paid, plain
from gpt_trader.trading.statuses import FINAL, Status

#: A session that opens no position any more.
_ENDING: Final = FINAL | {"closing", "finishing"}

_ZERO: Final = Decimal(0)


#: Executions that are remembered, so that a broker that tells one twice changes nothing. What is told again after so
#: many others would be refused by the ledger's unique keys.
MOST_EXECUTIONS: Final = 2_000


@dataclass(slots=True)
class LegState:
    """One leg: signed units, the price of its entry, the target wanted last.

    `due`: an entry is to be sent. `leaving`: what is held, or working, is to go. `bare`: entered, and without stops
    for all of it. `entry`: the order that its position is from.
    """

    units: Decimal = _ZERO
    entry_price: Decimal | None = None
    wanted: float = 0.0
    due: bool = False
    leaving: bool = False
    bare: bool = False
    number: int = 0
    entry: str | None = None


@dataclass(slots=True)
class Working:
    """An order that may still trade: what of it is filled, in units and in money spent on a budget.

    `sent` and `cancelling` number what the session sent, in order (`State.sent`); 0: no cancellation was sent.
    """

    order: Order
    sent: int
    filled: Decimal = _ZERO
    spent: Decimal = _ZERO
    accepted: bool = False
    cancelling: int = 0


@dataclass(slots=True)
class State:
    """The whole session. `current` is the moment under way: its bars are known to the broker, not to the strategies."""

    session_id: str = ""
    status: Status = "active"
    reason: str = ""
    #: What it becomes once nothing is held (status closing) or working (finishing).
    then: Status | None = None
    capital: Decimal = _ZERO
    cash: Decimal = _ZERO
    equity: Decimal = _ZERO
    peak: Decimal = _ZERO
    #: The day of the last close (`YYYY-MM-DD`) and the equity at the last close of the day before it.
    day: str = ""
    day_began: Decimal = _ZERO
    steps: int = 0
    time: str | None = None
    current: Moment | None = None
    legs: list[LegState] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)
    working: dict[str, Working] = field(default_factory=dict)
    closes: dict[str, float] = field(default_factory=dict)
    #: Units traded in the bar under way, by symbol.
    traded: dict[str, Decimal] = field(default_factory=dict)
    orders: int = 0
    fills: int = 0
    #: Orders and cancellations so far.
    sent: int = 0
    #: The day that the loss of a day was reached on (status reducing).
    reduced: str = ""
    #: The last executions, by id (a set in order).
    executions: dict[str, None] = field(default_factory=dict)

    def evolve(self, event: LedgerEvent) -> None:
        """Take one event; raise ValueError for one that does not follow from what went before."""
        _EVOLVE[event.type](self, event.data)

    def units_of(self, symbol: str) -> Decimal:
        """Return what is held of a symbol, over all legs."""
        held = (leg.units for leg, name in zip(self.legs, self.symbols, strict=True) if name == symbol)
        with exactly():
            return sum(held, _ZERO)

    def value_of(self, leg: int) -> Decimal:
        """Return what a leg's position is worth at its symbol's last close (a short's is below 0)."""
        units = self.legs[leg].units
        if not units:
            return _ZERO
        with exactly():
            return units * exact(self.closes[self.symbols[leg]])

    def worth(self) -> Decimal:
        """Return cash and positions at the last closes."""
        with exactly():
            return self.cash + sum((self.value_of(leg) for leg in range(len(self.legs))), _ZERO)

    def working_of(self, leg: int) -> list[Working]:
        """Return a leg's orders that may still trade, oldest first."""
        return [each for each in self.working.values() if each.order.leg == leg]

    @property
    def over(self) -> bool:
        """Whether it has ended, or trades no more and holds nothing that could."""
        return self.status in FINAL

    def document(self) -> dict[str, Any]:
        """Return the state JSON-ready: a snapshot that `of` takes up again."""
        return {
            "schema_version": 1,
            "session_id": self.session_id,
            "status": self.status,
            "reason": self.reason,
            "then": self.then,
            **{name: plain(getattr(self, name)) for name in _MONEY},
            "day": self.day,
            "steps": self.steps,
            "time": self.time,
            "current": None if self.current is None else dict(self.current.event().data),
            "legs": [_leg_document(leg) for leg in self.legs],
            "symbols": list(self.symbols),
            "working": [_working_document(each) for each in self.working.values()],
            "closes": dict(self.closes),
            "traded": {symbol: plain(units) for symbol, units in self.traded.items()},
            "orders": self.orders,
            "fills": self.fills,
            "sent": self.sent,
            "reduced": self.reduced,
            "executions": list(self.executions),
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> State:
        """Return the state of a `document`."""
        row: dict[str, Any] = {name: document[name] for name in _PLAIN}
        row |= {name: Decimal(document[name]) for name in _MONEY}
        state = cls(
            **row,
            current=None if document["current"] is None else Moment.of(document["current"]),
            legs=[_leg_of(each) for each in document["legs"]],
            symbols=list(document["symbols"]),
            closes=dict(document["closes"]),
            traded={symbol: Decimal(units) for symbol, units in document["traded"].items()},
            orders=document["orders"],
            fills=document["fills"],
            sent=document["sent"],
            executions=dict.fromkeys(document["executions"]),
        )
        for each in document["working"]:
            working = _working_of(each)
            state.working[working.order.id] = working
        return state


_PLAIN: Final = ("session_id", "status", "reason", "then", "day", "steps", "time", "reduced")
_MONEY: Final = ("capital", "cash", "equity", "peak", "day_began")


def _leg_document(leg: LegState) -> dict[str, Any]:
    entry = None if leg.entry_price is None else plain(leg.entry_price)
    flags = {name: getattr(leg, name) for name in ("due", "leaving", "bare", "number", "entry")}
    return {"units": plain(leg.units), "entry_price": entry, "wanted": leg.wanted, **flags}


def _leg_of(document: Mapping[str, Any]) -> LegState:
    entry = document["entry_price"]
    units = Decimal(document["units"])
    return LegState(**{**document, "units": units, "entry_price": None if entry is None else Decimal(entry)})


def _working_document(each: Working) -> dict[str, Any]:
    flags = {"accepted": each.accepted, "cancelling": each.cancelling}
    return {
        "order": each.order.document(),
        "sent": each.sent,
        "filled": plain(each.filled),
        "spent": plain(each.spent),
        **flags,
    }


def _working_of(document: Mapping[str, Any]) -> Working:
    return Working(
        Order.of(document["order"]),
        document["sent"],
        Decimal(document["filled"]),
        Decimal(document["spent"]),
        document["accepted"],
        document["cancelling"],
    )


def _opened(state: State, data: Mapping[str, Any]) -> None:
    if state.session_id:
        raise ValueError("a ledger is opened once")
    state.session_id = data["session_id"]
    state.capital = state.cash = state.equity = state.peak = state.day_began = Decimal(data["capital"])
    state.symbols = [leg["symbol"] for leg in data["request"]["legs"]]
    state.legs = [LegState() for _ in state.symbols]


def _bars(state: State, data: Mapping[str, Any]) -> None:
    if state.current is not None or (state.time is not None and data["time"] <= state.time):
        raise ValueError(f"bars of {data['time']} do not follow those of {state.time}")
    state.current = Moment.of(data)
    state.time = data["time"]


def _rebased(state: State, data: Mapping[str, Any]) -> None:
    symbol, factor = data["symbol"], exact(data["factor"])
    with exactly():
        for leg, name in zip(state.legs, state.symbols, strict=True):
            if name == symbol and leg.units:
                leg.units = exact(float(leg.units / factor))
                leg.entry_price = None if leg.entry_price is None else exact(float(leg.entry_price * factor))
        if symbol in state.closes:
            state.closes[symbol] *= data["factor"]
        for working in state.working.values():
            if working.order.symbol == symbol:
                working.order = _rescaled(working.order, factor)
                working.filled = exact(float(working.filled / factor))


def _rescaled(order: Order, factor: Decimal) -> Order:
    return replace(
        order,
        units=None if order.units is None else exact(float(order.units / factor)),
        price=None if order.price is None else exact(float(order.price * factor)),
    )


def _missed(state: State, data: Mapping[str, Any]) -> None:
    """A bar that came too late is only written down."""


def _command(state: State, data: Mapping[str, Any]) -> None:
    """Commands change the status by a `status` event; here they are only written down."""


def _wanted(state: State, data: Mapping[str, Any]) -> None:
    leg = state.legs[data["leg"]]
    leg.wanted = data["target"]
    leg.due = leg.wanted != 0.0
    leg.leaving = bool(leg.units) or bool(state.working_of(data["leg"]))


def _skipped(state: State, data: Mapping[str, Any]) -> None:
    state.legs[data["leg"]].due = False


def _order(state: State, data: Mapping[str, Any]) -> None:
    order = Order.of(data)
    if order.id in state.working:
        raise ValueError(f"order {order.id} is intended twice")
    state.orders += 1
    state.sent += 1
    state.working[order.id] = Working(order, state.sent)
    leg = state.legs[order.leg]
    leg.number += 1
    if order.purpose == "entry":
        leg.due, leg.entry = False, order.id
    elif order.purpose in ("stop_loss", "take_profit"):
        leg.bare = False


def _cancel(state: State, data: Mapping[str, Any]) -> None:
    state.sent += 1
    if data["id"] in state.working:
        state.working[data["id"]].cancelling = state.sent


def _accepted(state: State, data: Mapping[str, Any]) -> None:
    if data["id"] in state.working:
        state.working[data["id"]].accepted = True


def _ended(state: State, data: Mapping[str, Any]) -> None:
    ended = state.working.pop(data["id"], None)
    if ended is not None:
        _settled(state, ended.order.leg)


def _fill(state: State, data: Mapping[str, Any]) -> None:
    fill = Fill.of(data)
    if fill.execution_id in state.executions:
        raise ValueError(f"execution {fill.execution_id} is told twice")
    state.executions[fill.execution_id] = None
    if len(state.executions) > MOST_EXECUTIONS:
        del state.executions[next(iter(state.executions))]
    with exactly():
        state.cash += paid(fill.units, fill.price, fill.commission) + fill.write_off
        state.fills += 1
        state.traded[fill.symbol] = state.traded.get(fill.symbol, _ZERO) + abs(fill.units)
        leg = state.legs[fill.leg]
        held = leg.units
        leg.units = held + fill.units
        if fill.purpose == "entry":
            leg.bare = True
            leg.entry_price = _average(held, leg.entry_price, fill)
        if not leg.units:
            leg.entry_price, leg.bare = None, False
        working = state.working.get(fill.order_id)
        if working is not None:
            working.filled += fill.units
            working.spent += outlay(fill.units, fill.price, fill.commission)
            if _is_whole(working, fill):
                del state.working[fill.order_id]
        if leg.units and _is_stray(leg, held, fill, known=working is not None):
            leg.leaving = True
            leg.due = leg.due or (
                fill.purpose == "entry" and leg.wanted != 0.0 and state.status not in _ENDING
            )
    _settled(state, fill.leg)


def _is_whole(working: Working, fill: Fill) -> bool:
    """Whether nothing is left of an order. Units tell it themselves: a broker's last fill may come before others."""
    order = working.order
    return fill.complete if order.units is None else abs(working.filled) >= abs(order.units)


def _is_stray(leg: LegState, held: Decimal, fill: Fill, *, known: bool) -> bool:
    """Whether a fill left units that nobody wants: a broker was faster than a cancellation, or two stops met.

    Of an entry: one that is not the position's own, or that its leg has given up. Of an exit: one of more than is held.
    """
    if fill.purpose != "entry":
        return leg.units * fill.units > 0
    mine = fill.order_id == leg.entry and not leg.due and leg.wanted * float(leg.units) > 0
    return not known and not mine


def _average(held: Decimal, price: Decimal | None, fill: Fill) -> Decimal:
    """Return the mean price of a position that is entered in parts."""
    if (
        price is None or held * fill.units <= 0
    ):  # the first part; or one that comes late, against what is held
        return fill.price
    return exact(float((held * price + fill.units * fill.price) / (held + fill.units)))


def _settled(state: State, leg: int) -> None:
    """See whether a leg that was leaving has left."""
    if not state.legs[leg].units and not state.working_of(leg):
        state.legs[leg].leaving = False


def _status(state: State, data: Mapping[str, Any]) -> None:
    state.status, state.reason = data["status"], data["reason"]
    state.then = data.get("then")
    if state.status == "reducing":
        state.reduced = state.day
    if state.status in ("closing", "finishing", "halted"):
        for number, leg in enumerate(state.legs):
            leg.due = False
            leg.leaving = bool(leg.units) or bool(state.working_of(number))


def _closed(state: State, data: Mapping[str, Any]) -> None:
    if state.current is None:
        raise ValueError("no bar is under way")
    day = state.current.time[:10]
    if day != state.day:
        state.day, state.day_began = day, state.equity
    state.steps += 1
    state.current = None
    state.traded = {}
    state.equity = Decimal(data["equity"])
    state.peak = max(state.peak, state.equity)


def _seen(state: State, data: Mapping[str, Any]) -> None:
    """The bar's closes become known: to strategies, to sizing, to equity."""
    if state.current is None:
        raise ValueError("no bar is under way")
    state.closes.update({symbol: row.close for symbol, row in state.current.bars.items()})


def _finished(state: State, data: Mapping[str, Any]) -> None:
    state.status, state.reason = data["status"], data["reason"]
    state.working.clear()


_EVOLVE: Final[dict[str, Callable[[State, Mapping[str, Any]], None]]] = {
    "opened": _opened,
    "bars": _bars,
    "rebased": _rebased,
    "missed": _missed,
    "command": _command,
    "wanted": _wanted,
    "skipped": _skipped,
    "order": _order,
    "cancel": _cancel,
    "accepted": _accepted,
    "ended": _ended,
    "fill": _fill,
    "status": _status,
    "seen": _seen,
    "closed": _closed,
    "finished": _finished,
}
