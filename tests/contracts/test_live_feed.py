"""Live bars, fake-verified against an Alpaca on loopback: collected once for all, traded as moments, none twice."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.logging import disable_run_logger
from sqlalchemy import URL, text

from gpt_trader.errors import Refused
from gpt_trader.requests import DataRequest
from gpt_trader.trading.certificate import certify
from gpt_trader.trading.events import LedgerEvent
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.validation import validated
from storage.market_stream import channel_of_symbol, publishing
from tasks import stores as composition
from tasks.fetching import Fetching
from tasks.ingest import sources
from tasks.ingest_plan import Series
from tasks.live_feed import Stream, source_of
from tasks.sessions import sessions, strategies_of, trading
from tasks.stores import stores
from tests.contracts.live_worker import run
from tests.fakes import ccxt_server
from tests.fakes.alpaca_server import KEY, SECRET, AlpacaServer, Session
from tests.fakes.ccxt_server import SPOT, CcxtServer, frame, serving
from tests.live_market import MINUTE, LiveMarket, minutes_ago
from tests.waiting import eventually

BTC, ETH = "BTC-USD", "ETH-USD"


@pytest.fixture(scope="module")
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer().serving() as fake:
        yield fake


@pytest.fixture
def venue() -> Iterator[CcxtServer]:
    with serving() as fake:
        yield fake


@pytest.fixture
def urls() -> dict[str, str]:
    """Addresses of the sources of a test's home, by name."""
    return {}


@pytest.fixture
def engine_home(
    urls: dict[str, str], database: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], None]]:
    """A home of this test's own; what it gives sets a source's address there."""
    monkeypatch.setenv("GPT_TRADER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GPT_TRADER_DATABASE_URL", database.render_as_string(hide_password=False))
    monkeypatch.setenv("GPT_TRADER_CREDENTIAL_ALPACA_KEY", KEY)
    monkeypatch.setenv("GPT_TRADER_CREDENTIAL_ALPACA_SECRET", SECRET)
    monkeypatch.setattr(composition, "_stores", {})

    def asks(source: str, url: str) -> None:
        urls[source] = url
        monkeypatch.setenv("GPT_TRADER_SOURCE_URLS", json.dumps(urls))

    with disable_run_logger():
        yield asks
    stores().engine.dispose()


@pytest.fixture
def alpaca(server: AlpacaServer, engine_home: Callable[[str, str], None]) -> AlpacaServer:
    """The fake, as a source of a home of this test's own."""
    server.reset()
    engine_home("alpaca", server.url)
    return server


@pytest.fixture
def binance(venue: CcxtServer, engine_home: Callable[[str, str], None]) -> CcxtServer:
    """The same of ccxt's binance, with an hour of history."""
    now = datetime.now(UTC)
    for market in ("BTCUSDT", "ETHBTC"):
        venue.trade(SPOT, market, now - timedelta(hours=1), now, "1m")
    engine_home("ccxt:binance", venue.url)
    return venue


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


def test_bars_of_the_stream_are_traded_and_none_is_lost_at_a_cut(alpaca: AlpacaServer) -> None:
    market = LiveMarket(alpaca, [BTC, ETH], minutes_ago(120), history=20)
    one = begun(BTC, ETH)
    subscribed(alpaca)
    for _ in range(8):
        one.until(market.go())
    alpaca.sessions.append(Session(handshake=503))
    alpaca.cut()
    lost = [market.go() for _ in range(3)]  # nobody listens: the stream never tells these again
    subscribed(alpaca, 2)
    one.until(market.go())
    one.stop()
    times = [each["time"] for each in one.events("bars")]
    assert times == [text_of(market.begin + n * MINUTE) for n in range(20, 32)]
    assert all(list(each["bars"]) == [BTC, ETH] for each in one.events("bars"))
    assert {text_of(each) for each in lost} < set(times)
    assert len(one.events("fill")) >= 4
    assert one.verdict() == "equal"
    told = stores().events.read(channel_of_symbol(BTC))
    assert told[-1].data["bars"][-1]["time"] == times[-1]


@pytest.mark.slow  # ccxt loads every venue it knows
def test_bars_of_a_ccxt_venue_are_traded_once_later_ones_have_begun(binance: CcxtServer) -> None:
    first = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(hours=1)

    def said(minute: int, market: str) -> dict[str, Any]:
        at = int((first + minute * MINUTE).timestamp()) * 1000
        return frame(market, "1m", ccxt_server.row(at, 100 + 7 * (minute % 4)))

    frames = tuple(said(minute, market) for minute in range(13) for market in ("BTCUSDT", "ETHBTC"))
    binance.sessions.append(ccxt_server.Session(frames=frames))
    one = begun("BTC-USDT", "ETH-BTC", source="ccxt:binance")
    one.until(first + 11 * MINUTE)
    one.stop()
    live = [each for each in one.events("bars") if each["time"] >= text_of(first)]
    assert [each["time"] for each in live] == [text_of(first + n * MINUTE) for n in range(12)]
    assert all(list(each["bars"]) == ["BTC-USDT", "ETH-BTC"] for each in live)
    assert one.events("fill")
    assert one.verdict() == "equal"


def test_a_late_symbol_is_waited_for_and_then_written_down_as_missed(alpaca: AlpacaServer) -> None:
    market = LiveMarket(alpaca, [BTC, ETH], minutes_ago(120), history=20)
    one = begun(BTC, ETH)
    subscribed(alpaca)
    one.until(market.go())
    alone = market.go(BTC)
    one.until(alone)
    market.tell(ETH, alone)  # past the grace
    one.until(market.go())
    eventually(lambda: one.events("missed"), seconds=30, what="a missed bar")
    one.stop()
    alone_bars = next(each for each in one.events("bars") if each["time"] == text_of(alone))
    assert list(alone_bars["bars"]) == [BTC]
    assert [(each["symbol"], each["time"]) for each in one.events("missed")] == [(ETH, text_of(alone))]
    assert one.verdict() == "equal"


def test_sessions_share_one_connection_and_another_takes_it_over(alpaca: AlpacaServer) -> None:
    market = LiveMarket(alpaca, [BTC, ETH], minutes_ago(120), history=20)
    first = begun(BTC)
    subscribed(alpaca)
    second = begun(ETH)
    subscribed(alpaca, 2)
    assert [sorted(each["bars"]) for each in alpaca.heard] == [["BTC/USD"], ["BTC/USD", "ETH/USD"]]
    together = market.go()
    for one in (first, second):
        one.until(together)
    first.stop()
    subscribed(alpaca, 3)
    assert alpaca.heard[-1]["bars"] == ["ETH/USD"]
    second.until(market.go())
    second.stop()


def test_a_session_that_was_away_at_its_close_trades_up_to_it_and_ends(alpaca: AlpacaServer) -> None:
    """What was stored before its first day is its warm-up; the bar that ends after the close is not traded."""
    market = LiveMarket(alpaca, [BTC, ETH], minutes_ago(120), history=20)
    closes = market.begin + 19 * MINUTE + timedelta(seconds=30)
    one = begun(BTC, ETH, until=closes.isoformat(), start=market.begin.date().isoformat(), warm=False)
    one.ended()
    session = sessions().get(one.session_id)
    assert session.status == "completed"
    assert session.reason == f"its close has come: {closes:%Y-%m-%d %H:%M} UTC"
    assert session.bar == text_of(market.begin + 18 * MINUTE)
    assert session.steps == 19
    assert one.verdict() == "equal"


def test_commands_are_obeyed_while_nothing_comes(alpaca: AlpacaServer) -> None:
    LiveMarket(alpaca, [BTC], minutes_ago(120), history=20)
    one = begun(BTC)
    subscribed(alpaca)
    sessions().command(one.session_id, "pause", "the test")
    eventually(lambda: sessions().get(one.session_id).status == "paused", what="paused")
    one.stop()
    assert one.events("bars") == []


def test_a_session_that_was_killed_catches_up_and_goes_on(alpaca: AlpacaServer) -> None:
    market = LiveMarket(alpaca, [BTC, ETH], minutes_ago(120), history=20)
    one = begun(BTC, ETH, here=False)
    killed = subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.contracts.live_worker", str(one.session_id)]
    )
    try:
        eventually(lambda: alpaca.heard or killed.poll() is not None, seconds=90, what="a subscription")
        for _ in range(4):
            one.until(market.go())
    finally:
        killed.kill()
        killed.wait()
    for _ in range(5):
        market.go()
    let_the_lease_run_out(one.session_id)
    one.go_on()
    subscribed(alpaca, 2)
    one.until(market.go())
    one.stop()
    times = [each["time"] for each in one.events("bars")]
    assert times == [text_of(market.begin + n * MINUTE) for n in range(20, 30)]
    assert one.events("missed") == []
    assert one.verdict() == "equal"


def let_the_lease_run_out(session_id: UUID) -> None:
    """Have the lease of a process that was killed be over by now (15 s, otherwise)."""
    over = text("UPDATE sessions SET lease_until = clock_timestamp() - interval '1 s' WHERE session_id = :id")
    with stores().engine.begin() as connection:
        connection.execute(over, {"id": session_id})


def test_a_stream_that_says_nothing_is_told(alpaca: AlpacaServer) -> None:
    LiveMarket(alpaca, [BTC], minutes_ago(120), history=20)
    one = begun(BTC, here=False)
    with trading(sessions().get(one.session_id), f"run {uuid4()}") as running:
        feed = Stream(running)
        begun_at = datetime.now(UTC)
        assert feed.silence(begun_at + timedelta(seconds=50)) == {}
        silent = feed.silence(begun_at + timedelta(seconds=300))
        assert silent[BTC] == pytest.approx(240, abs=5)


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ({"timeframe": "5m"}, "alpaca streams minute bars; allowed: 1m"),
        ({"source": "sample"}, "has no live stream of bars; allowed: alpaca, ccxt:VENUE"),
    ],
)
def test_a_stream_that_there_is_not_is_refused(
    alpaca: AlpacaServer, terms: dict[str, Any], says: str
) -> None:
    del alpaca
    values = {"symbol": BTC, "timeframe": "1m", "source": "alpaca", "feed": "stream", **terms}
    with pytest.raises(Refused, match=says):
        source_of(validated(PaperTradeRequest, values))
