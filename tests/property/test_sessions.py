"""Sessions against their referees, and against kills and brokers that tell badly (faults rows 7, 9, 10, 15)."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt_trader.backtesting import engine
from gpt_trader.backtesting.execution import load_vectorbt
from gpt_trader.simulation import kernel
from gpt_trader.strategies.base import Strategy
from gpt_trader.strategies.breakout import Breakout
from gpt_trader.strategies.ma_crossover import MaCrossover
from gpt_trader.strategies.mean_reversion import MeanReversion
from gpt_trader.strategies.momentum import Momentum
from gpt_trader.trading import backtest, trader
from gpt_trader.trading.desk import Desk
from gpt_trader.trading.feed import moments
from gpt_trader.trading.ledger import Ledger
from gpt_trader.trading.orders import Fill, Order, exactly, paid
from gpt_trader.trading.paper_broker import PaperBroker
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.trading.state import State
from gpt_trader.trading.trader import Trader
from tests.examples import examples
from tests.trading_samples import (
    CrashPoints,
    Given,
    Killed,
    KilledJournal,
    Session,
    UnrulyBroker,
    folded,
    opening,
    paper_broker,
    random_request,
    random_session,
    strategies_for,
    traded,
    walk,
    warm_of,
)

SEEDS = st.integers(0, 10**6)
quickly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    load_vectorbt()  # seconds: not to be charged to an example
    bars = walk(10, 1)
    request = PaperTradeRequest(symbol="X", strategy="given")
    engine.simulate(bars, 0, Given(), request.backtest(request.legs[0]))


def same_fills(ours: Session, theirs: list[tuple[str, int, float, float, str]]) -> None:
    mine = ours.fills()
    assert [(f[0], f[1], f[4]) for f in mine] == [(f[0], f[1], f[4]) for f in theirs]
    amounts = [np.array([f[2:4] for f in fills] or [(0.0, 0.0)]) for fills in (mine, theirs)]
    np.testing.assert_allclose(*amounts, rtol=1e-9)


@settings(quickly, max_examples=examples(40))
@given(seed=SEEDS)
def test_one_leg_is_vectorbts_own_backtest(seed: int) -> None:
    chance = random.Random(seed)
    bars = walk(chance.randint(5, 150), seed, chance.choice([0.005, 0.03, 0.15]))
    first = chance.randint(0, 3)
    request = random_request(chance, ["X"], 1)
    request = request.model_copy(update={"legs": (request.legs[0].model_copy(update={"weight": 1.0}),)})
    strategies = strategies_for(request, chance)
    session = traded(request, strategies, {"X": bars}, first)
    found = engine.simulate(bars, first, strategies[0], request.backtest(request.legs[0]))
    np.testing.assert_allclose(session.equity, found.equity, rtol=1e-9, atol=1e-6)
    ours = sorted(
        (float(price), time) for time, _, _, price, purpose in session.fills() if purpose == "entry"
    )
    assert [price for price, _ in ours] == pytest.approx(sorted(t.entry_price for t in found.trades))
    assert len(session.fills()) == sum(1 if trade.exit_time is None else 2 for trade in found.trades)


@settings(quickly, max_examples=examples(40))
@given(seed=SEEDS, risk=st.sampled_from([{}, {"exposure": 0.6}, {"position": 0.3}]))
def test_several_legs_are_their_backtest_with_shared_cash(seed: int, risk: dict[str, float]) -> None:
    """And vectorbt has kept the books of it: a difference would raise."""
    request, strategies, bars = random_session(seed, risk=risk)
    session = traded(request, strategies, bars)
    found = backtest.simulate(request, strategies, bars, dict.fromkeys(bars, 0))
    np.testing.assert_allclose(session.equity, found.equity, rtol=1e-9, atol=1e-6)
    theirs = [(f.time, f.leg, f.units, f.price, f.purpose) for f in found.fills]
    same_fills(session, sorted(theirs, key=lambda fill: fill[:2]))


@settings(quickly, max_examples=examples(40))
@given(
    seed=SEEDS,
    strategy=st.sampled_from(
        [
            Momentum(lookback=9, threshold=0.01),
            MaCrossover(fast=3, slow=11),
            MeanReversion(period=8),
            Breakout(lookback=7),
        ]
    ),
)
def test_a_session_from_the_first_bar_there_is_is_its_backtest(seed: int, strategy: Strategy) -> None:
    """Where strategies know less than their warm-up, and decide nothing until they know it."""
    request = PaperTradeRequest(symbol="X", strategy=strategy.name)
    bars = walk(60, seed)
    session = traded(request, [strategy], {"X": bars}, 0)
    found = engine.simulate(bars, 0, strategy, request.backtest(request.legs[0]))
    np.testing.assert_allclose(session.equity, found.equity, rtol=1e-9, atol=1e-6)


def killed_now_and_then(seed: int, crash: CrashPoints, likely: float) -> tuple[Ledger, list[str]]:
    """Trade a session that is killed at random crash points and folded anew; return its ledger and order ids sent."""
    chance = random.Random(seed)
    more = {
        "participation": chance.choice([None, 1e-5, 3e-5]),
        "risk": chance.choice([{}, {"exposure": 0.6}, {"drawdown": 0.2}, {"daily_loss": 0.01}]),
    }
    request, strategies, bars = random_session(seed, most_bars=50, **more)
    crash.chance, crash.likely = random.Random(seed + 1), likely
    journal, warm, coming = KilledJournal(crash, random.Random(seed + 2)), warm_of(bars), list(moments(bars))
    sent: list[str] = []
    while True:
        broker = paper_broker(request)
        one = Trader(Desk(request, strategies), Ledger(warm), broker, journal)
        try:
            one.ledger.take_all(journal.events)
            if not journal.events:
                one.open(opening(request))
            broker.restore(one.state)
            one.resume()
            for moment in coming:
                if one.state.over:
                    break
                if one.state.time is None or moment.time > one.state.time:
                    one.step(moment)
            if not one.state.over:
                one.finish("completed", "its range has ended")
            one.flush()
        except Killed:
            journal.died()
            continue
        sent += [event.data["id"] for event in journal.events if event.type == "order"]
        return one.ledger, sent


def kills_change_nothing(
    seeds: range | list[int], monkeypatch: pytest.MonkeyPatch, likely: float
) -> tuple[int, int]:
    crash, equal = CrashPoints(), 0
    monkeypatch.setattr(trader, "crash_point", crash)
    for seed in seeds:
        undisturbed, _ = killed_now_and_then(seed, crash, 0.0)
        disturbed, sent = killed_now_and_then(seed, crash, likely)
        assert disturbed.hash == undisturbed.hash, f"seed {seed}"
        assert len(sent) == len(set(sent)), f"seed {seed}"
        equal += 1
    return equal, crash.kills


def test_killed_at_any_crash_point_it_has_the_same_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    equal, kills = kills_change_nothing(range(12), monkeypatch, 0.06)
    assert (equal, kills > 30) == (12, True)


@pytest.mark.slow
def test_sessions_killed_at_random_have_the_same_ledger(
    monkeypatch: pytest.MonkeyPatch, figure: Callable[[str], None]
) -> None:
    equal, kills = kills_change_nothing(range(1000, 1250), monkeypatch, 0.05)
    figure(f"250 sessions, {kills} kills at random commits and sends: same ledger hash {equal} / 250")
    assert kills > 1000


@settings(quickly, max_examples=examples(12))
@given(seed=SEEDS)
def test_a_state_is_its_document_and_a_fold_its_events_whatever_the_place(seed: int) -> None:
    request, strategies, bars = random_session(seed, most_bars=30, participation=2e-5)
    events = traded(request, strategies, bars).events
    ledger, at = Ledger(warm_of(bars)), random.Random(seed).randrange(len(events))
    for number, event in enumerate(events):
        ledger.take(event)
        assert State.of(ledger.state.document()) == ledger.state
        ledger.reconcile()
        if number == at:
            taken_up = Ledger.resumed(
                State.of(ledger.state.document()), ledger.history, ledger.hash, ledger.seq
            )
    with pytest.MonkeyPatch.context() as patch:  # the history of both is one: it is appended to once
        patch.setattr(taken_up.history, "append", lambda moment: None)
        taken_up.take_all(events[at + 1 :])
    assert (taken_up.state, taken_up.hash, taken_up.seq) == (ledger.state, ledger.hash, ledger.seq)
    taken_up.reconcile()


def truly_held(broker: UnrulyBroker, symbols: list[str], capital: str) -> tuple[dict[str, Decimal], Decimal]:
    held, cash = dict.fromkeys(symbols, Decimal(0)), Decimal(capital)
    with exactly():
        for fill in (each for each in broker.truth if isinstance(each, Fill)):
            held[fill.symbol] += fill.units
            cash += paid(fill.units, fill.price, fill.commission) + fill.write_off
    return held, cash


class Strict(PaperBroker):
    """A broker that is sent nothing before it is stored."""

    journal: KilledJournal

    def submit(self, order: Order) -> None:
        assert any(e.type == "order" and e.data["id"] == order.id for e in self.journal.events)
        super().submit(order)

    def cancel(self, order_id: str) -> None:
        assert any(e.type == "cancel" and e.data["id"] == order_id for e in self.journal.events)
        super().cancel(order_id)


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_sent_before_it_is_stored(seed: int) -> None:
    request, strategies, bars = random_session(seed, stop_loss=0.05, take_profit=0.05)
    broker = Strict(kernel.costs_of(request), request.participation)
    broker.journal = KilledJournal(lambda _name: None, random.Random(seed))
    one = Trader(Desk(request, strategies), Ledger(warm_of(bars)), broker, broker.journal)
    one.open(opening(request))
    broker.restore(one.state)
    for moment in moments(bars):
        if not one.state.over:
            one.step(moment)
    one.flush()
    assert one.state.orders
    assert len(broker.journal.events) == one.ledger.seq


def with_an_unruly_broker(seed: int, *, rude: bool) -> tuple[int, int, int]:
    """Check a session with such a broker; return its orders, its fills and how often it was resumed."""
    chance = random.Random(seed)
    more = {"participation": chance.choice([None, 3e-5]), "direction": "both", "commission": 0.001}
    request, strategies, bars = random_session(seed, most_bars=60, most_legs=3, **more)
    strategies = [  # in the second half of its bars nobody wants anything
        Given(wants=tuple(s.targets(bars[leg.symbol])[: len(bars[leg.symbol]) // 2]), direction="both")
        for s, leg in zip(strategies, request.legs, strict=True)
    ]
    broker = UnrulyBroker(request, seed, rude=rude)
    session = Session.begun(request, strategies, warm_of(bars), broker=broker)
    one, journal, resumed = session.trader, session.journal, 0

    def until_it_is_told(what: Callable[[], None]) -> None:
        """Do something; where a reply is lost the run ends, and another folds the ledger anew."""
        nonlocal one, resumed
        try:
            what()
        except TimeoutError:
            resumed += 1
            one = Trader(Desk(request, strategies), folded(journal.events, warm_of(bars)), broker, journal)
            broker.tell_again()
            until_it_is_told(one.resume)

    for moment in moments(bars):
        if one.state.over:
            break
        until_it_is_told(partial(one.step, moment))
    for _ in range(40):
        until_it_is_told(one.resume)
    held, cash = truly_held(broker, list(bars), repr(float(request.capital)))
    assert {symbol: one.state.units_of(symbol) for symbol in bars} == held, f"seed {seed}"
    assert one.state.cash == cash, f"seed {seed}"
    if not one.state.over:  # nobody has wanted anything for long
        assert not any(held.values()), f"seed {seed}"
    intents = [event.data["id"] for event in journal.events if event.type == "order"]
    assert len(intents) == len(set(intents))
    assert set(broker.submissions) <= set(intents), f"seed {seed}: an order without an intent"
    assert all(len(set(orders)) == 1 for orders in broker.submissions.values())
    times = [event.data["time"] for event in journal.events if event.type == "bars"]
    assert all(a < b for a, b in pairwise(times))
    executions = [event.data["execution_id"] for event in journal.events if event.type == "fill"]
    assert len(executions) == len(set(executions))
    return len(intents), len(executions), resumed


@settings(quickly, max_examples=examples(40))
@given(seed=SEEDS, rude=st.booleans())
def test_the_position_is_exact_however_badly_a_broker_tells(seed: int, rude: bool) -> None:
    with_an_unruly_broker(seed, rude=rude)


@pytest.mark.slow
def test_brokers_that_tell_badly_move_no_position(figure: Callable[[str], None]) -> None:
    orders = fills = resumed = 0
    for seed in range(500):
        found = with_an_unruly_broker(seed, rude=seed % 2 == 1)
        orders, fills, resumed = orders + found[0], fills + found[1], resumed + found[2]
    figure(
        f"500 sessions, late, doubled, reordered reports, {resumed} lost replies: {orders} orders, {fills} fills, "
        "position error 0, orders per intent ≤ 1"
    )
    assert resumed > 100
