"""Source ccxt against venues on loopback: Binance's and Kraken's habits, and everything that may go wrong."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import ccxt
import numpy as np
import pytest
from ccxt.base.decimal_to_precision import DECIMAL_PLACES, SIGNIFICANT_DIGITS, TICK_SIZE
from pydantic import SecretStr

from gpt_trader.adapters.base import LiveBar
from gpt_trader.adapters.ccxt import CcxtSource
from gpt_trader.adapters.ccxt.markets import ccxt_symbol, our_symbol, step
from gpt_trader.adapters.patience import Patience
from gpt_trader.credentials import Credential
from gpt_trader.errors import BadBars, Denied, NotEnoughBars, Refused, SourceUnavailable, UnknownName
from gpt_trader.instruments import TIMEFRAMES, valid_symbol
from gpt_trader.raw_bars import RawBars, inspect
from tests.fakes.ccxt_server import (
    INVERSE,
    KEY,
    KRAKEN,
    KRAKEN_NEWEST,
    SECRET,
    SPOT,
    CcxtServer,
    Fault,
    Row,
    Session,
    frame,
    row,
    serving,
)
from tests.lake_samples import equal

KEYS: Credential = {"key": SecretStr(KEY), "secret": SecretStr(SECRET)}
DAYS = timedelta(days=600)
#: Venue, its host, its id of a market, and ours.
MARKETS = {
    "next bars": ("binance", SPOT, "BTCUSDT", "BTC-USDT"),
    "bars of a span": ("binance", INVERSE, "BTCUSD_PERP", "BTC-USD=BTC"),
    "newest bars": ("kraken", KRAKEN, "XXBTZUSD", "BTC-USD"),
}
Market = tuple[CcxtSource, str, str, str]


def now() -> datetime:
    """Return the present: the adapter asks up to it, so bars must end there whenever a test runs."""
    return datetime.now(UTC)


@pytest.fixture
def fake() -> Iterator[CcxtServer]:
    with serving() as server:
        yield server


@pytest.fixture
def waits() -> list[float]:
    """What was slept between attempts, in seconds."""
    return []


def over(
    fake: CcxtServer,
    venue: str,
    waits: list[float] | None = None,
    credential: Credential | None = None,
    timeout: float = 30.0,
) -> CcxtSource:
    patience = Patience(attempts=3, sleep=(waits if waits is not None else []).append)
    made = CcxtSource(venue, credential or {}, fake.url, patience=patience, timeout=timeout)
    made._venue.exchange.rateLimit = 0  # loopback has none
    return made


@pytest.fixture(params=MARKETS)
def market(request: pytest.FixtureRequest, fake: CcxtServer) -> Market:
    """A source, its host and market, and our symbol: 600 days of daily bars."""
    venue, host, market_id, symbol = MARKETS[request.param]
    fake.trade(host, market_id, now() - DAYS, now(), "1d", "1w")
    return over(fake, venue), host, market_id, symbol


@pytest.fixture
def binance(fake: CcxtServer, waits: list[float]) -> CcxtSource:
    """Binance's spot market: BTC-USDT with 3,100 hours of bars, and coarser ones."""
    fake.trade(SPOT, "BTCUSDT", now() - timedelta(hours=3100), now(), "1h", "4h", "1d", "1w")
    return over(fake, "binance", waits)


def stored(fake: CcxtServer, host: str, market_id: str, timeframe: str) -> list[int]:
    return [each[0] for each in fake.bars[host, market_id, timeframe]]


def times(pages: list[RawBars]) -> list[int]:
    return [int(t) for page in pages for t in page.time.astype("datetime64[ms]").astype(np.int64)]


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


# --- what every source does


def test_it_lists_instruments_with_valid_ids(market: Market):
    source, *_, symbol = market
    listed = [instrument.symbol for instrument in source.instruments()]
    assert symbol in listed
    assert all(valid_symbol(each) == each for each in listed)
    assert (source.live, source.lists_all, source.timeframes[0]) == (True, True, "1m")


def test_all_there_is_comes_once_and_passes_inspection(market: Market, fake: CcxtServer):
    source, host, market_id, symbol = market
    pages = list(source.pages(symbol, "1d"))
    assert times(pages) == stored(fake, host, market_id, "1d")
    whole = source.fetch(symbol, "1d")
    assert inspect(whole, "1d").remarks() == []
    assert whole.close[0] - whole.open[0] == 0.25
    assert set(whole.factor) == {1.0}


def test_both_bounds_are_inclusive(market: Market):
    source, *_, symbol = market
    whole = source.fetch(symbol, "1d")
    first, last = whole.time[10].item(), whole.time[20].item()
    assert equal(source.fetch(symbol, "1d", first.date(), last.date()), whole[10:21])
    exact = source.fetch(symbol, "1d", first.replace(tzinfo=UTC), last.replace(tzinfo=UTC))
    assert equal(exact, whole[10:21])
    later = source.fetch(symbol, "1d", first.replace(tzinfo=UTC, microsecond=1), last.date())
    assert equal(later, whole[11:21])


def test_a_bound_without_a_zone_is_refused(market: Market):
    source, *_, symbol = market
    with pytest.raises(Refused, match="start: is a time without a zone"):
        source.fetch(symbol, "1d", datetime(2001, 1, 1))  # noqa: DTZ001 - the point


@pytest.mark.parametrize("year", [1950, 2012, 2190])
def test_a_range_without_bars_says_which_there_are(market: Market, year: int):
    source, *_, symbol = market
    expected = (
        rf"no bars from {year}-01-01 to {year}-12-31; it has {now() - DAYS:%Y-%m-%d} to {now():%Y-%m-%d}"
    )
    with pytest.raises(NotEnoughBars, match=expected):
        source.fetch(symbol, "1d", date(year, 1, 1), date(year, 12, 31))


def test_a_market_without_any_bar_says_so(fake: CcxtServer):
    with pytest.raises(NotEnoughBars, match=r"BTC-USDT \(1d\) has no bars at all"):
        over(fake, "binance").fetch("BTC-USDT", "1d")


def test_an_unknown_symbol_names_the_nearest(market: Market):
    source, *_, symbol = market
    with pytest.raises(UnknownName) as caught:
        source.fetch(symbol + "X", "1d")
    assert caught.value.problems[0].nearest == symbol


def test_an_unknown_timeframe_is_refused(market: Market):
    source, *_, symbol = market
    with pytest.raises(UnknownName, match="timeframe"):
        source.fetch(symbol, "7d")


# --- venues and instruments


def test_an_unknown_venue_names_the_nearest():
    with pytest.raises(UnknownName) as caught:
        CcxtSource("krakn", {})
    assert caught.value.problems[0].nearest == "kraken"


def test_a_venue_without_bars_is_refused():
    with pytest.raises(Refused, match="source: gives no bars"):
        CcxtSource("bitflyer", {})


def test_a_base_url_that_is_none_is_refused():
    with pytest.raises(Refused, match=r"source_urls\.ccxt:kraken"):
        CcxtSource("kraken", {}, "127.0.0.1:80")


@pytest.mark.parametrize(
    ("venue", "offered"),
    [("binance", tuple(TIMEFRAMES)), ("paradex", ("1m", "5m", "15m", "1h"))],
)
def test_timeframes_are_those_that_the_venue_has_too(venue: str, offered: tuple[str, ...]):
    assert CcxtSource(venue, {}).timeframes == offered


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("BTC/USDT", "BTC-USDT"),
        ("BTC/USDT:USDT", "BTC-USDT=USDT"),
        ("BTC/USD:BTC-240329", "BTC-USD=BTC-240329"),
        ("BTC/USD:BTC-240329-40000-C", "BTC-USD=BTC-240329-40000-C"),
        ("1000PEPE/USDT", "1000PEPE-USDT"),
        ("USDT.E/USD", "USDT.E-USD"),
        ("A/B-C", "A-B-C"),
        ("kPEPE/USDC:USDC", None),
        ("A-B/USDT", None),
        ("A=B/USDT", None),
        ("币安/USDT", None),
        ("$PAC/USDT", None),
        ("AVERYLONGNAMEOFACOIN/ANDAVERYLONGQUOTE", None),
    ],
)
def test_an_id_leads_back_to_the_symbol_of_ccxt_or_there_is_none(theirs: str, ours: str | None):
    assert our_symbol(theirs) == ours
    assert ours is None or ccxt_symbol(ours) == theirs


def test_instruments_have_the_venues_facts(fake: CcxtServer):
    found = {each.symbol: each for each in over(fake, "binance").instruments()}
    assert set(found) == {"BTC-USDT", "ETH-BTC", "BTC-USDT=USDT", "BTC-USD=BTC", "BTC-USD=BTC-270326"}
    spot = found["ETH-BTC"]
    assert (spot.venue, spot.calendar, spot.bars_a_year, spot.session_minutes) == (
        "BINANCE",
        "24/7",
        365,
        1440,
    )
    assert (spot.currency, spot.tick, spot.lot, spot.name) == (
        "BTC",
        Decimal("0.0000001"),
        Decimal("0.0001"),
        "Binance ETH/BTC",
    )
    assert found["BTC-USDT=USDT"].currency == "USDT"
    assert found["BTC-USDT=USDT"].multiplier == 1
    assert found["BTC-USD=BTC"].currency == "BTC"
    assert "multiplier" not in found["BTC-USD=BTC"].model_fields_set


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        (TICK_SIZE, 1e-08, "0.00000001"),
        (TICK_SIZE, 0.1, "0.1"),
        (TICK_SIZE, 10.0, "10"),
        (TICK_SIZE, 0.0, None),
        (TICK_SIZE, None, None),
        (DECIMAL_PLACES, 8, "0.00000001"),
        (DECIMAL_PLACES, 0, "1"),
        (DECIMAL_PLACES, -1, "10"),
        (DECIMAL_PLACES, None, None),
        (SIGNIFICANT_DIGITS, 5, None),
    ],
)
def test_a_step_is_exact_in_every_precision_mode(mode: int, value: float | None, expected: str | None):
    assert step(value, mode) == (None if expected is None else Decimal(expected))


def test_the_list_of_markets_is_asked_for_once(fake: CcxtServer):
    source = over(fake, "kraken")
    assert source.instruments() == source.instruments()
    source.instrument("BTC-USD")
    assert len(fake.asked_for("AssetPairs")) == 1


def test_every_venue_of_ccxt_is_set_up_or_refused_for_having_no_bars():
    without = []
    for venue in ccxt.exchanges:
        try:
            source = CcxtSource(venue, KEYS, "http://127.0.0.1:9/proxy/")
        except Refused:
            without.append(venue)
        else:
            addresses = set(texts(source._venue.exchange.urls["api"]))
            assert all(each.startswith("http://127.0.0.1:9/proxy/") for each in addresses), addresses
            assert source.timeframes, venue
    assert {"bitflyer", "zaif"} < set(without)
    assert len(without) < 20


def texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for each in tree.values():
            yield from texts(each)
    elif isinstance(tree, str):
        yield tree


# --- windows


@pytest.mark.parametrize("most", [1000, 300, 7])
def test_a_venue_that_gives_fewer_rows_than_asked_loses_none(
    fake: CcxtServer, binance: CcxtSource, most: int
):
    fake.bars[SPOT, "BTCUSDT", "1h"] = fake.bars[SPOT, "BTCUSDT", "1h"][-1500:]
    fake.most = most
    pages = list(binance.pages("BTC-USDT", "1h"))
    assert times(pages) == stored(fake, SPOT, "BTCUSDT", "1h")
    assert len(pages) == 2


@pytest.mark.parametrize(
    ("kind", "most"), [("next bars", 1000), ("bars of a span", 1000), ("bars of a span", 120)]
)
def test_quiet_times_are_passed_over_and_nothing_behind_them_is_lost(fake: CcxtServer, kind: str, most: int):
    fake.most = most
    venue, host, market_id, symbol = MARKETS[kind]
    fake.trade(host, market_id, now() - timedelta(hours=8000), now(), "1h")
    bars = fake.bars[host, market_id, "1h"]
    # The second hole is longer than a window, the last one reaches to now.
    fake.bars[host, market_id, "1h"] = bars[:100] + bars[101:700] + bars[4000:4001] + bars[4450:-150]
    pages = list(over(fake, venue).pages(symbol, "1h", moment(bars[0][0])))
    assert times(pages) == stored(fake, host, market_id, "1h")
    assert len(fake.asked_for("klines")) < 100


def test_a_window_is_stored_and_gone_on_behind(fake: CcxtServer, binance: CcxtSource):
    first, *_ = binance.pages("BTC-USDT", "1h")
    behind = first.time[-1].item().replace(tzinfo=UTC) + timedelta(microseconds=1)
    rest = binance.fetch("BTC-USDT", "1h", behind)
    assert times([first, rest]) == stored(fake, SPOT, "BTCUSDT", "1h")


def test_what_is_new_takes_one_question(fake: CcxtServer, binance: CcxtSource):
    binance.instruments()
    fake.asked.clear()
    labels = stored(fake, SPOT, "BTCUSDT", "1h")
    assert times(list(binance.pages("BTC-USDT", "1h", moment(labels[-20])))) == labels[-20:]
    assert len(fake.asked) == 1


# --- where bars begin


def test_the_first_bar_is_found_by_coarser_ones_where_nothing_comes_since_long_ago(fake: CcxtServer):
    fake.trade(INVERSE, "BTCUSD_PERP", datetime(2025, 3, 5, 9, 30, tzinfo=UTC), now(), "1m", "1h", "1d", "1w")
    bars = fake.bars[INVERSE, "BTCUSD_PERP", "1m"]
    source = over(fake, "binance")
    first = next(source.pages("BTC-USD=BTC", "1m"))
    assert times([first])[0] == bars[0][0]
    assert len(fake.asked_for("klines")) < 40


def test_the_first_bar_is_found_where_too_early_a_start_is_refused(fake: CcxtServer, binance: CcxtSource):
    labels = stored(fake, SPOT, "BTCUSDT", "1h")
    fake.points = 1600
    found = times(list(binance.pages("BTC-USDT", "1h")))
    assert found == labels[-len(found) :]
    assert 1500 <= len(found) <= 1600


def test_a_start_before_the_listing_gives_all_there_is(market: Market, fake: CcxtServer):
    source, host, market_id, symbol = market
    assert times(list(source.pages(symbol, "1d", date(2012, 1, 1)))) == stored(fake, host, market_id, "1d")


def test_a_venue_that_gives_only_its_newest_bars_says_so_instead_of_leaving_a_hole(fake: CcxtServer):
    fake.trade(KRAKEN, "XXBTZUSD", now() - timedelta(days=100), now(), "1h", "4h", "1d", "1w")
    labels = stored(fake, KRAKEN, "XXBTZUSD", "1h")
    source = over(fake, "kraken")
    begin = f"{moment(labels[-KRAKEN_NEWEST]):%Y-%m-%d}"
    start = (now() - timedelta(days=90)).date()
    with pytest.raises(
        NotEnoughBars, match=rf"no bars from {start} on: it has {begin} and later \(older ones"
    ):
        source.fetch("BTC-USD", "1h", start)
    with pytest.raises(
        NotEnoughBars, match=rf"it has {begin} to .*older ones exist and the venue does not give"
    ):
        source.fetch("BTC-USD", "1h", start, start)
    assert times(list(source.pages("BTC-USD", "1h"))) == labels[-KRAKEN_NEWEST:]


@pytest.mark.parametrize(("venue", "host", "market_id", "symbol"), [MARKETS["newest bars"]])
def test_weeks_that_do_not_begin_on_mondays_are_refused(
    fake: CcxtServer, venue: str, host: str, market_id: str, symbol: str
):
    fake.trade(host, market_id, now() - timedelta(days=100), now(), "1w")
    with pytest.raises(Refused, match="1w bars of BTC-USD begin at Thursday 00:00 UTC, ours at Monday 00:00"):
        over(fake, venue).fetch(symbol, "1w")


def test_days_that_begin_at_another_hour_are_refused(fake: CcxtServer, binance: CcxtSource):
    fake.spoil = lambda rows: [[each[0] + 8 * 3_600_000, *each[1:]] for each in rows]
    with pytest.raises(Refused, match="1d bars of BTC-USDT begin at 08:00 UTC, ours at 00:00"):
        binance.fetch("BTC-USDT", "1d")


def test_weekly_bars_are_labeled_by_their_monday(fake: CcxtServer, binance: CcxtSource):
    weeks = binance.fetch("BTC-USDT", "1w")
    assert {label.item().weekday() for label in weeks.time} == {0}


# --- rows that are none


def repeated(rows: list[Row]) -> list[Row]:
    return [*rows, rows[0], rows[len(rows) // 2], rows[-1]]


def holed(column: int, value: object) -> Callable[[list[Row]], list[Any]]:
    def spoil(rows: list[Row]) -> list[Any]:
        return [[*bar[:column], value, *bar[column + 1 :]] if at == 3 else bar for at, bar in enumerate(rows)]

    return spoil


@pytest.mark.parametrize(
    ("spoil", "lost", "remark"),
    [
        (lambda rows: rows[::-1], 0, "out of order: sorted"),
        (repeated, 0, "repeated another row exactly: dropped"),
        (holed(0, None), 1, "time is missing"),
        (holed(2, None), 1, "price is not a finite number"),
        (holed(4, "NaN"), 1, "price is not a finite number"),
        (holed(5, None), 1, "volume is not a finite number"),
        (lambda rows: [*rows[:3], None, *rows[4:]], 1, "time is missing"),
    ],
    ids=["reversed", "repeated", "no time", "no high", "NaN close", "no volume", "null row"],
)
def test_spoiled_rows_are_left_to_the_inspection_and_cost_no_other(
    fake: CcxtServer, binance: CcxtSource, spoil: Callable[[list[Row]], list[Any]], lost: int, remark: str
):
    labels = stored(fake, SPOT, "BTCUSDT", "1h")[-1000:]
    fake.spoil = spoil
    found = inspect(binance.fetch("BTC-USDT", "1h", moment(labels[0])), "1h")
    assert remark in " ".join(found.remarks())
    assert len(found.clean) == len(labels) - lost
    assert set(times([found.clean])) <= set(labels)


def test_a_time_in_the_future_ends_no_window(fake: CcxtServer, binance: CcxtSource):
    labels = stored(fake, SPOT, "BTCUSDT", "1h")
    fake.most = 100
    fake.spoil = lambda rows: [*rows, row(labels[-1] + 10**12, 100)]
    assert times(list(binance.pages("BTC-USDT", "1h", moment(labels[-450])))) == labels[-450:]


def test_a_value_that_is_no_number_is_no_bar(fake: CcxtServer, binance: CcxtSource):
    binance._venue.exchange.parse_ohlcv = lambda bar, _: [bar[0], "ten", 1, 1, 1, 1]
    with pytest.raises(BadBars, match="ccxt:binance gave a bar of BTC-USDT that cannot be read"):
        binance.fetch("BTC-USDT", "1h")


# --- faults

PASSING = [
    Fault(status=429, headers={"Retry-After": "7"}),
    Fault(status=418, headers={"Retry-After": "11"}),
    Fault(status=500),
    Fault(status=503, body=""),
    Fault(status=504),
    Fault(status=429, body=f'{{"code": -1003, "msg": "Too many requests of {KEY}"}}'),
    Fault("cut"),
    Fault("lost"),
    Fault("body", body="<html>who are you?</html>"),
    Fault("body", body=""),
    Fault("body", body="null"),
    Fault("body", body="{}"),
]


def named(fault: Fault) -> str:
    return f"{fault.kind} {fault.status if fault.kind == 'status' else fault.body[:6]}"


@pytest.mark.parametrize("fault", PASSING, ids=named)
def test_what_passes_is_asked_again_and_nothing_is_lost(
    fake: CcxtServer, binance: CcxtSource, waits: list[float], fault: Fault
):
    binance.instruments()
    fake.faults += [fault, fault]
    assert times(list(binance.pages("BTC-USDT", "1h"))) == stored(fake, SPOT, "BTCUSDT", "1h")
    assert len(waits) == 2
    asked = fault.headers.get("Retry-After")
    assert asked is None or waits == [float(asked)] * 2


@pytest.mark.parametrize("fault", [Fault("cut"), Fault("lost"), Fault("body", body="null")], ids=named)
def test_a_venue_that_wraps_its_answers_leaves_no_hole_either(
    fake: CcxtServer, waits: list[float], fault: Fault
):
    fake.trade(KRAKEN, "XXBTZUSD", now() - DAYS, now(), "1d")
    source = over(fake, "kraken", waits)
    source.instruments()
    fake.faults.append(fault)
    assert times(list(source.pages("BTC-USD", "1d"))) == stored(fake, KRAKEN, "XXBTZUSD", "1d")
    assert len(waits) == 1


def test_a_list_of_markets_that_is_cut_short_is_asked_for_again(fake: CcxtServer, waits: list[float]):
    fake.faults += [Fault("cut", path="fapi"), Fault("lost", path="dapi")]
    assert len(over(fake, "binance", waits).instruments()) == 5
    assert len(waits) == 2


def test_a_server_that_hangs_is_given_up_after_the_time_out(fake: CcxtServer, waits: list[float]):
    source = over(fake, "binance", waits, timeout=0.2)
    source.instruments()
    fake.trade(SPOT, "BTCUSDT", now() - timedelta(days=3), now(), "1h")
    fake.faults.append(Fault("hang"))
    assert times(list(source.pages("BTC-USDT", "1h"))) == stored(fake, SPOT, "BTCUSDT", "1h")
    assert len(waits) == 1


def test_what_does_not_pass_is_said_without_addresses_and_keys(fake: CcxtServer, waits: list[float]):
    source = over(fake, "binance", waits)
    fake.faults += [Fault(status=503, body=f"see {fake.url}/?signature=abc")] * 3
    with pytest.raises(
        SourceUnavailable, match=r"ccxt:binance: list of markets: .*503.*tried 3 times"
    ) as caught:
        source.instruments()
    assert "127.0.0.1" not in caught.value.detail
    assert "signature" not in caught.value.detail


def test_a_ban_longer_than_patience_is_not_waited_for(
    fake: CcxtServer, binance: CcxtSource, waits: list[float]
):
    fake.faults.append(Fault(status=418, headers={"Retry-After": "7200"}, path="klines"))
    with pytest.raises(SourceUnavailable, match="BTC-USDT: DDoSProtection"):
        binance.fetch("BTC-USDT", "1h")
    assert waits == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [(-1121, UnknownName), (-1100, SourceUnavailable), (-1013, SourceUnavailable), (-2015, Denied)],
)
def test_a_refusal_is_not_asked_again(
    fake: CcxtServer, binance: CcxtSource, waits: list[float], code: int, kind: type[Exception]
):
    binance.instruments()
    fake.faults.append(Fault(status=400, body=f'{{"code": {code}, "msg": "No."}}', path="ticker"))
    with pytest.raises(kind, match="binance"):
        binance.quote("BTC-USDT")
    assert waits == []


def test_a_wrong_key_is_denied_and_shown_nowhere(
    fake: CcxtServer, waits: list[float], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    source = over(fake, "binance", waits, KEYS)
    with pytest.raises(Denied, match="GPT_TRADER_CREDENTIAL_CCXT_BINANCE_KEY") as caught:
        source.instruments()
    assert fake.asked_for("sapi/v1/capital/config/getall")
    assert waits == []
    for text in (caught.value.detail, caplog.text, repr(source)):
        assert KEY not in text
        assert SECRET not in text


def test_threads_share_a_source(fake: CcxtServer, binance: CcxtSource):
    expected = stored(fake, SPOT, "BTCUSDT", "1h")
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: times(list(binance.pages("BTC-USDT", "1h"))), range(6)))
    assert found == [expected] * 6
    assert len(fake.asked_for("api.binance.com/api/v3/exchangeInfo")) == 1


def test_the_venues_limit_of_rate_is_kept_among_threads(fake: CcxtServer):
    source = over(fake, "kraken")
    source.instruments()
    source._venue.exchange.rateLimit = 60  # milliseconds from call to call; kraken's own is a second
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: source.quote("BTC-USD"), range(4)))
    assert time.monotonic() - began > 3 * 0.055


# --- quotes


def test_a_quote_is_the_venues_ticker(fake: CcxtServer):
    found = over(fake, "binance").quote("BTC-USDT")
    assert (found.bid, found.ask, found.bid_size, found.ask_size, found.last) == (
        101.4,
        101.6,
        2.5,
        0.5,
        101.5,
    )
    assert (found.symbol, found.source) == ("BTC-USDT", "ccxt:binance")
    assert found.time == datetime(2025, 1, 2, 0, 0, 0, 123000, tzinfo=UTC)


def test_a_quote_without_bid_and_time_has_none_of_the_one_and_now_for_the_other(fake: CcxtServer):
    assert over(fake, "binance").quote("BTC-USDT=USDT").bid is None
    assert datetime.now(UTC) - over(fake, "kraken").quote("BTC-USD").time < timedelta(minutes=1)


# --- stream


async def taken(
    source: CcxtSource, count: int, *symbols: str, tell: Callable[[int], object] = abs
) -> list[LiveBar]:
    """Return the first bars of the stream; `tell` is called with their number at each."""
    found: list[LiveBar] = []
    stream = source.stream(symbols, "1m")
    async with asyncio.timeout(30), aclosing(stream) as bars:  # type: ignore[type-var]
        async for bar in bars:
            found.append(bar)
            tell(len(found))
            if len(found) == count:
                break
    return found


#: A minute that is not over when a test begins.
T0 = int(datetime.now(UTC).timestamp() + 3600) // 60 * 60_000


def said(minute: int, close: float, market: str = "BTCUSDT") -> dict[str, Any]:
    return frame(market, "1m", row(T0 + minute * 60_000, close))


async def test_a_bar_comes_once_a_later_one_has_begun(fake: CcxtServer):
    long_over = said(-70, 9)
    fake.sessions.append(
        Session(frames=(long_over, said(0, 1), said(0, 2), said(1, 3), said(1, 4), said(2, 5)))
    )
    bars = await taken(over(fake, "binance"), 2, "BTC-USDT")
    assert [(bar.symbol, bar.timeframe) for bar in bars] == [("BTC-USDT", "1m")] * 2
    assert [(times([bar.bar]), bar.bar.close.tolist()) for bar in bars] == [
        ([T0], [2.0]),
        ([T0 + 60_000], [4.0]),
    ]


async def test_several_markets_come_side_by_side(fake: CcxtServer):
    frames = tuple(said(minute, 5, market) for minute in range(3) for market in ("BTCUSDT", "ETHBTC"))
    fake.sessions.append(Session(frames=frames))
    bars = await taken(over(fake, "binance"), 4, "BTC-USDT", "ETH-BTC")
    labels = {
        symbol: [times([b.bar])[0] for b in bars if b.symbol == symbol] for symbol in ("BTC-USDT", "ETH-BTC")
    }
    assert labels == {symbol: [T0, T0 + 60_000] for symbol in labels}


async def test_a_lost_connection_is_made_again_and_no_bar_comes_twice_or_unfinished(fake: CcxtServer):
    fake.sessions += [
        Session(frames=(said(0, 1), said(1, 2), said(2, 3)), end="close"),
        Session(handshake=503),
        Session(frames=(said(3, 4), said(4, 5), said(5, 6))),
    ]
    source = CcxtSource("binance", {}, fake.url, patience=Patience(first_wait=0))

    def close_after_two(count: int) -> None:
        if count == 2:
            fake.closing.set()

    bars = await taken(source, 4, "BTC-USDT", tell=close_after_two)
    # The bar of minute 2 was not seen to its end.
    assert [(times([bar.bar])[0] - T0) // 60_000 for bar in bars] == [0, 1, 3, 4]
    assert all(a.bar.time[0] < b.bar.time[0] for a, b in pairwise(bars))


async def test_a_connection_lost_between_two_bars_leaves_none_unfinished(fake: CcxtServer):
    fake.closing.set()
    fake.sessions += [
        Session(frames=(said(2, 3),), end="close"),
        # ccxt may connect again by itself before we do.
        *[Session(frames=(said(3, 4), said(4, 5), said(5, 6)))] * 2,
    ]
    source = CcxtSource("binance", {}, fake.url, patience=Patience(first_wait=0))
    bars = await taken(source, 2, "BTC-USDT")
    assert [(times([bar.bar])[0] - T0) // 60_000 for bar in bars] == [3, 4]


async def test_a_stream_that_cannot_be_had_ends_with_patience(fake: CcxtServer):
    fake.sessions += [Session(handshake=503)] * 3
    source = CcxtSource("binance", {}, fake.url, patience=Patience(attempts=3, first_wait=0))
    with pytest.raises(
        SourceUnavailable, match=r"ccxt:binance: stream of BTC-USDT: .*tried 3 times"
    ) as caught:
        await taken(source, 1, "BTC-USDT")
    assert "127.0.0.1" not in caught.value.detail


async def test_a_stream_of_an_unknown_symbol_names_the_nearest(fake: CcxtServer):
    with pytest.raises(UnknownName, match="BTC-USDT"):
        await taken(over(fake, "binance"), 1, "BTC-USDTX")


def test_a_venue_without_a_stream_of_bars_refuses_one():
    with pytest.raises(Refused, match="has no live stream of bars"):
        CcxtSource("bitstamp", {}).stream(["BTC-USD"], "1m")
