"""The parts of a session: amounts, sizes, requests, the simulated broker, limits, commands, changes of scale."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from gpt_trader.backtesting import engine
from gpt_trader.errors import Conflict, GptTraderError, Refused
from gpt_trader.trading.events import BarRow, LedgerEvent, Moment, document, stamp, unstamp
from gpt_trader.trading.feed import moments
from gpt_trader.trading.ledger import Ledger
from gpt_trader.trading.orders import (
    Accepted,
    Ended,
    Fill,
    Order,
    client_order_id,
    exact,
    exactly,
    paid,
    plain,
)
from gpt_trader.trading.paper_broker import PaperBroker
from gpt_trader.trading.record import record
from gpt_trader.trading.request import Leg, PaperTradeRequest, RiskLimits
from gpt_trader.trading.sizing import Room, budget, ruin_prices
from gpt_trader.trading.state import State
from gpt_trader.validation import validated
from tests.trading_samples import (
    Given,
    Session,
    flat,
    one_leg,
    opening,
    paper_broker,
    random_request,
    random_session,
    scaled,
    strategies_for,
    traded,
    walk,
    warm_of,
)

Row = tuple[float, float, float, float]


def same(price: float) -> Row:
    return (price, price, price, price)


# Amounts.


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        (-0.0, "0"),
        (1e22, "10000000000000000000000"),
        (100.0, "100"),
        (-12.50, "-12.5"),
    ],
)
def test_a_number_is_written_plainly_and_given_back(value: float, text: str) -> None:
    assert plain(exact(value)) == text
    assert float(text) == value


def test_money_is_added_up_exactly() -> None:
    """Python's own 28 digits would round these, even on a change of sign."""
    units, price = exact(0.1234567890123456), exact(98765.43210987654)
    with exactly():
        assert paid(units, price, Decimal(0)) + units * price == 0
        assert len((units * price).as_tuple().digits) > 28
    assert paid(Decimal(-2), Decimal("10.5"), Decimal("0.3")) == Decimal("20.7")


def test_an_order_has_one_id_for_one_decision() -> None:
    given: list[Any] = ["s", "2020-01-01T00:00:00Z", 0, "entry", 1]
    ids = {client_order_id(*given)}
    for place, other in enumerate(["t", "2020-01-02T00:00:00Z", 1, "target", 2]):
        ids.add(client_order_id(*given[:place], other, *given[place + 1 :]))
    assert len(ids) == 6
    assert client_order_id(*given) in ids


def test_times_are_written_to_the_second_or_as_fine_as_they_are() -> None:
    for text in ("2020-01-01T00:00:00Z", "2020-01-01T09:30:00.000001Z"):
        assert stamp(unstamp(text)) == text


# Sizes.


def sized(weight: float = 0.5, **risk: float) -> PaperTradeRequest:
    return PaperTradeRequest(
        legs=[{"symbol": "A", "strategy": "given", "weight": weight}], size=0.8, risk=RiskLimits(**risk)
    )


@pytest.mark.parametrize(
    ("risk", "room", "money"),
    [
        ({}, Room(1000, 0, 0), 400),
        ({}, Room(1000, 900, 0), 100),
        ({}, Room(1000, 1000, 0), 0),
        ({}, Room(1000, 1000 - 1e-8, 0), 0),  # rounding is no money
        ({"exposure": 0.5}, Room(1000, 300, 0), 200),
        ({"position": 0.3}, Room(1000, 300, 100), 200),
        ({"position": 0.3}, Room(1000, 300, 400), 0),
        ({}, Room(0, 0, 0), 0),
    ],
)
def test_an_entry_gets_its_share_of_what_is_free(risk: dict[str, float], room: Room, money: float) -> None:
    assert budget(sized(**risk), 0, -1.0, room) == pytest.approx(money)
    assert budget(sized(**risk), 0, 0.5, room) == pytest.approx(min(money, 200))


@pytest.mark.parametrize(
    "held", [[(10.0, 5.0)], [(-10.0, 25.0)], [(10.0, 5.0), (-3.0, 50.0)], [(1.0, 2.0), (2.0, 3.0)]]
)
def test_a_ruin_leaves_nothing(held: list[tuple[float, float]]) -> None:
    cash = -sum(units * price for units, price in held) - 3.0
    prices = ruin_prices(cash, held)
    assert all(price > 0 for price in prices)
    left = cash + sum(units * price for (units, _), price in zip(held, prices, strict=True))
    assert left == pytest.approx(0.0) or prices == [price for _, price in held]


# Requests.


def test_short_forms_make_legs() -> None:
    one = PaperTradeRequest(symbol="AAPL", strategy="ma_crossover", params={"fast": 5})
    assert one.legs == (Leg(symbol="AAPL", strategy="ma_crossover", params={"fast": 5}, weight=1.0),)
    two = validated(PaperTradeRequest, {"symbol": ["AAPL", "IBM"], "strategy": "ma_crossover"})
    assert [(leg.symbol, leg.strategy, leg.weight) for leg in two.legs] == [
        ("AAPL", "ma_crossover", 0.5),
        ("IBM", "ma_crossover", 0.5),
    ]
    shared = validated(
        PaperTradeRequest,
        {
            "strategy": "ma_crossover",
            "legs": [{"symbol": "AAPL", "weight": 0.7}, {"symbol": "IBM", "strategy": "rsi"}],
        },
    )
    assert [(leg.strategy, leg.weight) for leg in shared.legs] == [
        ("ma_crossover", 0.7),
        ("rsi", pytest.approx(0.3)),
    ]
    assert validated(PaperTradeRequest, one.model_dump(mode="json")) == one


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({}, "legs", "name a symbol"),
        ({"symbol": 5}, "request", "give a symbol"),
        ({"legs": 5, "strategy": "momentum"}, "legs", "tuple|list"),
        ({"legs": "AAPL", "strategy": "momentum"}, "legs", "tuple|list"),
        ({"symbol": "A", "legs": [{"symbol": "B"}]}, "request", "leave symbol out"),
        ({"legs": [{"symbol": "A"}, {"symbol": "A"}]}, "legs", "given twice"),
        ({"legs": [{"symbol": "A", "weight": 0.6}, {"symbol": "B", "weight": 0.5}]}, "legs", "add up to 1.1"),
        ({"legs": [{"symbol": "A", "weight": 1}, {"symbol": "B"}]}, "legs", "would get nothing"),
        ({"symbol": "A", "size": 1.5}, "size", "1"),
        ({"symbol": "A", "feed": "reply"}, "feed", "replay"),
        ({"symbol": "A", "speed": 0}, "speed", "greater|max"),
        ({"symbol": "A", "feed": "schedule", "speed": 5}, "request", "speed is for feed replay"),
        ({"symbol": "A", "feed": "schedule", "end": "2020-01-01"}, "request", "end is for feed replay"),
        ({"symbol": "A", "risk": {"drawdown": 0}}, "risk.drawdown", "greater"),
        ({"symbol": "A", "stoploss": 0.1}, "stoploss", "stop_loss"),
        ({"session": "11111111-2222-3333-4444-555555555555", "symbol": "A"}, "legs", "leave them out"),
    ],
)
def test_a_request_that_is_wrong_says_where_and_what_is_allowed(
    values: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(Refused) as refusal:
        validated(PaperTradeRequest, values)
    said = [
        (problem.field, f"{problem.message} {problem.allowed} {problem.nearest}")
        for problem in refusal.value.problems
    ]
    assert any(name.startswith(field) for name, _ in said), said
    assert any(re.search(words, text) for _, text in said), said


# The simulated broker.


class Market:
    """A broker with one account and bars to come, for orders by hand."""

    def __init__(self, cash: float = 10_000, units: float = 0, **terms: Any) -> None:
        self.request = PaperTradeRequest(
            symbol="X", strategy="given", **{"commission": 0, "slippage": 0, "capital": cash, **terms}
        )
        self.broker: PaperBroker = paper_broker(self.request)
        ledger = Ledger({})
        ledger.take(opening(self.request))
        ledger.state.legs[0].units = exact(float(units))
        ledger.state.closes["X"] = 100.0
        self.broker.restore(ledger.state)
        self.day = 0

    def send(self, id_: str, type_: str, side: int, price: float | None = None, **more: Any) -> None:
        amounts = {name: exact(float(value)) for name, value in more.items() if name in ("units", "budget")}
        purpose = more.get("purpose", "entry" if "budget" in more else "target")
        self.broker.submit(
            Order(
                id_,
                0,
                "X",
                side,
                type_,
                purpose,
                self.time(),
                "close",  # type: ignore[arg-type]
                price=None if price is None else exact(price),
                group=more.get("group"),
                **amounts,
            )
        )

    def time(self) -> str:
        return f"2020-01-{self.day + 1:02}T00:00:00Z"

    def bar(self, open_: float, high: float, low: float, close: float, volume: float = 1e6) -> list[Any]:
        """Let a bar pass; return what is reported but for acceptances: (order, units, price), or (order, state)."""
        self.day += 1
        moment = Moment(self.time(), {"X": BarRow(open_, high, low, close, volume)})
        self.broker.auction(moment)
        self.broker.range(moment)
        return [
            (r.order_id, float(r.units), float(r.price)) if isinstance(r, Fill) else (r.order_id, r.state)
            for r in self.broker.reports()
            if not isinstance(r, Accepted)
        ]


def test_a_market_order_fills_at_the_next_open() -> None:
    market = Market(commission=0.001, slippage=0.01)
    market.send("a", "market", 1, budget=1011.01)
    assert market.broker.reports() == [Accepted("a")]
    ((_, units, price),) = market.bar(100, 110, 90, 105)
    assert (units, price) == (pytest.approx(10), pytest.approx(101))
    market.send("b", "market", -1, units=-units)
    assert market.bar(100, 110, 90, 105) == [("b", -units, pytest.approx(99))]


@pytest.mark.parametrize(
    ("type_", "side", "price", "bar", "filled"),
    [
        ("limit", 1, 95, (100, 101, 96, 99), None),
        ("limit", 1, 95, (100, 101, 94, 99), 95),
        ("limit", 1, 95, (90, 101, 89, 99), 90),
        ("limit", -1, 105, (100, 106, 99, 99), 105),
        ("limit", -1, 105, (110, 111, 99, 99), 110),
        ("stop", -1, 95, (100, 101, 95, 99), 95),
        ("stop", -1, 95, (90, 101, 89, 99), 90),
        ("stop", -1, 95, (100, 101, 96, 99), None),
        ("stop", 1, 105, (100, 106, 99, 99), 105),
        ("stop", 1, 105, (107, 108, 99, 99), 107),
        ("touched", -1, 105, (100, 106, 99, 99), 105),
        ("touched", -1, 105, (107, 108, 99, 99), 107),
        ("touched", 1, 95, (100, 101, 94, 99), 95),
        ("touched", 1, 95, (100, 101, 96, 99), None),
    ],
)
def test_an_order_with_a_price_fills_where_it_should(
    type_: str, side: int, price: float, bar: Row, filled: float | None
) -> None:
    market = Market(units=-side * 5)
    market.send("a", type_, side, price, units=side * 5)
    assert market.bar(*bar) == ([] if filled is None else [("a", side * 5, filled)])


def test_a_limit_is_never_filled_worse_and_the_others_slip() -> None:
    for type_, price in (("limit", 105.0), ("touched", 105.0 * 0.99)):
        market = Market(units=5, slippage=0.01)
        market.send("a", type_, -1, 105, units=-5)
        assert market.bar(100, 106, 99, 99) == [("a", -5, pytest.approx(price))]


def test_stops_begin_to_watch_with_the_bar_after() -> None:
    market = Market(units=5)
    market.day = 1
    market.send("a", "stop", -1, 95, units=-5)
    market.day = 0
    assert market.bar(100, 101, 90, 99) == []
    assert market.bar(100, 101, 90, 99) == [("a", -5, 95)]


def test_of_a_group_the_first_that_fills_ends_the_other_and_the_loss_comes_before_the_profit() -> None:
    market = Market(units=5)
    market.send("profit", "touched", -1, 105, units=-5, group="g")
    market.send("loss", "stop", -1, 95, units=-5, group="g")
    assert market.bar(100, 106, 94, 99) == [("loss", -5, 95), ("profit", "cancelled")]
    assert market.bar(100, 106, 94, 99) == []


def test_a_share_of_the_volume_fills_an_order_bar_by_bar() -> None:
    market = Market(cash=10_000, participation=0.1)
    market.send("a", "market", 1, budget=3000)
    assert market.bar(100, 100, 100, 100, volume=100) == [("a", 10, 100)]
    assert market.bar(100, 100, 100, 100, volume=0) == []
    assert market.bar(100, 100, 100, 100, volume=150) == [("a", 15, 100)]
    assert market.bar(100, 100, 100, 100, volume=1000) == [("a", pytest.approx(5), 100)]
    assert market.bar(100, 100, 100, 100, volume=1000) == []


def test_a_stop_that_has_gone_off_is_filled_on_whatever_the_price_then() -> None:
    market = Market(units=20, participation=0.1)
    market.send("a", "stop", -1, 95, units=-20)
    assert market.bar(100, 101, 94, 99, volume=100) == [("a", -10, 95)]
    assert market.bar(120, 121, 119, 120, volume=500) == [("a", -10, 120)]


def test_what_cannot_be_paid_is_rejected() -> None:
    market = Market(cash=100, commission={"per_order": 50.0})
    market.send("dust", "market", 1, budget=60)
    ((order, state),) = market.bar(100, 100, 100, 100)
    assert (order, state) == ("dust", "rejected")
    market = Market(cash=100)
    market.send("dear", "market", 1, budget=500)
    assert market.bar(100, 100, 100, 100) == [("dear", "rejected")]


def test_cancelling_and_sending_again() -> None:
    market = Market(units=5)
    market.send("a", "stop", -1, 95, units=-5)
    market.send("a", "stop", -1, 95, units=-5)
    market.broker.cancel("a")
    market.broker.cancel("a")
    market.broker.cancel("unknown")
    assert [type(report) for report in market.broker.reports()] == [Accepted, Ended]
    assert market.bar(100, 101, 90, 99) == []


def test_an_account_that_has_lost_everything_is_closed_at_exactly_nothing() -> None:
    session = one_leg(
        [same(100), same(100), same(100), same(250), same(250)], [-1, -1, -1, -1, -1], direction="short"
    )
    assert [fill["purpose"] for fill in session.of("fill")] == ["entry", "ruin"]
    state = session.trader.state
    assert (state.status, state.cash, state.units_of("X"), state.worth()) == ("halted", 0, 0, 0)


# Limits and commands.

FALLING = [same(price) for price in (100, 100, 95, 94, 93, 93, 93, 93)]


def statuses(session: Session) -> list[tuple[str, str | None]]:
    return [(each["status"], each.get("then")) for each in session.of("status", "finished")]


def test_a_drawdown_closes_everything_and_halts() -> None:
    session = one_leg(FALLING, [1] * 8, risk={"drawdown": 0.06})
    assert statuses(session) == [("closing", "halted"), ("halted", None)]
    assert [fill["purpose"] for fill in session.of("fill")] == ["entry", "flatten"]
    assert session.of("fill")[1]["price"] == "93"
    assert session.of("status")[0]["reason"] == "the equity fell 6.00% from its peak, the limit is 6.00%"
    with pytest.raises(Conflict, match="halted"):
        session.trader.step(Moment("2030-01-01T00:00:00Z", {}))


def test_a_days_loss_keeps_entries_back_until_another_day() -> None:
    wants = [1, 0, 1, 1, 1, 1, 1, 1]
    free, limited = one_leg(FALLING, wants), one_leg(FALLING, wants, risk={"daily_loss": 0.03})
    days = [[fill["time"][:10] for fill in each.of("fill")] for each in (free, limited)]
    assert days == [["2010-01-02", "2010-01-03", "2010-01-04"], ["2010-01-02", "2010-01-03", "2010-01-05"]]
    assert statuses(limited) == [("reducing", None), ("active", None)]
    assert limited.of("status")[0]["reason"] == "5.00% were lost on 2010-01-03, the limit is 3.00%"


def test_a_days_loss_holds_for_the_whole_day_even_if_it_is_made_good() -> None:
    bars = flat([same(price) for price in (100, 100, 90, 100, 100, 100, 100)])
    time = np.datetime64("2010-01-01T20", "us") + np.arange(7) * np.timedelta64(1, "h")
    request = PaperTradeRequest(
        symbol="X", strategy="given", commission=0, slippage=0, timeframe="1h", risk={"daily_loss": 0.05}
    )
    session = traded(request, [Given(wants=(1,) * 7)], {"X": replace(bars, time=time, timeframe="1h")})
    assert [(each["status"], each["reason"]) for each in session.of("status")] == [
        ("reducing", "10.00% were lost on 2010-01-01, the limit is 5.00%"),
        ("active", "another day"),
    ]
    bar_of = [
        e.data["time"] if e.type == "closed" else e.data["status"]
        for e in session.events
        if e.type in ("closed", "status")
    ]
    assert bar_of[bar_of.index("active") - 1] == "2010-01-02T00:00:00Z"


def commanded(*commands: tuple[int, str, bool], wants: Sequence[float] = (0, 1, 1, 1, 1, 1)) -> Session:
    """Trade a leg at 100, with commands before the bars of these numbers."""
    request = PaperTradeRequest(symbol="X", strategy="given", commission=0, slippage=0, stop_loss=0.5)
    session = Session.begun(request, [Given(wants=tuple(wants))], warm_of({"X": flat([same(100)])}))
    for number, moment in enumerate(moments({"X": flat([same(100)] * 6)})):
        for at, name, flatten in commands:
            if at == number:
                session.trader.command(name, "me", flatten=flatten, key=f"command:{at}{name}")
        if not session.trader.state.over:
            session.trader.step(moment)
    return session


def test_a_pause_keeps_entries_back_and_leaves_stops() -> None:
    assert [e["purpose"] for e in commanded((1, "pause", False)).of("order")] == []
    session = commanded((1, "pause", False), (4, "resume", False))
    assert [e["purpose"] for e in session.of("order")] == ["entry", "stop_loss"]
    assert session.of("order")[0]["after"] == "2010-01-04T00:00:00Z"  # at once, not at the next close
    assert [event.key for event in session.events if event.type == "command"] == [
        "command:1pause",
        "command:4resume",
    ]


def test_a_stop_leaves_or_closes_what_is_held() -> None:
    left = commanded((4, "stop", False))
    assert (left.trader.state.status, bool(left.trader.state.units_of("X"))) == ("stopped", True)
    assert not left.trader.state.working
    flat_ = commanded((4, "stop", True))
    assert (flat_.trader.state.status, flat_.trader.state.units_of("X")) == ("stopped", 0)
    assert [fill["purpose"] for fill in flat_.of("fill")] == ["entry", "flatten"]
    with pytest.raises(Conflict, match="no commands"):
        flat_.trader.command("pause", "me")


def test_a_pause_while_a_days_loss_holds_is_kept() -> None:
    request = PaperTradeRequest(
        symbol="X", strategy="given", commission=0, slippage=0, capital=1000, risk={"daily_loss": 0.03}
    )
    session = Session.begun(request, [Given(wants=(1, 1, 1, 1, 0.5, 0.5, 1, 1))], {"X": flat([same(1)])[:0]})
    for number, moment in enumerate(moments({"X": flat(FALLING)})):
        if number == 3:
            assert session.trader.state.status == "reducing"
            session.trader.command("pause", "me")
        session.trader.step(moment)
    assert session.trader.state.status == "paused"
    assert [fill["purpose"] for fill in session.of("fill")] == ["entry", "target"]


def test_a_strategy_that_raises_is_named() -> None:
    class Broken(Given):
        def targets(self, bars: Any, first: int = 0) -> Any:
            raise ZeroDivisionError("oh")

    request = PaperTradeRequest(symbol="X", strategy="given")
    with pytest.raises(GptTraderError, match="given on X raised ZeroDivisionError: oh"):
        traded(request, [Broken()], {"X": flat([same(100)])})


# What a broker may do to a session.


class Hand:
    """A broker that reports what a test says."""

    venue = "hand"

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.sent: list[Order] = []
        self.cancelled: list[str] = []

    def restore(self, state: State) -> None: ...

    def submit(self, order: Order) -> None:
        self.sent.append(order)

    def cancel(self, order_id: str) -> None:
        self.cancelled.append(order_id)

    def reports(self) -> list[Any]:
        told, self.told = self.told, []
        return told

    def auction(self, moment: Moment) -> None: ...

    def range(self, moment: Moment) -> None: ...

    def fill(self, order: Order, units: float, execution: str, *, complete: bool = True) -> None:
        amounts = (exact(float(units)), Decimal(100), Decimal(100), Decimal(0))
        self.told.append(
            Fill(order.id, execution, "2020", order.leg, order.symbol, *amounts, order.purpose, complete)
        )


class ByHand:
    """A session with such a broker, a bar at a time."""

    def __init__(self, wants: Sequence[float], **terms: Any) -> None:
        request = PaperTradeRequest(
            symbol="X", strategy="given", direction="both", commission=0, slippage=0, capital=1000, **terms
        )
        self.broker = Hand()
        strategy = Given(wants=tuple(wants), direction="both")
        self.session = Session.begun(request, [strategy], {"X": flat([same(1)])[:0]}, broker=self.broker)
        self.coming = moments({"X": flat([same(100)] * 12)})
        self.state = self.session.trader.state

    def bar(self) -> list[Order]:
        """Pass a bar; return what was sent in it."""
        before = len(self.broker.sent)
        self.session.trader.step(next(self.coming))
        return self.broker.sent[before:]


def test_a_fill_that_is_told_twice_is_one() -> None:
    hand = ByHand([1] * 12)
    (entry,) = hand.bar()
    hand.broker.fill(entry, 4, "e1", complete=False)
    hand.broker.fill(entry, 4, "e1", complete=False)
    hand.bar()
    hand.broker.fill(entry, 6, "e2")
    hand.broker.fill(entry, 4, "e1", complete=False)
    hand.bar()
    assert (hand.state.units_of("X"), hand.state.cash, hand.state.fills) == (10, 0, 2)
    with pytest.raises(ValueError, match="told twice"):
        hand.state.evolve(LedgerEvent("fill", hand.session.of("fill")[0]))


def test_the_last_part_may_come_before_the_others_and_stops_are_for_all_of_it() -> None:
    hand = ByHand([1] * 12, stop_loss=0.1)
    (entry,) = hand.bar()
    hand.broker.fill(entry, 6, "e2")
    (stop,) = hand.bar()
    assert stop.units == -6
    hand.broker.fill(entry, 4, "e1", complete=False)
    assert hand.bar() == []
    assert hand.broker.cancelled == [stop.id]
    hand.broker.told.append(Ended(stop.id, "cancelled", "asked for"))
    (stop,) = hand.bar()
    assert stop.units == -10
    assert hand.state.units_of("X") == 10


def test_an_order_that_was_filled_while_it_was_cancelled_is_undone() -> None:
    hand = ByHand([1, 0] + [0] * 10)
    (entry,) = hand.bar()
    assert hand.bar() == []
    assert hand.broker.cancelled == [entry.id]
    hand.broker.told.append(Ended(entry.id, "cancelled", "asked for"))
    hand.bar()
    hand.broker.fill(entry, 10, "late")
    (undone,) = hand.bar()
    assert (undone.purpose, undone.units) == ("target", -10)
    hand.broker.fill(undone, -10, "out")
    assert hand.bar() == []
    assert (hand.state.units_of("X"), hand.state.cash) == (0, 1000)


def test_two_stops_that_both_fill_leave_no_position() -> None:
    hand = ByHand([1] * 12, stop_loss=0.1, take_profit=0.1)
    (entry,) = hand.bar()
    hand.broker.fill(entry, 10, "e")
    loss, profit = hand.bar()
    hand.broker.fill(loss, -10, "l")
    hand.broker.fill(profit, -10, "p")
    (back,) = hand.bar()
    assert (back.purpose, back.units, back.side) == ("target", 10, 1)
    hand.broker.fill(back, 10, "b")
    hand.bar()
    assert hand.state.units_of("X") == 0
    assert not hand.state.legs[0].due  # out, as after any stop, until its strategy wants something else
    (first, second) = record(hand.session.events, hand.state.closes).trades
    assert (first.side, first.size, second.side, second.size) == (1, 10, -1, 10)


def test_reports_of_unknown_orders_change_nothing() -> None:
    hand = ByHand([1] * 12)
    (entry,) = hand.bar()
    hand.bar()
    before, events = hand.state.document(), len(hand.session.events)
    hand.broker.told += [Accepted("strange"), Ended("strange", "cancelled", "x")]
    hand.session.trader.resume()
    assert (hand.state.document(), len(hand.session.events)) == (before, events)
    assert hand.broker.sent == [entry, entry]  # not accepted yet: sent again under its id


def test_a_rejected_entry_is_not_tried_again_and_a_rejected_exit_halts() -> None:
    hand = ByHand([1] * 6 + [0] * 6)
    (entry,) = hand.bar()
    hand.broker.told.append(Ended(entry.id, "rejected", "no funds"))
    assert [hand.bar() for _ in range(4)] == [[]] * 4
    assert hand.state.status == "active"
    hand = ByHand([1, 1, 0] + [0] * 9)
    (entry,) = hand.bar()
    hand.broker.fill(entry, 10, "e")
    hand.bar()
    (out,) = hand.bar()
    hand.broker.told.append(Ended(out.id, "rejected", "halted"))
    assert hand.bar() == []
    assert (hand.state.status, hand.state.units_of("X")) == ("halted", 10)
    assert "an order to close a position was rejected: halted" in hand.state.reason


def test_a_position_whose_stop_is_rejected_is_closed() -> None:
    hand = ByHand([1] * 12, stop_loss=0.1)
    (entry,) = hand.bar()
    hand.broker.fill(entry, 10, "e")
    (stop,) = hand.bar()
    hand.broker.told.append(Ended(stop.id, "rejected", "no stops here"))
    (out,) = hand.bar()
    assert (out.purpose, out.units) == ("flatten", -10)
    hand.broker.fill(out, -10, "o")
    hand.bar()
    assert (hand.state.status, hand.state.units_of("X")) == ("halted", 0)
    assert "no stops here" in hand.state.reason


# What a ledger shows.


def test_a_record_has_the_backtests_trades_and_metrics() -> None:
    for seed in range(8):
        chance = random.Random(seed)
        request = random_request(chance, ["X"], 1)
        request = request.model_copy(update={"legs": (request.legs[0].model_copy(update={"weight": 1.0}),)})
        strategies, bars = strategies_for(request, chance), walk(80, seed)
        session = traded(request, strategies, {"X": bars})
        found = record(session.events, session.trader.state.closes)
        theirs = engine.simulate(bars, 0, strategies[0], request.backtest(request.legs[0]))
        assert len(found.trades) == len(theirs.trades)
        for mine, other in zip(found.trades, theirs.trades, strict=True):
            for name in ("side", "entry_time", "exit_time", "exit_reason", "bars"):
                assert getattr(mine, name) == getattr(other, name), (seed, name)
            for name in ("size", "entry_price", "exit_price", "entry_costs", "exit_costs", "pnl", "return_"):
                assert getattr(mine, name) == pytest.approx(getattr(other, name), rel=1e-8, abs=1e-7), (
                    seed,
                    name,
                )
        metrics = found.metrics(10_000, 252)
        assert metrics is not None
        ours = metrics.as_dict()
        for name, value in theirs.metrics.as_dict().items():
            assert ours[name] == (value if value is None else pytest.approx(value, rel=1e-7, abs=1e-9)), (
                seed,
                name,
            )
    assert record([], {}).metrics(1, 252) is None


def test_a_split_changes_units_and_prices_and_no_value() -> None:
    bars = walk(30, 5)
    halves = scaled(bars, 0.5)
    request = PaperTradeRequest(symbol="X", strategy="given", stop_loss=0.2, take_profit=0.5)
    strategy = Given(wants=(1,) * 30)
    session = Session.begun(request, [strategy], warm_of({"X": bars}))
    session.feed(moments({"X": bars[:10]}))
    state = session.trader.state
    units, worth, entry = state.units_of("X"), state.worth(), state.legs[0].entry_price
    stops = {each.order.purpose: each.order for each in state.working.values()}
    session.trader.rebase("X", 0.5)
    session.broker.restore(state)
    assert float(state.units_of("X")) == pytest.approx(2 * float(units), rel=1e-15)
    assert float(state.worth()) == pytest.approx(float(worth), rel=1e-14)
    assert entry is not None
    assert float(state.legs[0].entry_price or 0) == pytest.approx(float(entry) / 2)
    for each in state.working.values():
        before = stops[each.order.purpose]
        assert float(each.order.units or 0) == pytest.approx(2 * float(before.units or 0))
        assert float(each.order.price or 0) == pytest.approx(float(before.price or 0) / 2)
    session.feed(moments({"X": halves[10:]}))
    undisturbed = traded(request, [strategy], {"X": halves})
    np.testing.assert_allclose(session.equity, undisturbed.equity, rtol=1e-12)
    session.trader.ledger.reconcile()
    last = record(session.events, state.closes).trades[-1]
    other = record(undisturbed.events, undisturbed.trader.state.closes).trades[-1]
    assert (last.size, last.pnl) == (pytest.approx(other.size), pytest.approx(other.pnl))


def test_bars_of_several_symbols_are_merged_by_time() -> None:
    _, _, bars = random_session(3)
    merged = list(moments(bars))
    assert [m.time for m in merged] == sorted({stamp(t) for each in bars.values() for t in each.time})
    assert sum(len(m.bars) for m in merged) == sum(len(each) for each in bars.values())
    behind = unstamp(merged[4].time)
    assert list(moments(bars, behind)) == merged[5:]
    assert list(moments({})) == []


def test_a_ledger_that_does_not_add_up_is_not_committed() -> None:
    session = one_leg([same(100)] * 4, [1, 1, 0, 0])
    ledger = session.trader.ledger
    ledger.reconcile()
    ledger.state.cash += Decimal("0.00000001")
    with pytest.raises(GptTraderError, match="does not add up: cash is"):
        ledger.reconcile()
    ledger.state.cash -= Decimal("0.00000001")
    ledger.state.legs[0].units += 1
    with pytest.raises(GptTraderError, match="of X are held"):
        ledger.reconcile()


@pytest.mark.parametrize(
    "value", [0.1 + 0.2, 1e16, 1e-7, -0.0, 5e-324, 2**80, None, "null", 'ü€😀"\\\0', "\ud83d", (1, [2.5])]
)
def test_an_event_s_content_is_read_as_it_was(value: Any) -> None:
    content = json.loads(document(LedgerEvent("command", {"b": value, "a": 1})))
    assert list(content) == ["b", "a"]
    assert repr(content["b"]) == repr(list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_event_with_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        document(LedgerEvent("command", {"a": [{"b": value}]}))
