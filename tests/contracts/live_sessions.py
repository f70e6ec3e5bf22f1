"""Sessions on a live stream as tests hold them: opened on what an Alpaca on loopback has, traded in a thread."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

from gpt_trader.requests import DataRequest
from gpt_trader.trading.certificate import certify
from gpt_trader.trading.events import LedgerEvent
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.validation import validated
from storage.market_stream import publishing
from tasks.fetching import Fetching
from tasks.ingest import sources
from tasks.ingest_plan import Series
from tasks.sessions import sessions, strategies_of
from tasks.stores import stores
from tests.contracts.live_worker import run
from tests.fakes.alpaca_server import AlpacaServer
from tests.waiting import eventually

BTC: Final = "BTC-USD"
ETH: Final = "ETH-USD"


@dataclass
class Trading:
    """A session under way in a thread, as a run has it."""

    session_id: UUID
    request: PaperTradeRequest
    errors: list[BaseException] = field(default_factory=list)
    thread: threading.Thread | None = None

    def go_on(self) -> None:
        """Trade it, or go on with it."""
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            run(self.session_id)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.errors.append(error)

    def traded(self, moment: datetime) -> bool:
        if self.errors:
            raise self.errors[0]
        return (sessions().get(self.session_id).bar or "") >= text_of(moment)

    def until(self, moment: datetime) -> None:
        eventually(lambda: self.traded(moment), seconds=60, what=f"the moment {text_of(moment)}")

    def ended(self) -> None:
        assert self.thread is not None
        self.thread.join(60)
        if self.errors:
            raise self.errors[0]
        assert not self.thread.is_alive()

    def stop(self) -> None:
        sessions().command(self.session_id, "stop", "the test")
        self.ended()

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [each.data for each in sessions().events(self.session_id, types=(kind,), limit=10_000)]

    def verdict(self) -> str:
        rows = sessions().events(self.session_id, limit=100_000)
        events = [LedgerEvent(each.type, each.data) for each in rows]
        now = sessions().get(self.session_id)
        found = certify(
            self.request, strategies_of(self.request), WARM[self.session_id], events, now.ledger_hash
        )
        assert found.first_divergence is None, found.first_divergence
        return found.verdict


WARM: dict[UUID, dict[str, Any]] = {}


def begun(
    *symbols: str, source: str = "alpaca", warm: bool = True, here: bool = True, **terms: Any
) -> Trading:
    """Open a session on what the history has by now, and begin it (`here`: in a thread)."""
    request = validated(
        PaperTradeRequest,
        {"symbol": list(symbols), "strategy": "ma_crossover", "params": {"fast": 2, "slow": 4}, "timeframe": "1m",
         "source": source, "feed": "stream", "grace": 0.5, **terms},
    )  # fmt: skip
    ingested(source, *symbols)
    session_id = uuid4()
    known = {symbol: stores().lake.bars(symbol, "1m")[: None if warm else 0] for symbol in symbols}
    WARM[session_id] = known
    sessions().create(
        session_id,
        "local",
        "paper_trade",
        request.model_dump(mode="json"),
        known,
        name="live",
        capital="10000",
    )
    one = Trading(session_id, request)
    if here:
        one.go_on()
    return one


def ingested(source: str, *symbols: str) -> None:
    request = DataRequest(symbols=symbols, source=source, timeframes=("1m",))
    commit = publishing(stores().lake, stores().events, lambda _symbol, _error: None)
    fetching = Fetching(request, stores().lake, sources(request), commit=commit)
    for outcome in fetching.run([Series(s, "1m", source) for s in symbols], lambda _done, _outcome: None):
        assert outcome.error is None, outcome.error


def text_of(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def subscribed(alpaca: AlpacaServer, times: int = 1) -> None:
    eventually(lambda: len(alpaca.heard) >= times, seconds=60, what=f"{times} subscriptions")
