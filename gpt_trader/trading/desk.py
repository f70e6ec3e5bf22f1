"""What a session does: bars and reports in, orders and cancellations out, as events. No clock, no broker, no disk.

At a bar's close each strategy is asked for its target. Where it changed, what the leg holds is to leave: its working
orders are cancelled, and once nothing is working it is sold (covered) in full. Then, if the new target is not flat, an
entry is sent, with the money of `gpt_trader.trading.sizing`. An entry waits while another leg is leaving, whose money
it may need, until its own symbol's next bar has opened. When it is filled, its stops are sent.

The rules are the backtest's (`gpt_trader.backtesting.execution`); which broker fills the orders makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from gpt_trader.backtesting.engine import wanted_targets
from gpt_trader.bars import Bars
from gpt_trader.errors import GptTraderError
from gpt_trader.strategies.base import Strategy
from gpt_trader.trading.events import LedgerEvent
from gpt_trader.trading.history import History
from gpt_trader.trading.orders import Ended, Fill, Order, Purpose, Report, Type, client_order_id, exact, plain
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.trading.sizing import Room, budget
from gpt_trader.trading.state import State, Working
from gpt_trader.trading.statuses import FINAL, Status

_EXITS = frozenset({"target", "flatten"})
_STOPS = frozenset({"stop_loss", "take_profit"})

#: A session that only ends its orders.
_CANCELLING = frozenset({"finishing", "halted"})

Phase = Literal["open", "close"]


class _Intent(NamedTuple):
    """An order to be: what of it the desk decides. `place` counts the orders that a leg sends at once."""

    purpose: Purpose
    type: Type
    side: int
    place: int = 0
    units: str | None = None
    budget: str | None = None
    price: str | None = None
    group: str | None = None


class Desk:
    """Decides for one session: its request and its strategies, one a leg."""

    def __init__(self, request: PaperTradeRequest, strategies: Sequence[Strategy]) -> None:
        self.request = request
        self._strategies = tuple(strategies)
        self._terms = [request.backtest(leg) for leg in request.legs]

    def decide(self, state: State, history: History) -> Iterator[LedgerEvent]:
        """Ask each strategy whose symbol has a bar for its target; yield what changed."""
        assert state.current is not None
        seen: dict[str, tuple[Bars, int]] = {}
        for number, (leg, strategy) in enumerate(zip(self.request.legs, self._strategies, strict=True)):
            if leg.symbol not in state.current.bars:
                continue
            if leg.symbol not in seen:
                seen[leg.symbol] = history.bars(leg.symbol)
            bars, first = seen[leg.symbol]
            target = self._target(number, strategy, bars, first)
            if target != state.legs[number].wanted:
                yield LedgerEvent("wanted", {"leg": number, "target": target, "time": state.time})

    def _target(self, number: int, strategy: Strategy, bars: Bars, first: int) -> float:
        try:
            return float(wanted_targets(strategy, bars, first, self._terms[number])[-1])
        except GptTraderError:
            raise
        except Exception as error:  # a strategy is anybody's code: whatever it raises is this session's alone
            name = self.request.legs[number].strategy
            raise GptTraderError(f"{name} on {bars.symbol} raised {type(error).__name__}: {error}") from error

    def watch(self, state: State) -> Iterator[LedgerEvent]:
        """Yield what the limits say at a close: a status, where one is reached or left."""
        limits, equity = self.request.risk, float(state.equity)
        if limits.drawdown is not None and state.status in ("active", "paused", "reducing"):
            fallen = 1.0 - equity / float(state.peak)
            if fallen >= limits.drawdown:
                why = f"the equity fell {fallen:.2%} from its peak, the limit is {limits.drawdown:.2%}"
                yield status("closing", why, then="halted")
                return
        if limits.daily_loss is None:
            return
        lost = 1.0 - equity / float(state.day_began) if state.day_began else 0.0
        if state.status == "active" and lost >= limits.daily_loss:
            why = f"{lost:.2%} were lost on {state.day}, the limit is {limits.daily_loss:.2%}"
            yield status("reducing", why)
        elif state.status == "reducing" and state.day != state.reduced and lost < limits.daily_loss:
            yield status("active", "another day")

    def answer(self, report: Report, order: Order | None, state: State) -> Iterator[LedgerEvent]:
        """Yield what a report on an order changes beside itself; the report is in the state already."""
        if state.status in FINAL:
            return
        if isinstance(report, Fill) and report.purpose == "ruin":
            yield status("halted", "the account has lost everything")
        elif isinstance(report, Ended) and report.state != "cancelled" and order and order.purpose in _EXITS:
            yield status("halted", f"an order to close a position was {report.state}: {report.reason}")
        elif isinstance(report, Ended) and report.state != "cancelled" and order and order.purpose in _STOPS:
            why = f"a stop was {report.state}, and a position is without it: {report.reason}"
            yield status("closing", why, then="halted")

    def act(self, state: State, phase: Phase, opened: Iterable[str] = ()) -> Iterator[LedgerEvent]:
        """Yield the orders and cancellations that the state asks for now; none: it is as wanted.

        `opened` are the symbols whose auction is over: their entries wait no more.
        """
        if state.status in ("stopped", "completed"):
            return
        working: dict[int, list[Working]] = {}
        for each in state.working.values():
            working.setdefault(each.order.leg, []).append(each)
        leaving = False
        for number, leg in enumerate(state.legs):
            if leg.leaving:
                leaving = True
                yield from self._leave(state, number, working.get(number, []), phase)
            elif leg.bare and leg.units and state.status not in _CANCELLING:
                yield from self._protect(state, number, working.get(number, []), phase)
        if state.status == "active" and any(leg.due for leg in state.legs):
            yield from self._enter(state, phase, working, frozenset(opened) if leaving else None)

    def _leave(
        self, state: State, number: int, working: list[Working], phase: Phase
    ) -> Iterator[LedgerEvent]:
        staying = [
            each for each in working if each.order.purpose not in _EXITS or state.status in _CANCELLING
        ]
        for each in staying:
            if not each.cancelling:
                yield LedgerEvent("cancel", {"id": each.order.id, "time": state.time})
        units = state.legs[number].units
        if not working and units and state.status not in _CANCELLING:
            purpose: Purpose = "flatten" if state.status == "closing" else "target"
            intent = _Intent(purpose, "market", -1 if units > 0 else 1, units=plain(-units))
            yield self._order(state, number, phase, intent)

    def _protect(
        self, state: State, number: int, working: list[Working], phase: Phase
    ) -> Iterator[LedgerEvent]:
        """Send the stops of a position that has been entered in full; older ones, for less of it, go first."""
        for each in working:
            if each.order.purpose in _STOPS and not each.cancelling:
                yield LedgerEvent("cancel", {"id": each.order.id, "time": state.time})
        if working:
            return
        leg, request = state.legs[number], self.request
        assert leg.entry_price is not None
        side, price = (1.0 if leg.units > 0 else -1.0), float(leg.entry_price)
        stops: list[tuple[Purpose, Type, float]] = []
        if request.stop_loss is not None:
            stops.append(("stop_loss", "stop", price * (1.0 - side * request.stop_loss)))
        if request.take_profit is not None:
            stops.append(("take_profit", "touched", price * (1.0 + side * request.take_profit)))
        group = f"{number}:{leg.number}"
        for place, (purpose, type_, at) in enumerate(stops):
            if at > 0.0:
                amounts = {"units": plain(-leg.units), "price": plain(exact(at))}
                intent = _Intent(purpose, type_, -int(side), place, **amounts, group=group)
                yield self._order(state, number, phase, intent)

    def _enter(
        self, state: State, phase: Phase, working: dict[int, list[Working]], opened: frozenset[str] | None
    ) -> Iterator[LedgerEvent]:
        """Send the entries that are due. `opened`: only of these symbols, as a leg is leaving; None: of all."""
        equity = float(state.worth())
        gross = [abs(float(state.value_of(number))) for number in range(len(state.legs))]
        for each in state.working.values():
            if each.order.budget is not None:
                gross[each.order.leg] += float(each.order.budget - each.spent)
        for number, leg in enumerate(state.legs):
            symbol = state.symbols[number]
            if not leg.due or leg.leaving or leg.units or number in working:
                continue
            if opened is not None and symbol not in opened:
                continue
            others = [(name, amount) for name, amount in zip(state.symbols, gross, strict=True)]
            of_symbol = sum(amount for name, amount in others if name == symbol)
            money = budget(self.request, number, leg.wanted, Room(equity, sum(gross), of_symbol))
            if money == 0.0:
                yield LedgerEvent(
                    "skipped", {"leg": number, "time": state.time, "reason": "no money is free"}
                )
            else:
                gross[number] += money
                side = 1 if leg.wanted > 0 else -1
                intent = _Intent("entry", "market", side, budget=plain(exact(money)))
                yield self._order(state, number, phase, intent)

    def _order(self, state: State, number: int, phase: Phase, intent: _Intent) -> LedgerEvent:
        assert state.time is not None
        nth = state.legs[number].number + intent.place
        order_id = client_order_id(state.session_id, state.time, number, intent.purpose, nth)
        document = {
            "id": order_id,
            "leg": number,
            "symbol": state.symbols[number],
            "side": intent.side,
            "type": intent.type,
            "purpose": intent.purpose,
            "after": state.time,
            "phase": phase,
        }
        amounts = {name: getattr(intent, name) for name in ("units", "budget", "price", "group")}
        order = Order.of(document | {name: value for name, value in amounts.items() if value is not None})
        return LedgerEvent("order", order.document(), key=f"order:{order_id}")


def status(name: Status, reason: str, then: Status | None = None) -> LedgerEvent:
    """Return the event of a change of status."""
    data = {"status": name, "reason": reason}
    return LedgerEvent("status", data if then is None else {**data, "then": then})
