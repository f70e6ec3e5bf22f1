"""Live bars, fake-verified against an Alpaca on loopback: collected once for all, traded as moments, none twice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from gpt_trader.errors import Refused
from gpt_trader.runs import SYSTEM
from gpt_trader.trading.events import BarRow, Moment
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.validation import validated
from storage.market_stream import channel_of_symbol
from tasks.live_feed import Stream, source_of
from tasks.sessions import sessions, trading
from tasks.stores import stores
from tests.contracts.live_sessions import BTC, ETH, begun, subscribed, text_of
from tests.fakes import ccxt_server
from tests.fakes.alpaca_server import AlpacaServer, Session
from tests.fakes.ccxt_server import SPOT, CcxtServer, frame, serving
from tests.live_market import MINUTE, LiveMarket, minutes_ago
from tests.waiting import eventually


@pytest.fixture
def venue() -> Iterator[CcxtServer]:
    with serving() as fake:
        yield fake


@pytest.fixture
def binance(venue: CcxtServer, engine_home: Callable[[str, str], None]) -> CcxtServer:
    """Give ccxt's binance on loopback, with an hour of history, as a source of the test's home."""
    now = datetime.now(UTC)
    for market in ("BTCUSDT", "ETHBTC"):
        venue.trade(SPOT, market, now - timedelta(hours=1), now, "1m")
    engine_home("ccxt:binance", venue.url)
    return venue


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


def test_silence_is_told_once_until_it_is_over_and_closed_by_itself(alpaca: AlpacaServer) -> None:
    market = LiveMarket(alpaca, [BTC], minutes_ago(120), history=20)
    one = begun(BTC, here=False)

    def told() -> list[tuple[int, str | None]]:
        """Return how often each was counted, and who has closed it, the oldest first."""
        found = stores().alerts.list("local", open_only=False)[::-1]
        assert {each.rule for each in found} <= {"stale_data"}
        return [(each.count, each.acknowledged_by) for each in found]

    with trading(sessions().get(one.session_id), f"run {uuid4()}") as running:
        feed, silent = Stream(running), {BTC: 200.0}
        feed.silence = lambda now: silent  # type: ignore[method-assign]

        def trade() -> None:
            row = market.bar(BTC, market.go(live=False))
            running.trader.step(
                Moment(row["t"], {BTC: BarRow(row["o"], row["h"], row["l"], row["c"], row["v"])})
            )

        feed._tell_silence()
        feed._tell_silence()
        assert told() == [(2, None)]
        (open_,) = stores().alerts.list("local")
        stores().alerts.acknowledge(open_.id, "ann")
        feed._tell_silence()
        assert told() == [(2, "ann")]  # it lasts, and is known
        trade()
        silent.clear()
        feed._tell_silence()
        silent[BTC] = 200.0
        feed._tell_silence()
        assert told() == [(2, "ann"), (1, None)]  # a silence of its own
        silent.clear()
        feed._tell_silence()
        assert told()[-1] == (1, None)  # nothing has come yet: a market that closes is no bar
        trade()
        feed._tell_silence()
        assert told() == [(2, "ann"), (1, SYSTEM)]


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
