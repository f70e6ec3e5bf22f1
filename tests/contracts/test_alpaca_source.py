"""Source alpaca against a loopback Alpaca: the contract, pages, faults, actions, quotes and the stream."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from gpt_trader.adapters.alpaca import AlpacaSource
from gpt_trader.adapters.alpaca.bars import raw_bars
from gpt_trader.adapters.alpaca.client import ACCOUNT_LIMIT
from gpt_trader.adapters.base import LiveBar, Source
from gpt_trader.adapters.patience import Patience, RateLimit
from gpt_trader.adapters.sources import Access, source
from gpt_trader.errors import (
    BadBars,
    Denied,
    GptTraderError,
    NotEnoughBars,
    Refused,
    SourceUnavailable,
    UnknownName,
)
from gpt_trader.raw_bars import RawBars, inspect
from tests.contracts.test_sources import (  # noqa: F401 - collected here too, for this source
    test_a_bound_without_a_zone_is_refused,
    test_a_range_without_bars_says_which_there_are,
    test_a_source_lists_instruments_with_valid_ids,
    test_an_unknown_symbol_names_the_nearest,
    test_an_unknown_timeframe_is_refused,
    test_both_bounds_are_inclusive,
    test_what_a_source_gives_passes_inspection,
)
from tests.fakes.alpaca_server import KEY, SECRET, AlpacaServer, Fault, Row, Session, asset, daily, minutes
from tests.lake_samples import equal

CREDENTIAL = {"key": SecretStr(KEY), "secret": SecretStr(SECRET)}
OPEN = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer().serving() as fake:
        yield fake


@pytest.fixture
def alpaca(server: AlpacaServer) -> AlpacaServer:
    """The one server, without a memory of other tests."""
    fake = server
    fake.reset()
    fake.assets = [asset("AAPL", cusip="037833100"), asset("KO", "NYSE"), asset("BTC/USD", "CRYPTO")]
    for symbol in ("AAPL", "KO"):
        fake.bars[symbol, "1Day"] = daily(date(2020, 8, 3), 300)
    fake.bars["BTC/USD", "1Day"] = daily(date(2021, 3, 1), 300, zone=UTC, weekends=True)
    fake.bars["AAPL", "1Min"] = minutes(OPEN, 390)
    return fake


@pytest.fixture
def waits() -> list[float]:
    """What was slept between attempts, in seconds."""
    return []


@pytest.fixture
def mine(alpaca: AlpacaServer, waits: list[float]) -> AlpacaSource:
    return over(alpaca, waits)


def over(alpaca: AlpacaServer, waits: list[float], **options: Any) -> AlpacaSource:
    patience = Patience(attempts=3, first_wait=0.001, sleep=waits.append)
    settings: dict[str, Any] = {"patience": patience, "limit": RateLimit(10_000, 60.0), "timeout": 10.0}
    return AlpacaSource(options.pop("credential", CREDENTIAL), alpaca.url, **settings | options)


@pytest.fixture
def any_source(mine: AlpacaSource) -> Source:
    """The source that the contract's tests are about."""
    return mine


def named(value: object) -> str | None:
    """Return a short name for a test's fault or session, None for anything else."""
    if isinstance(value, Fault):
        return f"{value.kind}-{value.status}" if value.kind == "status" else value.kind
    if isinstance(value, Session):
        refused = value.handshake or value.auth_error or value.subscribe_error
        return str(refused) if refused else f"{len(value.frames)}-frames-{value.end}"
    return None


def days(raw: RawBars) -> list[str]:
    return raw.time.astype("datetime64[D]").astype(str).tolist()


# --- instruments


def test_a_source_by_name_opens_nothing_and_demands_its_keys_when_used(alpaca: AlpacaServer):
    found = source("alpaca", access=Access({"alpaca": alpaca.url}))
    assert isinstance(found, AlpacaSource)
    for use in (found.instruments, lambda: found.quote("AAPL"), lambda: found.fetch("AAPL", "1d")):
        with pytest.raises(Denied, match=r"key, secret is not known.*GPT_TRADER_CREDENTIAL_ALPACA_SECRET"):
            use()
    assert alpaca.asked == []


def test_a_base_url_that_is_none_is_refused():
    with pytest.raises(Refused, match=r"source_urls\.alpaca: is no URL"):
        AlpacaSource(CREDENTIAL, "127.0.0.1:9000")


def test_the_list_is_asked_for_once_and_one_asset_alone(alpaca: AlpacaServer, mine: AlpacaSource):
    assert mine.instrument("aapl").name == "AAPL Inc."
    assert mine.instrument("BTC-USD") == mine.instrument("btc/usd")
    assert alpaca.paths() == ["/v2/assets/AAPL", "/v2/assets/BTC%2FUSD"]
    assert [each.symbol for each in mine.instruments()] == ["AAPL", "BTC-USD", "KO"]
    assert mine.instruments() == mine.instruments()
    assert mine.instrument("KO").venue == "XNYS"
    assert [query for path, query in alpaca.asked if path == "/v2/assets"] == [
        {"asset_class": "us_equity"},
        {"asset_class": "crypto"},
    ]


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        (asset("AAPL"), {"venue": "XNAS", "calendar": "XNYS", "bars_a_year": 252, "currency": "USD"}),
        (asset("AAPL"), {"session_minutes": 390, "tick": Decimal("0.01"), "lot": Decimal("1e-9")}),
        (asset("SPY", "ARCA", fractionable=False), {"venue": "ARCX", "lot": Decimal(1), "fractional": False}),
        (asset("GME", "NYSE", shortable=False), {"venue": "XNYS", "shortable": False, "name": "GME Inc."}),
        (asset("IMO", "AMEX", name=None), {"venue": "XASE", "name": ""}),
        (asset("CBOE", "BATS"), {"venue": "BATS"}),
        (asset("NEWEX", "FTXU"), {"venue": "FTXU"}),
        (asset("NOEX", ""), {"venue": "unknown"}),
        (asset("BRK.B", "NYSE"), {"symbol": "BRK.B"}),
        (asset("ETH/BTC", "CRYPTO"), {"symbol": "ETH-BTC", "venue": "ALPACA", "calendar": "24/7"}),
        (asset("ETH/BTC", "CRYPTO"), {"bars_a_year": 365, "session_minutes": 1440, "currency": "BTC"}),
        (asset("ETH/BTC", "CRYPTO"), {"tick": Decimal("0.5"), "lot": Decimal("1e-9")}),
        (asset("X/USD", "CRYPTO", price_increment=None), {"tick": Decimal("0.01")}),
        (asset("X/USD", "CRYPTO", min_trade_increment="NaN"), {"lot": Decimal(1)}),
    ],
)
def test_the_facts_of_an_asset(
    alpaca: AlpacaServer, mine: AlpacaSource, given: Row, facts: dict[str, object]
):
    alpaca.assets = [given]
    [found] = mine.instruments()
    assert {name: getattr(found, name) for name in facts} == facts


def test_an_active_listing_counts_and_what_has_no_id_is_left_out(alpaca: AlpacaServer, mine: AlpacaSource):
    dead = asset("AAPL", "OTC", status="inactive")
    odd = [asset("A B"), asset("GONE-W"), asset("X" * 40), {"class": "us_equity"}]
    alpaca.assets = [dead, asset("AAPL"), dead, asset("TWTR", "NYSE", status="inactive"), *odd]
    assert [(each.symbol, each.venue) for each in mine.instruments()] == [("AAPL", "XNAS"), ("TWTR", "XNYS")]


@pytest.mark.parametrize("symbol", ["AAPK", "037833100", "../account", "BTC-EUR", "", "AAPL?x=1"])
def test_a_symbol_that_is_none_is_unknown(mine: AlpacaSource, symbol: str):
    with pytest.raises(UnknownName, match="source alpaca does not list"):
        mine.instrument(symbol)
    with pytest.raises(UnknownName):
        mine.fetch(symbol, "1d")


# --- bars


def test_daily_bars_of_stocks_are_raw_and_labeled_by_session(alpaca: AlpacaServer, mine: AlpacaSource):
    alpaca.bars["AAPL", "1Day"] = daily(date(2024, 3, 7), 4)
    raw = mine.fetch("AAPL", "1d")
    assert [each["t"][11:13] for each in alpaca.bars["AAPL", "1Day"]] == ["05", "05", "04", "04"]
    assert days(raw) == ["2024-03-07", "2024-03-08", "2024-03-11", "2024-03-12"]
    assert (raw.time == raw.time.astype("datetime64[D]")).all()
    assert raw.close.tolist() == [100, 101, 102, 103]
    assert raw.factor.tolist() == [1, 1, 1, 1]
    path, query = alpaca.asked[-1]
    assert path == "/v2/stocks/bars"
    assert (query["adjustment"], query["feed"], query["timeframe"]) == ("raw", "iex", "1Day")


@pytest.mark.parametrize("zone", ["UTC", "America/Chicago"])
def test_daily_bars_of_crypto_are_labeled_alike_before_and_after_alpaca_went_to_utc(
    alpaca: AlpacaServer, mine: AlpacaSource, zone: str
):
    from zoneinfo import ZoneInfo

    alpaca.bars["BTC/USD", "1Day"] = daily(date(2024, 3, 9), 3, zone=ZoneInfo(zone), weekends=True)
    assert days(mine.fetch("BTC-USD", "1d")) == ["2024-03-09", "2024-03-10", "2024-03-11"]
    assert alpaca.paths()[-1] == "/v1beta3/crypto/us/bars"
    assert alpaca.asked[-1][1]["symbols"] == "BTC/USD"


def test_weeks_are_whole_and_labeled_by_their_monday(alpaca: AlpacaServer, mine: AlpacaSource):
    alpaca.bars["AAPL", "1Day"] = daily(date(2024, 1, 2), 14)
    raw = mine.fetch("AAPL", "1w", end=date(2024, 1, 9))
    assert days(raw) == ["2024-01-01", "2024-01-08"]
    assert raw.volume.tolist() == [4000, 5000]
    later = mine.fetch("AAPL", "1w", date(2024, 1, 4), date(2024, 1, 15))
    assert days(later) == ["2024-01-08", "2024-01-15"]


def test_a_week_whose_monday_is_a_holiday_has_its_monday_for_a_label():
    tuesday = daily(date(2024, 1, 16), 1)
    assert days(raw_bars(tuesday, "1w", "AAPL")) == ["2024-01-15"]


def test_minutes_are_labeled_by_their_open_in_utc(mine: AlpacaSource):
    raw = mine.fetch("AAPL", "1m")
    assert len(raw) == 390
    assert raw.time[[0, -1]].tolist() == [datetime(2024, 1, 2, 14, 30), datetime(2024, 1, 2, 20, 59)]  # noqa: DTZ001
    part = mine.fetch("AAPL", "1m", OPEN + timedelta(minutes=5), OPEN + timedelta(minutes=7))
    assert equal(part, raw[5:8])


def test_a_window_is_whole_whatever_pages_the_vendor_makes_of_it(alpaca: AlpacaServer, mine: AlpacaSource):
    alpaca.page_size = 37
    [page] = mine.pages("AAPL", "1m", end=OPEN + timedelta(days=1))
    assert len(page) == 390
    tokens = ["page_token" in query for _, query in alpaca.asked if query.get("limit") == "10000"]
    assert tokens == [False] + [True] * 10


def test_windows_ascend_and_whoever_has_stored_one_goes_on_behind_it(
    alpaca: AlpacaServer, mine: AlpacaSource
):
    alpaca.page_size = 100
    alpaca.bars["AAPL", "1Min"] = [
        each for n in range(5) for each in minutes(OPEN + timedelta(weeks=2 * n), 200)
    ]
    end = OPEN + timedelta(weeks=10)
    pages = list(mine.pages("AAPL", "1m", end=end))
    assert [len(page) for page in pages] == [200] * 5
    whole = mine.fetch("AAPL", "1m", end=end)
    assert (np.diff(whole.time) > np.timedelta64(0, "m")).all()

    stored = list(islice(mine.pages("AAPL", "1m", end=end), 2))
    last = stored[-1].time[-1].item().replace(tzinfo=UTC)
    alpaca.asked.clear()
    rest = list(mine.pages("AAPL", "1m", last + timedelta(minutes=1), end))
    assert equal(
        RawBars.joined(RawBars.joined(*stored), RawBars.joined(RawBars.joined(*rest[:2]), rest[2])), whole
    )
    assert min(query["start"] for path, query in alpaca.asked) > stored[-1].time[-1].item().isoformat()


def test_an_empty_stretch_makes_no_page(alpaca: AlpacaServer, mine: AlpacaSource):
    alpaca.bars["AAPL", "1Min"] = minutes(OPEN, 10) + minutes(OPEN + timedelta(days=62), 10)
    pages = list(mine.pages("AAPL", "1m", end=OPEN + timedelta(days=80)))
    assert [len(page) for page in pages] == [10, 10]


def repeated_pages(fake: AlpacaServer) -> None:
    fake.repeats_pages = True


def reordered_pages(fake: AlpacaServer) -> None:
    fake.spoil = lambda rows: rows[::-1]


def token_that_stays(fake: AlpacaServer) -> None:
    fake.same_token = 2


@pytest.mark.parametrize("disorder", [repeated_pages, reordered_pages, token_that_stays])
def test_disorder_of_pages_loses_no_bar(
    alpaca: AlpacaServer, mine: AlpacaSource, disorder: Callable[[AlpacaServer], None]
):
    expected = mine.fetch("AAPL", "1m")
    alpaca.page_size = 50
    disorder(alpaca)
    assert equal(inspect(mine.fetch("AAPL", "1m"), "1m").clean, expected)


def test_a_token_that_leads_in_a_circle_is_given_up(alpaca: AlpacaServer, mine: AlpacaSource):
    alpaca.page_size, alpaca.same_token = 50, 1000
    with pytest.raises(SourceUnavailable, match="the same page again"):
        mine.fetch("AAPL", "1m")


def test_values_that_are_missing_are_held_back_with_their_reason(alpaca: AlpacaServer, mine: AlpacaSource):
    def spoil(rows: list[Row]) -> list[Row]:
        return (
            [
                {**rows[0], "c": None},
                {**rows[1], "h": float("nan")},
                {**rows[2], "t": None},
                {name: value for name, value in rows[3].items() if name != "v"},
                *rows[4:],
            ]
            if len(rows) > 4
            else rows
        )

    alpaca.spoil = spoil
    for timeframe, last in (("1m", 390), ("1d", 300)):
        inspection = inspect(mine.fetch("AAPL", timeframe), timeframe)
        assert len(inspection.clean) == last - 4
        assert inspection.quarantined.counts() == {
            "price is not a finite number": 2,
            "volume is not a finite number": 1,
            "time is missing": 1,
        }


@pytest.mark.parametrize(
    ("spoiled", "complaint"),
    [
        ({"c": "n/a"}, "could not convert string to float"),
        ({"t": "yesterday"}, "yesterday"),
        ({"t": "2024-01-02T14:30:00"}, "is a time without a zone"),
        ({"t": 1704205800}, "'1704205800' is no time"),
        ({"o": {}}, "cannot be read"),
        ({"o": [1]}, "cannot be read"),
        ({"o": 10**400}, "cannot be read"),
        (None, "what are no rows"),
    ],
)
def test_what_cannot_be_read_as_bars_is_refused(
    alpaca: AlpacaServer, mine: AlpacaSource, spoiled: Row | None, complaint: str
):
    alpaca.spoil = lambda rows: [None if spoiled is None else {**rows[0], **spoiled}]
    with pytest.raises(BadBars, match=complaint):
        mine.fetch("AAPL", "1m")


def test_a_stock_that_was_never_traded_has_no_bars_at_all(alpaca: AlpacaServer, mine: AlpacaSource):
    alpaca.assets.append(asset("NEW"))
    with pytest.raises(NotEnoughBars, match=r"source alpaca's NEW \(1d, feed iex\) has no bars at all"):
        mine.fetch("NEW", "1d")
    with pytest.raises(NotEnoughBars, match="it has 2020-08-03 to 2021-09-24"):
        mine.fetch("AAPL", "1d", date(2199, 1, 1))


# --- faults

ONCE = [
    Fault(status=429, headers={"Retry-After": "7"}),
    Fault(status=429),
    *(Fault(status=status) for status in (408, 500, 502, 503, 504)),
    *(Fault(kind) for kind in ("cut", "lost", "empty")),
    Fault("body", body="null"),
    Fault("body", body="[]"),
    Fault("body", body='{"bars": {}}'),
    Fault("body", body='{"next_page_token": null}'),
    Fault("body", body='{"bars": [], "next_page_token": null}'),
]


@pytest.mark.parametrize("later_page", [False, True])
@pytest.mark.parametrize("fault", ONCE, ids=named)
def test_what_passes_by_itself_loses_no_bar(
    alpaca: AlpacaServer, mine: AlpacaSource, waits: list[float], fault: Fault, later_page: bool
):
    expected = mine.fetch("KO", "1d")
    alpaca.page_size = 100
    fault = Fault(fault.kind, fault.status, fault.headers, fault.body, "/v2/stocks/bars", later_page)
    alpaca.faults.extend([fault] * 2)
    assert equal(mine.fetch("KO", "1d"), expected)
    assert not alpaca.faults
    assert len(waits) == 2
    assert (waits == [7, 7]) == ("Retry-After" in fault.headers)


def test_only_the_page_that_failed_is_asked_again(alpaca: AlpacaServer, mine: AlpacaSource):
    alpaca.page_size = 100
    alpaca.faults.append(Fault(path="/v2/stocks/bars", later_page=True))
    mine.fetch("KO", "1d")
    asked = [query for path, query in alpaca.asked if path == "/v2/stocks/bars" and query["limit"] == "10000"]
    assert len(asked) == 4
    assert sum("page_token" not in query for query in asked) == 1


def test_the_rate_limit_says_until_when(alpaca: AlpacaServer, mine: AlpacaSource, waits: list[float]):
    reset = datetime.now(UTC) + timedelta(seconds=40)
    alpaca.faults.append(Fault(status=429, headers={"X-RateLimit-Reset": str(int(reset.timestamp()))}))
    mine.instrument("AAPL")
    assert waits == [pytest.approx(39, abs=3)]


def test_a_server_that_hangs_is_not_waited_for(alpaca: AlpacaServer, waits: list[float]):
    alpaca.faults.extend([Fault("hang")] * 3)
    with pytest.raises(
        SourceUnavailable, match=r"asset AAPL: no whole answer \(ReadTimeout\) \(tried 3 times\)"
    ):
        over(alpaca, waits, timeout=0.05).instrument("AAPL")


def test_a_server_that_is_not_there_is_said_so(waits: list[float]):
    gone = AlpacaServer()
    gone._listener.close()
    with pytest.raises(SourceUnavailable, match="ConnectionError"):
        over(gone, waits).instruments()


LASTING: list[tuple[Fault, type[GptTraderError], str]] = [
    (Fault(status=503), SourceUnavailable, r"HTTP 503 \(tried 3 times\)"),
    (Fault(status=429, headers={"Retry-After": "3600"}), SourceUnavailable, "rate limit reached"),
    (Fault("cut"), SourceUnavailable, "JSONDecodeError"),
    (Fault("lost"), SourceUnavailable, "no whole answer"),
    (Fault(status=401, body='{"message": "unauthorized."}'), Denied, "HTTP 401 .unauthorized"),
    (Fault(status=403, body=f'{{"message": "{SECRET} of {KEY}"}}'), Denied, r"HTTP 403 \(\*\*\* of \*\*\*\)"),
    (Fault(status=403), Denied, "no reason given"),
    (Fault(status=400, body='{"message": "invalid start"}'), SourceUnavailable, "invalid start"),
    (Fault(status=422, body='{"message": "invalid end"}'), SourceUnavailable, "invalid end"),
    (Fault(status=302, headers={"Location": "http://127.0.0.1:1/"}), SourceUnavailable, "no whole answer"),
]


@pytest.mark.parametrize("path", ["/v2/stocks/bars", "/v1/corporate-actions", "/v2/stocks/quotes"])
@pytest.mark.parametrize(("fault", "error", "says"), LASTING, ids=named)
def test_what_stays_is_said_without_a_secret(
    alpaca: AlpacaServer,
    mine: AlpacaSource,
    caplog: pytest.LogCaptureFixture,
    path: str,
    fault: Fault,
    error: type[GptTraderError],
    says: str,
):
    caplog.set_level(logging.DEBUG)
    alpaca.faults.extend([Fault(fault.kind, fault.status, fault.headers, fault.body, path)] * 3)
    with pytest.raises(error, match=says) as caught:
        {
            "/v2/stocks/bars": lambda: mine.fetch("AAPL", "1d"),
            "/v1/corporate-actions": lambda: mine.actions("AAPL"),
            "/v2/stocks/quotes": lambda: mine.quote("AAPL"),
        }[path]()
    told = [str(caught.value), repr(caught.value), repr(mine), caplog.text]
    assert not any(secret in text for secret in (KEY, SECRET) for text in told)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("key", "error"), [("PKWRONG", "HTTP 401"), ("PK\nX: 1", "blanks or signs"), ("PKÄ", "blanks or signs")]
)
def test_a_wrong_key_is_denied_and_not_shown(alpaca: AlpacaServer, waits: list[float], key: str, error: str):
    wrong = over(alpaca, waits, credential={"key": SecretStr(key), "secret": SecretStr(SECRET)})
    with pytest.raises(Denied, match=error) as caught:
        wrong.fetch("AAPL", "1d")
    assert key not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert not waits


def test_a_list_of_assets_that_is_none_is_asked_for_again(alpaca: AlpacaServer, mine: AlpacaSource):
    alpaca.faults.extend([Fault("body", body='{"a": 1}'), Fault("cut"), Fault(path="/v2/assets/")])
    assert len(mine.instruments()) == 3
    alpaca.faults.appendleft(Fault(status=422, body='{"message": "odd"}'))
    with pytest.raises(SourceUnavailable, match="list of us_equity: alpaca rejects the question"):
        over(alpaca, []).instruments()


def test_calls_keep_to_the_limit_of_an_account(alpaca: AlpacaServer, waits: list[float]):
    paused: list[float] = []
    limit = RateLimit(2, 60.0, clock=lambda: 0.0, sleep=paused.append)
    over(alpaca, waits, limit=limit).fetch("AAPL", "1d")
    assert len(alpaca.asked) == 3
    assert paused == [60.0]
    assert (ACCOUNT_LIMIT.calls, ACCOUNT_LIMIT.seconds) == (200, 60)


def test_two_threads_share_a_source(alpaca: AlpacaServer, mine: AlpacaSource):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda symbol: mine.fetch(symbol, "1d"), ["AAPL", "KO", "BTC-USD"] * 4))
        lists = list(pool.map(lambda _: mine.instruments(), range(4)))
    assert [len(each) for each in found] == [300] * 12
    assert all(each == lists[0] for each in lists)
    assert alpaca.paths().count("/v2/assets") == 2


# --- corporate actions


def action(symbol: str, day: str, **facts: object) -> Row:
    return {"symbol": symbol, "cusip": "037833100", "process_date": day, "ex_date": day, **facts}


def test_splits_and_dividends_come_from_all_pages(alpaca: AlpacaServer, mine: AlpacaSource):
    alpaca.page_size = 2
    alpaca.repeats_pages = True
    alpaca.actions = {
        "forward_splits": [action("AAPL", "2020-08-31", id="a", new_rate=4, old_rate=1)],
        "reverse_splits": [action("AAPL", "2022-05-02", id="b", new_rate=1, old_rate=50)],
        "stock_dividends": [action("AAPL", "2023-05-19", id="c", rate=0.05)],
        "cash_dividends": [
            action("AAPL", "2020-08-07", id="d", rate=0.82, special=False, foreign=False),
            action("AAPL", "2023-05-19", id="e", rate=0.125),
            action("AAPL", "2023-05-19", id="f", rate=0.5, special=True, currency="USD"),
            action("KO", "2023-06-15", id="g", rate=0.46),
        ],
    }
    found = mine.actions("AAPL")
    assert found is not None
    assert found.ex_date.astype(str).tolist() == ["2020-08-07", "2020-08-31", "2022-05-02", "2023-05-19"]
    assert found.split.tolist() == [1, 4, 0.02, 1.05]
    assert found.dividend.tolist() == [0.82, 0, 0, 0.625]
    assert len(alpaca.asked) == 7


def test_a_dividend_that_is_paid_later_counts_and_one_only_announced_does_not(
    alpaca: AlpacaServer, mine: AlpacaSource
):
    today = datetime.now(UTC).date()
    soon = (today + timedelta(days=30)).isoformat()
    past = action("KO", soon, rate=0.5) | {"ex_date": (today - timedelta(days=3)).isoformat()}
    alpaca.actions = {"cash_dividends": [past, action("KO", soon, rate=9)]}
    found = mine.actions("KO")
    assert found is not None
    assert found.dividend.tolist() == [0.5]


def test_crypto_has_no_actions_and_a_stock_may_have_none(alpaca: AlpacaServer, mine: AlpacaSource):
    assert mine.actions("BTC-USD") is None
    assert "/v1/corporate-actions" not in alpaca.paths()
    found = mine.actions("KO")
    assert found is not None
    assert len(found) == 0


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("forward_splits", {"new_rate": 4, "old_rate": 0}),
        ("forward_splits", {"new_rate": -4, "old_rate": 1}),
        ("reverse_splits", {"new_rate": None, "old_rate": 1}),
        ("cash_dividends", {"rate": float("nan")}),
        ("cash_dividends", {"rate": 1.0, "currency": "CAD"}),
        ("cash_dividends", {}),
        ("stock_dividends", {"rate": 0.1, "ex_date": None}),
    ],
)
def test_an_action_that_cannot_be_read_is_refused(
    alpaca: AlpacaServer, mine: AlpacaSource, kind: str, row: Row
):
    alpaca.actions = {kind: [{**action("AAPL", "2020-08-31"), **row}]}
    with pytest.raises(BadBars, match=r"corporate actions|cannot be read"):
        mine.actions("AAPL")


# --- quotes


def test_a_quote_joins_the_newest_bid_ask_and_trade(alpaca: AlpacaServer, mine: AlpacaSource):
    bid_ask = {"t": "2024-01-02T20:59:59.123456789Z", "bp": 99.5, "bs": 2, "ap": 0, "as": 0, "ax": " "}
    alpaca.latest["quotes"]["AAPL"] = bid_ask
    alpaca.latest["trades"]["AAPL"] = {"t": "2024-01-02T20:58:00Z", "p": 99.75, "s": 100, "x": "V"}
    found = mine.quote("aapl")
    assert (found.symbol, found.source) == ("AAPL", "alpaca")
    assert found.time == datetime(2024, 1, 2, 20, 59, 59, 123456, tzinfo=UTC)
    assert (found.bid, found.bid_size, found.ask, found.ask_size, found.last) == (99.5, 2, None, None, 99.75)
    assert all(query["feed"] == "iex" for path, query in alpaca.asked if path.endswith("/latest"))


def test_a_quote_of_crypto_may_have_no_trade(alpaca: AlpacaServer, mine: AlpacaSource):
    bid_ask = {"t": "2024-01-02T20:59:59Z", "bp": 1.5, "bs": 0.25, "ap": 1.6, "as": 3}
    alpaca.latest["quotes"]["BTC/USD"] = bid_ask
    found = mine.quote("BTC-USD")
    assert (found.bid, found.bid_size, found.ask, found.last) == (1.5, 0.25, 1.6, None)
    assert alpaca.paths()[1:] == ["/v1beta3/crypto/us/latest/quotes", "/v1beta3/crypto/us/latest/trades"]


@pytest.mark.parametrize(
    ("quote", "error"),
    [
        (None, NotEnoughBars),
        ({"bp": 1.5}, NotEnoughBars),
        ({"t": "noon"}, BadBars),
        ([], NotEnoughBars),
        ("x", BadBars),
    ],
)
def test_a_quote_that_is_none_is_said_so(
    alpaca: AlpacaServer, mine: AlpacaSource, quote: Any, error: type[GptTraderError]
):
    alpaca.latest["quotes"]["AAPL"] = quote
    with pytest.raises(error, match=r"has no quote or trade of AAPL|quote of AAPL cannot be read"):
        mine.quote("AAPL")


# --- stream


def live(symbol: str, minute: int, price: float = 50.0) -> Row:
    return {"T": "b", "S": symbol, **minutes(OPEN + timedelta(minutes=minute), 1)[0], "c": price}


async def taken(bars: AsyncIterator[LiveBar], count: int) -> list[tuple[str, int, float]]:
    """Return symbol, minute since OPEN and close of the first bars; close the stream then."""
    found = []
    async with aclosing(bars) as stream:  # type: ignore[type-var]
        async for each in stream:
            minute = (each.bar.time[0].item().replace(tzinfo=UTC) - OPEN) // timedelta(minutes=1)
            found.append((each.symbol, minute, float(each.bar.close[0])))
            if len(found) == count:
                break
    return found


async def test_bars_are_streamed_as_they_are_completed(alpaca: AlpacaServer, mine: AlpacaSource):
    frames = ([live("AAPL", 0), live("KO", 0, 60)], [{"T": "q", "S": "KO"}], [live("AAPL", 1)])
    alpaca.sessions.append(Session(frames=frames))
    found = await taken(mine.stream(["aapl", "KO", "AAPL"], "1m"), 3)
    assert found == [("AAPL", 0, 50), ("KO", 0, 60), ("AAPL", 1, 50)]
    assert alpaca.heard == [{"action": "subscribe", "bars": ["AAPL", "KO"]}]


async def test_crypto_is_streamed_under_our_symbol(alpaca: AlpacaServer, mine: AlpacaSource):
    alpaca.sessions.append(Session(frames=([live("BTC/USD", 3)],)))
    assert await taken(mine.stream(["BTC-USD"], "1m"), 1) == [("BTC-USD", 3, 50)]
    assert alpaca.heard == [{"action": "subscribe", "bars": ["BTC/USD"]}]


LOST = [
    Session(frames=([live("AAPL", 0)],), end="cut"),
    Session(frames=([live("AAPL", 0)],), end="close"),
    Session(frames=([live("AAPL", 0)], '[{"T": "b", "S": "AA'), end="hold"),
    Session(frames=([live("AAPL", 0)], '{"T": "b"}'), end="hold"),
    Session(frames=([live("AAPL", 0)], [{"T": "b", "S": "AAPL", "t": "noon"}]), end="hold"),
    Session(frames=([live("AAPL", 0)], [{"T": "error", "code": 407, "msg": "slow client"}]), end="hold"),
    Session(frames=([live("AAPL", 0)], [{"T": "error", "code": 500, "msg": "internal error"}]), end="hold"),
]


@pytest.mark.parametrize("lost", LOST, ids=named)
async def test_a_lost_connection_is_made_again_and_no_bar_comes_twice(alpaca: AlpacaServer, lost: Session):
    mine = over(alpaca, [], patience=Patience(attempts=4, first_wait=0.001))
    again = Session(frames=([live("AAPL", 0)], [live("AAPL", 2)]))
    alpaca.sessions.extend([lost, Session(auth_error=406), Session(handshake=503), again])
    assert await taken(mine.stream(["AAPL"], "1m"), 2) == [("AAPL", 0, 50), ("AAPL", 2, 50)]
    assert len(alpaca.heard) == 2


async def test_values_that_are_missing_reach_whoever_inspects_them(alpaca: AlpacaServer, mine: AlpacaSource):
    odd = {**live("AAPL", 0), "c": None}
    alpaca.sessions.append(Session(frames=([{**odd, "t": None}, odd],)))
    [(symbol, minute, close)] = await taken(mine.stream(["AAPL"], "1m"), 1)
    assert (symbol, minute) == ("AAPL", 0)
    assert np.isnan(close)


REFUSALS: list[tuple[Session, type[GptTraderError], str]] = [
    (Session(auth_error=401), Denied, "error 401"),
    (Session(auth_error=402), Denied, r"error 402 \(refused \*\*\*\)"),
    (Session(auth_error=403), Denied, "error 403"),
    (Session(auth_error=406), SourceUnavailable, "another stream with this key is open"),
    (Session(auth_error=409), Denied, "error 409"),
    (Session(subscribe_error=400), Refused, "error 400"),
    (Session(subscribe_error=405), Denied, "error 405"),
    (Session(handshake=401), Denied, "HTTP 401"),
    (Session(handshake=403), Denied, "HTTP 403"),
    (Session(handshake=404), SourceUnavailable, "HTTP 404"),
]


@pytest.mark.parametrize(("session", "error", "says"), REFUSALS, ids=named)
async def test_a_refusal_of_the_stream_is_final_and_shows_no_secret(
    alpaca: AlpacaServer,
    mine: AlpacaSource,
    caplog: pytest.LogCaptureFixture,
    session: Session,
    error: type[GptTraderError],
    says: str,
):
    caplog.set_level(logging.DEBUG)
    alpaca.sessions.append(session)
    with pytest.raises(error, match=says) as caught:
        await taken(mine.stream(["AAPL"], "1m"), 1)
    assert not any(secret in text for secret in (KEY, SECRET) for text in (str(caught.value), caplog.text))
    assert not alpaca.sessions


async def test_a_stream_without_its_keys_or_with_wrong_ones_is_denied(alpaca: AlpacaServer):
    with pytest.raises(Denied, match="needs credentials"):
        await taken(over(alpaca, [], credential={}).stream(["AAPL"], "1m"), 1)


@pytest.mark.parametrize(
    "session", [Session(end="cut"), Session(handshake=500), Session(auth_error=404)], ids=named
)
async def test_a_stream_that_never_gets_going_is_given_up(
    alpaca: AlpacaServer, mine: AlpacaSource, session: Session
):
    alpaca.sessions.extend([session] * 3)
    with pytest.raises(SourceUnavailable, match=r"stream of AAPL: .*\(tried 3 times\)"):
        await taken(mine.stream(["AAPL"], "1m"), 1)
    assert not alpaca.sessions


async def test_bars_reset_the_patience_of_a_stream(alpaca: AlpacaServer, mine: AlpacaSource):
    alpaca.sessions.extend(Session(frames=([live("AAPL", n)],), end="cut") for n in range(6))
    assert [minute for _, minute, _ in await taken(mine.stream(["AAPL"], "1m"), 6)] == list(range(6))


async def test_a_server_that_says_nothing_is_not_waited_for(alpaca: AlpacaServer, waits: list[float]):
    alpaca.sessions.extend([Session(silent=True)] * 3)
    impatient = over(alpaca, waits, timeout=0.5)
    impatient.instruments()
    with pytest.raises(SourceUnavailable, match="TimeoutError"):
        await taken(impatient.stream(["AAPL"], "1m"), 1)


@pytest.mark.parametrize(
    ("symbols", "timeframe", "error", "says"),
    [
        (["AAPL"], "5m", Refused, "timeframe: alpaca streams minute bars; allowed: 1m"),
        (["AAPL", "BTC-USD"], "1m", Refused, "AAPL, BTC-USD|stocks alone, or crypto alone"),
        ([], "1m", Refused, "stocks alone"),
        (["A B"], "1m", Refused, "symbols: a symbol is"),
    ],
)
def test_a_stream_that_there_is_not_is_refused_at_once(
    mine: AlpacaSource, symbols: list[str], timeframe: str, error: type[GptTraderError], says: str
):
    with pytest.raises(error, match=says):
        mine.stream(symbols, timeframe)


async def test_a_symbol_that_is_none_is_not_subscribed_to(alpaca: AlpacaServer, mine: AlpacaSource):
    with pytest.raises(UnknownName):
        await taken(mine.stream(["AAPL", "AAPLX"], "1m"), 1)
    assert alpaca.heard == []
