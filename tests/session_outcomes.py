"""Paper sessions in memory, traded by the real desk and the simulated broker, as the report takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gpt_trader.bars import Bars
from gpt_trader.instruments import Instrument
from gpt_trader.simulation import kernel
from gpt_trader.strategies import registry
from gpt_trader.trading.certificate import certify
from gpt_trader.trading.desk import Desk
from gpt_trader.trading.events import LedgerEvent
from gpt_trader.trading.feed import moments
from gpt_trader.trading.ledger import Ledger, MemoryJournal
from gpt_trader.trading.orders import exact, plain
from gpt_trader.trading.outcome import Outcome
from gpt_trader.trading.paper_broker import PaperBroker
from gpt_trader.trading.record import record
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.trading.trader import Trader
from gpt_trader.validation import validated

WARM = 60

#: Done to the trader before the bar of its number.
Between = Mapping[int, Callable[[Trader], None]]


def walk(symbol: str, n: int = 260, seed: int = 3) -> Bars:
    """Return daily bars of a seeded walk."""
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0.0005, 0.02, n)))
    open_ = close * np.exp(random.normal(0, 0.004, n))
    days = np.datetime64("2010-01-04", "us") + np.arange(n) * np.timedelta64(1, "D")
    high, low = np.maximum(open_, close) * 1.01, np.minimum(open_, close) * 0.99
    stock = Instrument(symbol=symbol, venue="XNAS", calendar="XNYS")
    return Bars(stock, "1d", days, open_, high, low, close, np.full(n, 1e4), logical_hash=symbol)


def outcome(
    *, bars: int = 200, between: Between | None = None, name: str = "a session", **asked: Any
) -> Outcome:
    """Trade so many bars of walks of the symbols that are asked for (default: momentum on TEST) and return it."""
    request = validated(PaperTradeRequest, asked if "legs" in asked else {"symbol": "TEST", **asked})
    series = {s: walk(s, WARM + bars, seed) for seed, s in enumerate(request.symbols, 3)}
    warm = {symbol: each[:WARM] for symbol, each in series.items()}
    strategies = [
        registry.build(registry.strategy_type(leg.strategy), leg.params, request.direction)
        for leg in request.legs
    ]
    ledger, journal = Ledger(warm), MemoryJournal()
    broker = PaperBroker(kernel.costs_of(request), request.participation)
    trader = Trader(Desk(request, strategies), ledger, broker, journal)
    capital = plain(exact(float(request.capital)))
    opening = {"schema_version": 1, "session_id": "0d2c8f6e", "capital": capital}
    trader.open(LedgerEvent("opened", {**opening, "request": request.model_dump(mode="json")}, key="opened"))
    broker.restore(ledger.state)
    for number, moment in enumerate(moments({symbol: each[WARM:] for symbol, each in series.items()})):
        if between and number in between:
            between[number](trader)
        if trader.state.over:
            break
        trader.step(moment)
    if bars and not trader.state.over:
        trader.finish("completed", "its range has ended")
    found = record(journal.events, ledger.state.closes)
    return Outcome(
        name=name,
        request=request,
        events=journal.events,
        state=ledger.state,
        record=found,
        metrics=found.metrics(request.capital, 252),
        certificate=certify(request, strategies, warm, journal.events, ledger.hash),
        provenance={"snapshot id": "snap", "libraries": {"numpy": np.__version__}},
    )
