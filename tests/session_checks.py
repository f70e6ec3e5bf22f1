"""A stored session against its referees: a replay that nothing interrupts, and the backtest over the bars it saw."""

from __future__ import annotations

from uuid import UUID

import numpy as np
from sqlalchemy import Engine

from gpt_trader.strategies import registry
from gpt_trader.trading import backtest
from gpt_trader.trading.certificate import replay
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.validation import validated
from storage.session_ledger import load, warm_bars
from storage.session_rows import ledger_event
from storage.sessions import SessionStore


def check_against_the_backtest(database: Engine, session_id: UUID) -> int:
    """Check a ledger's hash against a replay's, and its fills and equity against the backtest's; return its fills."""
    store = SessionStore(database)
    ledger, _ = load(database, session_id, snapshots=False)
    events = [ledger_event(each) for each in store.events(session_id, limit=10**6)]
    request = validated(PaperTradeRequest, store.get(session_id).request)
    strategies = [
        registry.build(registry.strategy_type(leg.strategy), leg.params, request.direction)
        for leg in request.legs
    ]
    history = warm_bars(database, session_id)
    warm = {symbol: history.bars(symbol)[0] for symbol in request.symbols}
    _, hash_ = replay(request, strategies, warm, events)
    assert hash_ == ledger.hash == store.get(session_id).ledger_hash
    seen = {symbol: ledger.history.bars(symbol) for symbol in request.symbols}
    found = backtest.simulate(
        request,
        strategies,
        {s: bars for s, (bars, _) in seen.items()},
        {s: at for s, (_, at) in seen.items()},
    )
    fills = [event.data for event in events if event.type == "fill"]
    ours = sorted((fill["time"], fill["leg"], float(fill["units"])) for fill in fills)
    theirs = sorted((fill.time, fill.leg, fill.units) for fill in found.fills)
    assert [each[:2] for each in ours] == [each[:2] for each in theirs]
    np.testing.assert_allclose([e[2] for e in ours], [e[2] for e in theirs], rtol=1e-9)
    equity = [float(event.data["equity"]) for event in events if event.type == "closed"]
    np.testing.assert_allclose(equity, found.equity, rtol=1e-9)
    return len(fills)
