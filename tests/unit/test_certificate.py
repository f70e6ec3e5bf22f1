"""What a certificate finds: each way in which a ledger may differ from its inputs or its backtest, and why."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from gpt_trader.bars import Bars
from gpt_trader.simulation import kernel
from gpt_trader.strategies.base import Strategy
from gpt_trader.trading import backtest
from gpt_trader.trading.certificate import Certificate, MissedBar, certify
from gpt_trader.trading.events import GENESIS, LedgerEvent, chained, unstamp
from gpt_trader.trading.feed import moments
from gpt_trader.trading.outcome import explained
from gpt_trader.trading.request import PaperTradeRequest
from tests.trading_samples import Given, Session, flat, random_session, scaled, traded, walk, warm_of

SEED = 4


def hash_of(events: Sequence[LedgerEvent]) -> str:
    found = GENESIS
    for event in events:
        found = chained(found, event)
    return found


def certified(
    request: PaperTradeRequest,
    strategies: Sequence[Strategy],
    bars: Mapping[str, Bars],
    events: Sequence[LedgerEvent],
    hash_: str | None = None,
) -> Certificate:
    return certify(request, strategies, warm_of(bars), events, hash_ or hash_of(events))


def the_session() -> tuple[PaperTradeRequest, list[Strategy], dict[str, Bars], list[LedgerEvent]]:
    request, strategies, bars = random_session(SEED)
    session = traded(request, strategies, bars)
    if not session.trader.state.over:
        session.trader.finish("completed", "its range has ended")
    return request, strategies, bars, session.events


def with_data(event: LedgerEvent, **changed: Any) -> LedgerEvent:
    return replace(event, data={**event.data, **changed})


def test_bars_that_came_too_late_are_counted_and_make_no_difference() -> None:
    request, strategies, bars = random_session(SEED)
    session = traded(request, strategies, {name: series[:-1] for name, series in bars.items()})
    (symbol, *_), after = bars, session.trader.state.time
    session.trader.missed(symbol, ["2010-01-02T00:00:00Z", "2010-01-03T00:00:00Z"])
    session.feed(moments(bars, unstamp(str(after))))
    found = certified(request, strategies, bars, session.events, session.trader.ledger.hash)
    assert (found.verdict, found.missed) == ("equal", 2)
    assert found.first_missed == MissedBar(symbol, "2010-01-02T00:00:00Z", str(after))
    assert any("2 bars came after later ones had been traded" in each for each in explained(found))
    changed = [event for event in session.events if event.type != "missed"]
    assert certified(request, strategies, bars, changed).missed == 0


def test_any_session_that_nothing_happened_to_is_equal() -> None:
    for seed in range(12):
        request, strategies, bars = random_session(seed, most_bars=50)
        session = traded(request, strategies, bars)
        found = certified(request, strategies, bars, session.events, session.trader.ledger.hash)
        assert (found.verdict, found.replay_equal, found.backtest_equal) == ("equal", True, True), seed
        assert (found.bars, found.fills) == (len(session.of("closed")), len(session.of("fill")))
        assert found.first_divergence is None
        assert found.as_dict()["verdict"] == "equal"


def test_an_opened_session_has_nothing_to_compare_yet() -> None:
    request, strategies, bars, events = the_session()
    found = certified(request, strategies, bars, events[:1])
    assert (found.verdict, found.backtest_equal, found.bars) == ("equal", None, 0)


def test_a_ledger_cut_off_at_any_commit_is_equal() -> None:
    request, strategies, bars, events = the_session()
    chance = random.Random(1)
    ends = [n + 1 for n, event in enumerate(events) if event.type == "closed"]
    for end in chance.sample(ends, 5):
        assert certified(request, strategies, bars, events[:end]).replay_equal


@pytest.mark.parametrize(
    ("type_", "changed"),
    [
        ("fill", {"price": "1"}),
        ("fill", {"units": "3"}),
        ("order", {"side": 1, "budget": "77"}),
        ("closed", {"equity": "1"}),
        ("wanted", {"target": 0.25}),
        ("accepted", {"id": "another"}),
    ],
)
def test_a_ledger_that_was_rewritten_with_its_hashes_diverges_from_its_inputs(
    type_: str, changed: dict[str, Any]
) -> None:
    request, strategies, bars, events = the_session()
    at = next(number for number, event in enumerate(events) if event.type == type_)
    events = [*events[:at], with_data(events[at], **changed), *events[at + 1 :]]
    found = certified(request, strategies, bars, events)
    assert (found.verdict, found.replay_equal) == ("diverged", False)
    assert found.first_divergence is not None
    assert (found.first_divergence.what, found.first_divergence.of) == ("event", "replay")
    assert found.first_divergence.reason == f"event {at + 1} of the ledger is not what its inputs lead to"
    assert found.first_divergence.session["event"] == type_


def test_a_ledger_without_one_of_its_events_diverges() -> None:
    request, strategies, bars, events = the_session()
    for type_ in ("fill", "order", "wanted"):
        at = next(number for number, event in enumerate(events) if event.type == type_)
        found = certified(request, strategies, bars, events[:at] + events[at + 1 :])
        assert (found.verdict, found.replay_equal) == ("diverged", False), type_


def test_another_hash_than_that_of_the_events_diverges() -> None:
    request, strategies, bars, events = the_session()
    found = certified(request, strategies, bars, events, "0" * 64)
    assert (found.verdict, found.replay_equal) == ("diverged", False)
    assert found.first_divergence is not None
    assert found.first_divergence.reason == "the ledger's hash is not that of its events"


def test_another_strategy_diverges_from_its_inputs() -> None:
    request, strategies, bars, events = the_session()
    others: list[Strategy] = [Given(seed=99, period=2, direction=request.direction) for _ in strategies]
    found = certified(request, others, bars, events)
    assert not found.replay_equal
    assert not found.backtest_equal


def test_other_fills_than_the_backtests_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker with other prices than the backtest's: here the backtest gets the worse ones."""
    request, strategies, bars, events = the_session()
    dearer = kernel.slipped
    monkeypatch.setattr(backtest.kernel, "slipped", dearer)
    whole = backtest.simulate

    def other(*given: Any) -> Any:
        found = whole(*given)
        fills = list(found.fills)
        fills[2] = replace(fills[2], price=fills[2].price * 1.001)
        return replace(found, fills=tuple(fills))

    monkeypatch.setattr(backtest, "simulate", other)
    found = certified(request, strategies, bars, events)
    assert (found.verdict, found.replay_equal, found.backtest_equal) == ("diverged", True, False)
    differs = found.first_divergence
    assert differs is not None
    assert (differs.what, differs.of, differs.reason) == ("fill", "backtest", "the fills differ")
    assert differs.session["price"] != differs.other["price"]


def test_another_equity_than_the_backtests_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    request, strategies, bars, events = the_session()
    whole = backtest.simulate

    def other(*given: Any) -> Any:
        found = whole(*given)
        equity = found.equity.copy()
        equity[5] *= 1 + 1e-7
        return replace(found, equity=equity)

    monkeypatch.setattr(backtest, "simulate", other)
    differs = certified(request, strategies, bars, events).first_divergence
    assert differs is not None
    assert (differs.what, differs.of) == ("equity", "backtest")
    assert differs.time == [event.data["time"] for event in events if event.type == "closed"][5]


def one(bars: Bars, wants: Sequence[float], **terms: Any) -> tuple[PaperTradeRequest, Given]:
    request = PaperTradeRequest(symbol="X", strategy="given", **{"commission": 0, "slippage": 0, **terms})
    return request, Given(wants=tuple(wants), direction=request.direction)


def test_a_pause_explains_why_the_backtest_is_another() -> None:
    bars = walk(20, 1)
    request, strategy = one(bars, [0, 1] * 10)
    session = Session.begun(request, [strategy], warm_of({"X": bars}))
    for number, moment in enumerate(moments({"X": bars})):
        if number in (5, 9):
            session.trader.command("pause" if number == 5 else "resume", "me")
        session.trader.step(moment)
    session.trader.command("pause", "me")
    session.trader.finish(
        "completed", "its range has ended"
    )  # right behind a command: it is the feed's doing
    found = certified(request, [strategy], {"X": bars}, session.events)
    assert (found.verdict, found.replay_equal, found.backtest_equal) == ("diverged", True, False)
    assert found.first_divergence is not None
    assert found.first_divergence.reason == "paused by me (2010-01-05, once more on 2010-01-20)"


@pytest.mark.parametrize(
    ("risk", "words"), [({"drawdown": 0.05}, "from its peak"), ({"daily_loss": 0.02}, "were lost on")]
)
def test_a_limit_explains_why_the_backtest_is_another(risk: dict[str, float], words: str) -> None:
    bars = flat([(price,) * 4 for price in (100, 100, 97, 90, 90, 95, 99, 99, 90, 90)])
    request, strategy = one(bars, [1, 0.5, 1, 0.5, 1, 0.5, 1, 0.5, 1, 1], risk=risk)
    session = traded(request, [strategy], {"X": bars})
    found = certified(request, [strategy], {"X": bars}, session.events)
    assert (found.replay_equal, found.backtest_equal) == (True, False)
    assert found.first_divergence is not None
    assert words in found.first_divergence.reason


def test_an_order_filled_in_parts_explains_why_the_backtest_is_another() -> None:
    bars = walk(20, 1)
    request, strategy = one(bars, [1] * 20, participation=2e-5)
    session = traded(request, [strategy], {"X": bars})
    found = certified(request, [strategy], {"X": bars}, session.events)
    assert (found.replay_equal, found.backtest_equal) == (True, False)
    assert found.first_divergence is not None
    assert "an order was filled in part" in found.first_divergence.reason


def test_all_that_no_backtest_knows_is_named_and_what_came_after_the_first_difference_as_such() -> None:
    bars = walk(24, 1)
    request, strategy = one(bars, [0, 1] * 12, participation=1e-4, capital=1e7)
    session = Session.begun(request, [strategy], warm_of({"X": bars}))
    for number, moment in enumerate(moments({"X": bars})):
        if number in (1, 6, 20):
            command = {1: "pause", 6: "resume", 20: "stop"}[number]
            session.trader.command(command, "me", flatten=command == "stop")
        if not session.trader.state.over:
            session.trader.step(moment)
    differs = certified(request, [strategy], {"X": bars}, session.events).first_divergence
    assert differs is not None
    known, _, later = differs.reason.partition("; later also ")
    assert known == "paused by me (2010-01-01)"
    part, closed = later.split("; ")
    assert part.startswith("an order was filled in part at 0.0001 of a bar's volume (2010-01-")
    assert " times more until 2010-01-" in part
    assert closed == "everything was closed: stopped by me (2010-01-20)"


def test_a_stop_by_command_is_equal_up_to_there() -> None:
    for flatten in (False, True):
        bars = walk(20, 1)
        request, strategy = one(bars, [1] * 20, stop_loss=0.5)
        session = Session.begun(request, [strategy], warm_of({"X": bars}))
        for number, moment in enumerate(moments({"X": bars})):
            if number == 10:
                session.trader.command("stop", "me", flatten=flatten)
            if not session.trader.state.over:
                session.trader.step(moment)
        assert session.trader.state.status == "stopped"
        found = certified(request, [strategy], {"X": bars}, session.events)
        assert found.replay_equal
        assert found.backtest_equal is not flatten  # a backtest knows of nobody who closes what is held


@pytest.mark.parametrize("commission", [0.001, {"per_unit": 0.01}])
def test_a_split_in_the_middle_is_equal_unless_costs_are_by_the_unit(commission: Any) -> None:
    bars = walk(40, 3)
    request, strategy = one(bars, ([1] * 6 + [0] * 3) * 5, commission=commission, stop_loss=0.3)
    session = Session.begun(request, [strategy], warm_of({"X": bars}))
    session.feed(moments({"X": bars[:22]}))
    assert session.trader.state.units_of("X") > Decimal(0)
    session.trader.rebase("X", 0.25)
    session.broker.restore(session.trader.state)
    session.feed(moments({"X": scaled(bars, 0.25)[22:]}))
    found = certified(request, [strategy], {"X": bars}, session.events)
    assert found.replay_equal
    if isinstance(commission, float):
        assert (found.verdict, found.first_divergence) == ("equal", None)
    else:
        assert found.first_divergence is not None
        assert found.first_divergence.reason.startswith(
            "prices of X were scaled by 0.25, and costs are by the unit ("
        )
