"""Source yahoo against a loopback Yahoo: printed prices, actions, windows, labels, faults, facts and quotes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt_trader.adapters.patience import Patience, RateLimit
from gpt_trader.adapters.sources import Access, source
from gpt_trader.adapters.yahoo import YahooSource
from gpt_trader.adapters.yahoo.exchanges import EXCHANGES
from gpt_trader.adjustments import adjusted
from gpt_trader.calendars import calendar_names
from gpt_trader.errors import (
    BadBars,
    GptTraderError,
    NotEnoughBars,
    Refused,
    SourceUnavailable,
    UnknownName,
)
from gpt_trader.raw_bars import RawBars, inspect
from tests.contracts.test_sources import (  # noqa: F401 - collected here too, for this source
    test_both_bounds_are_inclusive,
    test_what_a_source_gives_passes_inspection,
)
from tests.fakes.yahoo_server import (
    Fault,
    Listing,
    Row,
    YahooServer,
    adjusted_closes,
    daily,
    error_body,
    every,
    meta,
    row,
)
from tests.lake_samples import equal

FRIDAY = date(2026, 11, 20)
MINUTE = timedelta(minutes=1)
#: 400 weekdays up to the Thursday before the fake's clock.
DAYS = [day for n in range(1, 561) if (day := FRIDAY - timedelta(days=561 - n)).weekday() < 5]


@pytest.fixture(scope="module")
def server() -> Iterator[YahooServer]:
    with YahooServer().serving() as fake:
        yield fake


@pytest.fixture
def yahoo(server: YahooServer) -> YahooServer:
    """The one server, without a memory of other tests."""
    server.reset()
    server.listings["AAPL"] = Listing(meta("AAPL"), {"1d": daily(DAYS)})
    return server


@pytest.fixture
def waits() -> list[float]:
    """What was slept between attempts, in seconds."""
    return []


@pytest.fixture
def mine(yahoo: YahooServer, waits: list[float]) -> YahooSource:
    return over(yahoo, waits)


def over(yahoo: YahooServer, waits: list[float], timeout: float = 10.0) -> YahooSource:
    patience = Patience(attempts=3, first_wait=0.001, sleep=waits.append)
    limit = RateLimit(10_000, 60.0)
    return YahooSource(yahoo.url, patience=patience, limit=limit, timeout=timeout, clock=lambda: yahoo.now)


class Listed(YahooSource):
    """The source with a list, as the contract's tests ask for a symbol."""

    def instruments(self) -> list[Any]:
        return [self.instrument("AAPL")]


@pytest.fixture
def any_source(yahoo: YahooServer) -> YahooSource:
    return Listed(yahoo.url, limit=RateLimit(10_000, 60.0), clock=lambda: yahoo.now)


def days(raw: RawBars) -> list[str]:
    return raw.time.astype("datetime64[D]").astype(str).tolist()


def at(hour: int, minute: int = 0, day: int = 20) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


# --- instruments


def test_a_source_by_name_opens_nothing_and_lists_nothing(yahoo: YahooServer):
    found = source("yahoo", access=Access({"yahoo": yahoo.url}))
    assert isinstance(found, YahooSource)
    assert (found.instruments(), found.lists_all, found.live) == ([], False, True)
    assert found.timeframes == ("1m", "5m", "15m", "1h", "1d")
    assert yahoo.asked == []


def test_a_base_url_that_is_none_is_refused():
    with pytest.raises(Refused, match=r"source_urls\.yahoo: is no URL"):
        YahooSource("127.0.0.1:9000")


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        ({}, {"venue": "XNAS", "calendar": "XNYS", "bars_a_year": 252, "session_minutes": 390}),
        ({}, {"name": "IT Inc.", "currency": "USD", "symbol": "IT"}),
        ({"exchangeName": "NYQ", "longName": None}, {"venue": "XNYS", "calendar": "XNYS", "name": "IT"}),
        ({"exchangeName": "CCC"}, {"venue": "CCC", "calendar": "24/7", "bars_a_year": 365}),
        (
            {"exchangeName": "LSE", "currency": "GBp"},
            {"venue": "XLON", "calendar": "XLON", "currency": "GBp"},
        ),
        ({"exchangeName": "CMX"}, {"venue": "XCEC", "calendar": "CMES"}),
        ({"exchangeName": "JPX"}, {"venue": "XTKS", "calendar": "XTKS", "session_minutes": 330}),
        ({"exchangeName": "NSI"}, {"venue": "XNSE", "calendar": "XBOM"}),
        ({"exchangeName": "CCY"}, {"venue": "CCY", "calendar": None}),
        ({"exchangeName": 7, "currency": None}, {"venue": "unknown", "calendar": None, "currency": "USD"}),
    ],
)
def test_facts_come_from_the_charts_metadata(
    yahoo: YahooServer, mine: YahooSource, given: dict[str, object], facts: dict[str, object]
):
    yahoo.listings["IT"] = Listing(meta("IT", **given))
    found = mine.instrument("it")
    assert {name: getattr(found, name) for name in facts} == facts


def test_what_yahoo_does_not_say_is_left_unset(yahoo: YahooServer, mine: YahooSource):
    yahoo.listings["IT"] = Listing(meta("IT", exchangeName="CCY", currency=None, longName=""))
    assert mine.instrument("IT").model_fields_set == {"symbol", "venue", "name"}


def test_every_calendar_in_the_table_exists():
    assert {name for _, name in EXCHANGES.values()} <= set(calendar_names())


@pytest.mark.parametrize(
    "use",
    [
        lambda s, symbol: s.instrument(symbol),
        lambda s, symbol: s.fetch(symbol, "1d"),
        lambda s, symbol: s.fetch(symbol, "1m"),
        lambda s, symbol: s.actions(symbol),
        lambda s, symbol: s.quote(symbol),
    ],
    ids=["instrument", "daily", "minutes", "actions", "quote"],
)
@pytest.mark.parametrize("symbol", ["NONE", "PHANTOM", "^GSPC", "a b", "../x"])
def test_an_unknown_symbol_is_one_whatever_is_asked_of_it(
    yahoo: YahooServer, mine: YahooSource, use: Callable[[YahooSource, str], object], symbol: str
):
    shell = meta("PHANTOM", instrumentType="ECNQUOTE", firstTradeDate=None, currency=None)
    yahoo.listings["PHANTOM"] = Listing(shell)
    with pytest.raises(UnknownName, match="yahoo does not know"):
        use(mine, symbol)
    assert len(yahoo.asked) == (symbol in ("NONE", "PHANTOM"))


def test_a_timeframe_that_yahoo_lacks_is_refused_before_it_is_asked(yahoo: YahooServer, mine: YahooSource):
    with pytest.raises(UnknownName, match="source yahoo has 1m, 5m, 15m, 1h, 1d bars"):
        mine.fetch("AAPL", "1w")
    with pytest.raises(Refused, match="start: is a time without a zone"):
        mine.fetch("AAPL", "1d", datetime(2026, 1, 1))  # noqa: DTZ001 - the point
    assert yahoo.asked == []


# --- daily bars, and what they were printed as


def test_one_question_gives_facts_actions_and_daily_bars(yahoo: YahooServer, mine: YahooSource):
    yahoo.listings["AAPL"].splits[DAYS[100]] = (4, 1)
    assert mine.instrument("AAPL").symbol == "AAPL"
    assert len(mine.actions("AAPL")) == 1
    assert days(mine.fetch("aapl", "1d")) == [day.isoformat() for day in DAYS]
    assert yahoo.intervals() == ["1d"]
    yahoo.now += timedelta(minutes=2)  # a split may have come
    mine.actions("AAPL")
    assert yahoo.intervals() == ["1d", "1d"]


def test_only_the_last_instruments_are_remembered(yahoo: YahooServer, mine: YahooSource):
    for n in range(20):
        yahoo.listings[f"S{n}"] = Listing(meta(f"S{n}"))
        mine.instrument(f"S{n}")
    mine.instrument("S19")
    assert len(yahoo.asked) == 20
    mine.instrument("S0")
    assert len(yahoo.asked) == 21


@pytest.mark.parametrize(
    "splits",
    [
        {},
        {DAYS[100]: (4.0, 1.0)},
        {DAYS[100]: (3.0, 1.0), DAYS[250]: (7.0, 1.0)},
        {DAYS[50]: (1.0, 30.0), DAYS[399]: (10.0, 1.0)},
        {FRIDAY: (3.0, 2.0)},
    ],
    ids=["none", "one", "two", "reverse", "today"],
)
def test_prices_and_volumes_are_as_printed_whatever_split_came_later(
    yahoo: YahooServer, mine: YahooSource, splits: dict[date, tuple[float, float]]
):
    listing = yahoo.listings["AAPL"]
    listing.splits = splits
    raw = mine.fetch("AAPL", "1d")
    given = np.array([cells[1:] for cells in listing.rows["1d"]])
    for column, name in enumerate(("open", "high", "low", "close", "volume")):
        assert getattr(raw, name).tolist() == given[:, column].tolist()
    assert set(raw.factor.tolist()) == {1.0}
    found = mine.actions("AAPL")
    assert found.ex_date.tolist() == sorted(splits)
    assert found.split.tolist() == pytest.approx([new / old for _, (new, old) in sorted(splits.items())])


def test_a_split_after_the_range_is_taken_back_too(yahoo: YahooServer, mine: YahooSource):
    before = mine.fetch("AAPL", "1d", DAYS[10], DAYS[20])
    yahoo.listings["AAPL"].splits[DAYS[300]] = (7, 1)
    again = over(yahoo, []).fetch("AAPL", "1d", DAYS[10], DAYS[20])
    assert equal(before, again)


def test_an_announced_split_changes_nothing_yet(yahoo: YahooServer, mine: YahooSource):
    yahoo.listings["AAPL"].splits = {FRIDAY + timedelta(days=1): (2, 1)}
    yahoo.listings["AAPL"].later_splits = lambda day: 1.0  # type: ignore[method-assign]
    assert len(mine.actions("AAPL")) == 0
    assert mine.fetch("AAPL", "1d").close[0] == 100.0


def test_dividends_are_as_paid_and_reproduce_yahoos_adjusted_close(yahoo: YahooServer, mine: YahooSource):
    listing = yahoo.listings["AAPL"]
    listing.splits = {DAYS[100]: (4, 1), DAYS[300]: (1, 2)}
    listing.dividends = {DAYS[40]: 0.82, DAYS[100]: 1.0, DAYS[200]: 0.25, DAYS[320]: 0.3}
    actions = mine.actions("AAPL")
    paid = dict(zip(actions.ex_date.tolist(), actions.dividend.tolist(), strict=True))
    assert paid == {**listing.dividends, DAYS[300]: 0.0}
    raw = mine.fetch("AAPL", "1d")
    view = adjusted(raw, mine.instrument("AAPL"), "1d", actions=actions)
    assert view.close == pytest.approx(adjusted_closes(listing, listing.rows["1d"]), rel=3e-7)


@pytest.mark.parametrize(
    ("currency", "paid_in", "expected"),
    [("USD", "", 0.5), ("USD", "USD", 0.5), ("GBp", "GBP", 50.0), ("ZAc", "ZAR", 50.0), ("VND", "USD", None)],
)
def test_dividends_are_in_the_units_of_prices(
    yahoo: YahooServer, mine: YahooSource, currency: str, paid_in: str, expected: float | None
):
    dividends = {DAYS[5]: 0.5}
    yahoo.listings["IT"] = Listing(
        meta("IT", currency=currency), dividends=dividends, dividend_currency=paid_in
    )
    if expected is None:
        with pytest.raises(BadBars, match="paid in USD, prices are in VND"):
            mine.actions("IT")
    else:
        assert mine.actions("IT").dividend.tolist() == [expected]


def test_an_action_that_cannot_be_read_is_refused(yahoo: YahooServer, mine: YahooSource):
    yahoo.listings["AAPL"].splits = {DAYS[5]: (2, 1)}
    yahoo.listings["AAPL"].splits[DAYS[6]] = (0, 1)
    yahoo.listings["AAPL"].later_splits = lambda day: 1.0  # type: ignore[method-assign]
    with pytest.raises(BadBars, match="impossible: a split is above 0"):
        mine.actions("AAPL")


@pytest.mark.parametrize(
    ("zone", "opens", "label"),
    [
        ("America/New_York", time(9, 30), "2026-01-05"),
        ("America/New_York", time(0, 0), "2026-01-05"),
        ("Asia/Tokyo", time(9, 0), "2026-01-05"),
        ("Australia/Sydney", time(10, 0), "2026-01-05"),
        ("UTC", time(0, 0), "2026-01-05"),
        ("America/New_York", time(16, 0, 1), "2026-01-05"),
        ("America/Sao_Paulo", time(23, 0), "2026-01-06"),  # midnight, by clocks that had changed
    ],
)
def test_daily_labels_are_the_sessions_date_where_the_exchange_is(
    yahoo: YahooServer, mine: YahooSource, zone: str, opens: time, label: str
):
    rows = {"1d": daily([date(2026, 1, 5)], zone, opens)}
    yahoo.listings["IT"] = Listing(meta("IT", exchangeTimezoneName=zone), rows)
    raw = mine.fetch("IT", "1d")
    assert raw.time.tolist() == [datetime.fromisoformat(label)]


def test_the_newest_state_of_the_day_replaces_the_row_before(yahoo: YahooServer, mine: YahooSource):
    now = [row(at(14, 30), 150.0, 500), row(at(17, 59) + timedelta(seconds=7), 151.0, 600)]
    yahoo.listings["AAPL"].rows["1d"] += now
    raw = mine.fetch("AAPL", "1d", DAYS[-1])
    assert days(raw) == [DAYS[-1].isoformat(), FRIDAY.isoformat()]
    assert (raw.close[-1], raw.volume[-1]) == (151.0, 600)


def test_daily_bars_outside_of_the_history_say_what_there_is(yahoo: YahooServer, mine: YahooSource):
    with pytest.raises(
        NotEnoughBars, match=r"no bars from 1950-01-01 to 1950-12-31; it has 2025-\d\d-\d\d to"
    ):
        mine.fetch("AAPL", "1d", date(1950, 1, 1), date(1950, 12, 31))
    yahoo.listings["NEW"] = Listing(meta("NEW"))
    with pytest.raises(NotEnoughBars, match="NEW has no daily bars at all"):
        mine.fetch("NEW", "1d")


def test_several_threads_ask_at_once(yahoo: YahooServer, mine: YahooSource):
    names = [f"S{n}" for n in range(24)]
    for n, name in enumerate(names):
        yahoo.listings[name] = Listing(meta(name), {"1d": daily(DAYS[: n + 1])})
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: len(mine.fetch(name, "1d")), names))
    assert found == list(range(1, 25))
    assert len(yahoo.asked) == 24


# --- what Yahoo spoils


def holes(rows: list[Row]) -> list[Row]:
    rows = list(rows)
    rows[1] = (rows[1][0], None, None, None, None, None)
    rows[2] = (*rows[2][:4], float("nan"), rows[2][5])
    rows[3] = (None, *rows[3][1:])
    return rows


def disorder(rows: list[Row]) -> list[Row]:
    return [rows[2], *rows[:2], rows[1], *rows[3:]]


def test_holes_stay_for_the_inspection(yahoo: YahooServer, mine: YahooSource):
    yahoo.spoil = holes
    inspection = inspect(mine.fetch("AAPL", "1d"), "1d")
    assert inspection.quarantined.counts() == {"price is not a finite number": 2, "time is missing": 1}
    assert len(inspection.clean) == len(DAYS) - 3


def test_repeated_and_reordered_rows_are_mended_by_the_inspection(yahoo: YahooServer, mine: YahooSource):
    right = mine.fetch("AAPL", "1d")
    yahoo.spoil = disorder
    inspection = inspect(over(yahoo, []).fetch("AAPL", "1d"), "1d")
    assert (inspection.reordered, inspection.repeated) == (1, 1)
    assert equal(inspection.clean, right)


def test_what_is_no_number_is_refused(yahoo: YahooServer, mine: YahooSource):
    listing = yahoo.listings["AAPL"]
    listing.later_splits = lambda day: 1.0  # type: ignore[method-assign]
    body = json.dumps({"chart": {"result": [{"meta": meta("AAPL"), **_one_row("ten")}], "error": None}})
    yahoo.faults.append(Fault(status=200, body=body))
    with pytest.raises(BadBars, match="no number"):
        mine.fetch("AAPL", "1d")


def _one_row(price: object, **columns: object) -> dict[str, object]:
    quote = {name: [price] for name in ("open", "high", "low", "close", "volume")} | columns
    return {"timestamp": [1577975400], "indicators": {"quote": [quote]}}


# --- faults


NOT_WHOLE = [
    {"chart": {"result": [], "error": None}},
    {"chart": {"result": [{"indicators": {"quote": [{}]}}], "error": None}},
    {"chart": {"result": [{"meta": meta("A"), **_one_row(1.0, low=None)}], "error": None}},
    {"chart": {"result": [{"meta": meta("A"), **_one_row(1.0, low=[])}], "error": None}},
    {"chart": {"result": [{"meta": meta("A"), **_one_row(1.0), "timestamp": None}], "error": None}},
    {"chart": {"result": [{"meta": meta("A", exchangeTimezoneName=None)}], "error": None}},
    {"finance": {"error": "of another kind"}},
    [],
]
PASSING = [
    *(Fault(status=status) for status in (429, 500, 502, 503, 504, 408)),
    Fault("cut"),
    Fault("lost"),
    Fault(status=200),
    Fault(status=200, body=""),
    Fault(status=200, body=error_body("Internal Server Error", "try again")),
    *(Fault(status=200, body=json.dumps(content)) for content in NOT_WHOLE),
]


@pytest.mark.parametrize("fault", PASSING, ids=range(len(PASSING)))
def test_what_passes_is_asked_again(yahoo: YahooServer, mine: YahooSource, waits: list[float], fault: Fault):
    yahoo.faults.extend([fault, fault])
    assert len(mine.fetch("AAPL", "1d")) == len(DAYS)
    assert (len(yahoo.asked), len(waits)) == (3, 2)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=429), "rate limit reached"),
        (Fault(status=503), "HTTP 503"),
        (Fault("cut"), "no chart, or not a whole one"),
        (Fault("lost"), "no whole answer"),
    ],
    ids=["429", "503", "cut", "lost"],
)
def test_what_does_not_pass_ends_with_the_reason(
    yahoo: YahooServer, mine: YahooSource, fault: Fault, reason: str
):
    yahoo.faults.extend([fault] * 3)
    with pytest.raises(SourceUnavailable, match=rf"yahoo: history of AAPL: .*{reason}.*tried 3 times"):
        mine.fetch("AAPL", "1d")


def test_a_server_that_hangs_is_given_up_at_the_time_out(yahoo: YahooServer, waits: list[float]):
    yahoo.faults.append(Fault("hang"))
    assert over(yahoo, waits, timeout=0.3).quote("AAPL").last == 244.87
    assert len(waits) == 1


def test_a_server_that_is_not_there_is_said_so(yahoo: YahooServer, waits: list[float]):
    patience = Patience(attempts=2, sleep=waits.append)
    gone = YahooSource("http://127.0.0.1:1", patience=patience, limit=RateLimit(10_000, 60.0))
    with pytest.raises(SourceUnavailable, match="no whole answer"):
        gone.quote("AAPL")
    assert len(waits) == 1


@pytest.mark.parametrize(("text", "lowest", "highest"), [("7", 7, 7), ("date", 20, 40), ("soon", 0, 0.01)])
def test_retry_after_is_kept_be_it_seconds_or_a_date(
    yahoo: YahooServer, mine: YahooSource, waits: list[float], text: str, lowest: float, highest: float
):
    if text == "date":
        text = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    yahoo.faults.append(Fault(status=429, headers={"Retry-After": text}))
    mine.quote("AAPL")
    assert lowest <= waits[0] <= highest


def test_a_longer_wait_than_patience_has_ends_at_once(
    yahoo: YahooServer, mine: YahooSource, waits: list[float]
):
    yahoo.faults.append(Fault(status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(SourceUnavailable, match=r"rate limit reached \(tried 1 times\)"):
        mine.quote("AAPL")
    assert waits == []


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (Fault(status=404), "HTTP 404 without a reason"),  # another server's 404 is no unknown symbol
        (Fault(status=401, body=error_body("Unauthorized", "Invalid Crumb")), "HTTP 401, Unauthorized"),
        (Fault(status=422, body=error_body("Unprocessable Entity", "Invalid input")), "Invalid input"),
    ],
    ids=["404", "401", "422"],
)
def test_what_will_not_pass_is_not_asked_again(
    yahoo: YahooServer, mine: YahooSource, fault: Fault, complaint: str
):
    yahoo.faults.append(fault)
    with pytest.raises(SourceUnavailable, match=complaint):
        mine.instrument("AAPL")
    assert len(yahoo.asked) == 1


def test_coarser_bars_than_asked_for_are_refused(yahoo: YahooServer, mine: YahooSource):
    coarse = {"meta": meta("AAPL", dataGranularity="1mo"), **_one_row(1.0)}
    yahoo.faults.append(Fault(status=200, body=json.dumps({"chart": {"result": [coarse], "error": None}})))
    with pytest.raises(BadBars, match="yahoo gave 1mo bars instead"):
        mine.fetch("AAPL", "1d")


# --- intraday bars


@pytest.fixture
def crypto(yahoo: YahooServer) -> Listing:
    """A market that never closes, with ten weeks of bars: one every half hour (1h: hour)."""
    facts = {"exchangeName": "CCC", "instrumentType": "CRYPTOCURRENCY", "exchangeTimezoneName": "UTC"}
    first = yahoo.now - timedelta(days=70)
    rows = dict.fromkeys(("1m", "5m", "15m"), every(timedelta(minutes=30), first, 70 * 48))
    rows["1h"] = every(timedelta(hours=1), first, 70 * 24)
    listing = Listing(meta("BTC-USD", **facts), {"1d": daily(DAYS, "UTC", time()), **rows})
    yahoo.listings["BTC-USD"] = listing
    return listing


@pytest.mark.parametrize(
    ("timeframe", "pages", "first"),
    [("1m", 5, "2026-10-23"), ("5m", 1, "2026-09-23"), ("15m", 1, "2026-09-23"), ("1h", 1, "2026-09-11")],
)
@pytest.mark.usefixtures("crypto")
def test_windows_keep_within_what_yahoo_allows(
    yahoo: YahooServer, mine: YahooSource, timeframe: str, pages: int, first: str
):
    found = list(mine.pages("BTC-USD", timeframe))
    assert len(found) == pages
    times = np.concatenate([page.time for page in found])
    step = np.timedelta64(60 if timeframe == "1h" else 30, "m")
    assert (np.diff(times) == step).all()
    assert days(found[0])[0] == first
    assert times[-1] == np.datetime64("2026-11-20T18:00") - step
    earlier = list(mine.pages("BTC-USD", timeframe, date(2000, 1, 1)))
    assert all(equal(a, b) for a, b in zip(found, earlier, strict=True))


@pytest.mark.usefixtures("crypto")
def test_bounds_of_intraday_bars_are_inclusive_and_windows_do_not_overlap(mine: YahooSource):
    exact = mine.fetch("BTC-USD", "1m", at(10, 0, day=5), at(10, 0, day=17))
    assert exact.time[0] == np.datetime64("2026-11-05T10:00")
    assert exact.time[-1] == np.datetime64("2026-11-17T10:00")
    assert len(exact) == 12 * 48 + 1
    day = mine.fetch("BTC-USD", "5m", date(2026, 11, 5), date(2026, 11, 5))
    assert len(day) == 48


@pytest.mark.parametrize(("timeframe", "kept"), [("1m", 29), ("5m", 59), ("15m", 59), ("1h", 729)])
@pytest.mark.usefixtures("crypto")
def test_a_range_too_long_ago_says_how_far_back_yahoo_goes(mine: YahooSource, timeframe: str, kept: int):
    with pytest.raises(NotEnoughBars, match=rf"no {timeframe} bars .* last {kept} days: today from 202\d-"):
        mine.fetch("BTC-USD", timeframe, date(2020, 1, 1), date(2020, 2, 1))


@pytest.mark.usefixtures("crypto")
def test_a_range_in_the_future_or_a_bar_less_one_is_empty(yahoo: YahooServer, mine: YahooSource):
    for start in (at(0, day=25), at(17, 31)):
        with pytest.raises(NotEnoughBars):
            mine.fetch("BTC-USD", "1m", start)
    assert "1m" in yahoo.intervals()


def test_windows_before_an_instruments_first_day_are_left_out(yahoo: YahooServer, mine: YahooSource):
    born = at(0, day=16)
    bars = every(MINUTE, born, 100)
    facts = meta("IPO", exchangeName="CCC", instrumentType="CRYPTOCURRENCY")
    yahoo.listings["IPO"] = Listing({**facts, "firstTradeDate": int(born.timestamp())}, {"1m": bars})
    assert [len(page) for page in mine.pages("IPO", "1m")] == [100]
    assert yahoo.intervals().count("1m") == 5


def test_a_window_that_yahoo_finds_too_old_is_not_skipped(yahoo: YahooServer, mine: YahooSource):
    yahoo.listings["AAPL"].rows["1m"] = every(MINUTE, at(15), 10)
    behind = yahoo.now
    mine._clock = lambda: behind - timedelta(days=3)
    with pytest.raises(NotEnoughBars, match="must be within the last 30 days"):
        list(mine.pages("AAPL", "1m"))


def test_intraday_bars_are_as_printed_and_of_the_session(yahoo: YahooServer, mine: YahooSource):
    before, on = at(14, 0, day=17), at(14, 0, day=18)
    bars = [*every(timedelta(minutes=5), before, 90), *every(timedelta(minutes=5), on, 90)]
    yahoo.listings["AAPL"].rows["5m"] = bars
    yahoo.listings["AAPL"].splits[date(2026, 11, 18)] = (3, 1)
    raw = mine.fetch("AAPL", "5m")
    sessions = [at(14, 30, day=17), at(20, 55, day=17), at(14, 30, day=18), at(20, 55, day=18)]
    labels = [moment.replace(tzinfo=None) for moment in sessions]
    assert (len(raw), raw.time[[0, 77, 78, 155]].tolist()) == (2 * 78, labels)
    printed = {int(cells[0]): cells for cells in bars}
    seconds = raw.time.astype("datetime64[s]").astype(int)
    assert raw.close.tolist() == [printed[each][4] for each in seconds]
    assert raw.volume.tolist() == [printed[each][5] for each in seconds]


@pytest.mark.parametrize(
    ("last", "kept"),
    [
        (at(17, 59) + timedelta(seconds=12), 29),  # what the newest bar got last
        (at(17, 59), 30),  # the newest bar again
        (at(18, 0), 31),
    ],
)
def test_the_newest_bar_is_left_out_while_it_comes_in_two_rows(
    yahoo: YahooServer, mine: YahooSource, last: datetime, kept: int
):
    rows = every(MINUTE, at(17, 30), 30)
    again = rows[-1] if last == at(17, 59) else row(last, 51.0, 3)
    yahoo.listings["AAPL"].rows["1m"] = [*rows, again]
    yahoo.now = at(18, 5)
    assert len(set(mine.fetch("AAPL", "1m").time.tolist())) == kept


def test_every_minute_of_a_market_that_never_closes_stays(crypto: Listing, mine: YahooSource):
    crypto.rows["1m"] = every(MINUTE, at(0, day=18), 1440)
    assert len(mine.fetch("BTC-USD", "1m", date(2026, 11, 18), date(2026, 11, 18))) == 1440


# --- quotes


def test_a_quote_is_the_last_trade(yahoo: YahooServer, mine: YahooSource):
    found = mine.quote("aapl")
    assert (found.symbol, found.last, found.bid, found.source) == ("AAPL", 244.87, None, "yahoo")
    assert found.time == datetime.fromtimestamp(1795197600, UTC)
    assert yahoo.intervals() == ["1d"]


@pytest.mark.parametrize(
    "facts", [{"regularMarketPrice": None}, {"regularMarketTime": None}, {"regularMarketPrice": 0}]
)
def test_what_was_never_traded_has_no_quote(yahoo: YahooServer, mine: YahooSource, facts: dict[str, object]):
    yahoo.listings["IT"] = Listing(meta("IT", **facts))
    with pytest.raises(NotEnoughBars, match="no trade in IT"):
        mine.quote("IT")


# --- what the library must not do


def test_nothing_is_written_into_the_users_home_nor_logged(
    yahoo: YahooServer, tmp_path: Path, mine: YahooSource, caplog: pytest.LogCaptureFixture
):
    yahoo.now = datetime.now(UTC)
    script = (
        "import sys; from gpt_trader.adapters.yahoo import YahooSource; "
        "s = YahooSource(sys.argv[1]); s.fetch('AAPL', '1d'); print(s.quote('AAPL').last)"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("XDG_CACHE_HOME", None)
    command = [sys.executable, "-W", "ignore", "-c", script, yahoo.url]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("244.87\n", "")
    assert list(tmp_path.iterdir()) == []
    with caplog.at_level(logging.WARNING), pytest.raises(GptTraderError):
        mine.fetch("NONE", "1d")
    assert caplog.records == []
    assert {path for path, _ in yahoo.asked} == {f"/v8/finance/chart/{s}" for s in ("AAPL", "NONE")}
