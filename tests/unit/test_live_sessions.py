"""What a session on a live stream is asked, when it closes, which bars make a moment, and what silence says."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import numpy as np
import pytest

from api.admission import admitted
from api.principals import Principal
from gpt_trader.adapters.alpaca import AlpacaSource
from gpt_trader.alerts import AlertRules, Watched, of_stream
from gpt_trader.calendars import calendar
from gpt_trader.errors import Denied, GptTraderError, Refused
from gpt_trader.settings import Home, Settings
from gpt_trader.slices import SLICES
from gpt_trader.trading.certificate import replay
from gpt_trader.trading.closing import closes_at, moment_text
from gpt_trader.trading.events import BarRow, LedgerEvent
from gpt_trader.trading.gathering import Gathering
from gpt_trader.trading.request import PaperTradeRequest
from gpt_trader.validation import validated
from storage.lake import Lake
from tests.trading_samples import Given, flat

NEW_YORK = calendar("XNYS")
TOKYO = calendar("XTKS")
ALWAYS = calendar("24/7")

#: A Tuesday in winter, 10:00 in New York.
MORNING = datetime(2026, 1, 13, 15, tzinfo=UTC)


def asked(**terms: Any) -> PaperTradeRequest:
    return validated(PaperTradeRequest, {"symbol": "AAPL", "feed": "stream", "timeframe": "1m", **terms})


# --- the request


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("16:00", "16:00"),
        ("9:30", None),
        ("2026-11-05T16:00-05:00", "2026-11-05T21:00:00Z"),
        ("2026-11-05 21:00Z", "2026-11-05T21:00:00Z"),
        ("2026-11-05T16:00", None),
        ("25:00", None),
        ("soon", None),
        ("", None),
    ],
)
def test_a_close_is_a_clocks_time_or_a_time_with_a_zone(given: str, kept: str | None) -> None:
    if kept is not None:
        assert asked(until=given).until == kept == moment_text(kept)
        return
    with pytest.raises(Refused, match=r"until: .*give HH:MM on the exchange's clock, e\.g\. 16:00"):
        asked(until=given)


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ({"until": "16:00", "hours": 2}, "until and hours both say when it closes"),
        ({"feed": "replay", "until": "16:00"}, "until is for feed stream, not replay"),
        ({"feed": "schedule", "grace": 3}, "grace is for feed stream, not schedule"),
        ({"end": "2026-01-01"}, "end is for feed replay, not stream"),
        ({"hours": 0}, "hours"),
        ({"grace": -1}, "grace"),
        ({"feed": "live"}, "feed"),
    ],
)
def test_terms_that_do_not_fit_the_feed_are_refused(terms: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused, match=says):
        asked(**terms)


# --- the close


@pytest.mark.parametrize(
    ("until", "hours", "began", "calendars", "closes"),
    [
        (None, None, MORNING, [NEW_YORK], datetime(2026, 1, 13, 21, tzinfo=UTC)),
        (None, None, MORNING + timedelta(hours=6), [NEW_YORK], datetime(2026, 1, 14, 21, tzinfo=UTC)),
        (None, None, datetime(2026, 11, 27, 16, tzinfo=UTC), [NEW_YORK], datetime(2026, 11, 27, 18, tzinfo=UTC)),
        (None, None, datetime(2026, 1, 16, 22, tzinfo=UTC), [NEW_YORK], datetime(2026, 1, 20, 21, tzinfo=UTC)),
        (None, None, MORNING, [TOKYO, NEW_YORK], datetime(2026, 1, 14, 6, 30, tzinfo=UTC)),
        (None, None, MORNING, [ALWAYS], None),
        (None, None, MORNING, [NEW_YORK, ALWAYS], None),
        (None, None, MORNING, [None], None),
        ("16:00", None, MORNING, [NEW_YORK, ALWAYS], datetime(2026, 1, 13, 21, tzinfo=UTC)),
        ("10:00", None, MORNING, [NEW_YORK], datetime(2026, 1, 14, 15, tzinfo=UTC)),
        ("16:00", None, MORNING, [None], datetime(2026, 1, 13, 16, tzinfo=UTC)),
        ("2026-02-01T00:00:00Z", None, MORNING, [NEW_YORK], datetime(2026, 2, 1, tzinfo=UTC)),
        (None, 1.5, MORNING, [NEW_YORK], MORNING + timedelta(minutes=90)),
    ],
)  # fmt: skip
def test_when_a_session_closes(
    until: str | None, hours: float | None, began: datetime, calendars: list[Any], closes: datetime | None
) -> None:
    assert closes_at(until, hours, began, calendars) == closes


# --- moments


def minute(n: int) -> np.datetime64:
    return np.datetime64("2026-01-13T15:00", "us") + np.timedelta64(n, "m")


def bar(price: float = 1.0) -> BarRow:
    return BarRow(price, price, price, price, 1.0)


def gathering(*symbols: str, after: int | None = None, closed: str = "") -> Gathering:
    begin = None if after is None else minute(after)
    return Gathering(symbols, begin, 5.0, lambda symbol, _: symbol != closed)


def given(found: Gathering, now: float) -> list[tuple[str, list[str]]]:
    return [(each.time[11:16], list(each.bars)) for each in found.due(now)]


def test_a_moment_is_complete_with_the_last_of_its_bars_or_with_a_newer_one() -> None:
    found = gathering("A", "B")
    assert found.take("B", minute(0), bar(), 0.0)
    assert given(found, 4.9) == []
    found.take("A", minute(0), bar(), 4.9)
    assert given(found, 4.9) == [("15:00", ["A", "B"])]
    found.take("A", minute(1), bar(), 5.0)
    found.take("A", minute(2), bar(), 5.0)
    found.take("B", minute(2), bar(), 5.0)
    assert given(found, 5.0) == [("15:01", ["A"]), ("15:02", ["A", "B"])]
    assert len(found) == 0


def test_after_the_grace_a_moment_goes_on_without_a_bar_and_the_bar_is_late() -> None:
    found = gathering("A", "B")
    found.take("A", minute(0), bar(), 1.0)
    assert given(found, 5.9) == []
    assert given(found, 6.0) == [("15:00", ["A"])]
    assert not found.take("B", minute(0), bar(), 6.1)
    assert given(found, 99.0) == []


def test_moments_come_in_order_and_an_older_one_is_waited_for_first() -> None:
    found = gathering("A", "B", "C")
    found.take("A", minute(1), bar(), 0.0)
    found.take("B", minute(1), bar(), 0.0)
    found.take("A", minute(0), bar(), 3.0)
    assert given(found, 5.0) == []
    assert given(found, 8.0) == [("15:00", ["A"]), ("15:01", ["A", "B"])]


def test_a_market_that_is_closed_is_not_waited_for() -> None:
    found = gathering("A", "B", closed="B")
    found.take("A", minute(0), bar(), 0.0)
    assert given(found, 0.0) == [("15:00", ["A"])]


def test_what_was_traded_before_an_interruption_is_over() -> None:
    found = gathering("A", after=3)
    assert not found.take("A", minute(3), bar(), 0.0)
    assert found.take("A", minute(4), bar(2.0), 0.0)
    found.take("A", minute(4), bar(7.0), 0.0)
    (moment,) = found.due(0.0)
    assert moment.bars["A"].close == 7.0


def test_a_late_bar_is_an_input_of_the_ledger_and_changes_nothing_else() -> None:
    request = validated(PaperTradeRequest, {"symbol": "X"})
    warm = {"X": flat([(1, 1, 1, 1)])}
    opened = {
        "schema_version": 1,
        "session_id": "s",
        "capital": "10000",
        "request": request.model_dump(mode="json"),
    }
    late = {"symbol": "X", "time": "2010-01-01T00:00:00Z", "after": None}
    events = [LedgerEvent("opened", opened), LedgerEvent("missed", late)]
    made, _ = replay(request, [Given()], warm, events)
    assert [(each.type, each.data) for each in made] == [(each.type, each.data) for each in events]
    assert made[1].key == "missed:X:2010-01-01T00:00:00Z"


# --- silence, and what a source streams together


def test_a_silent_stream_is_told_with_its_symbols() -> None:
    session = cast(
        "Watched",
        SimpleNamespace(session_id=uuid4(), owner="o", name="live", bar="2026-01-13T15:00:00Z"),
    )
    rules = AlertRules()
    assert list(of_stream(session, rules, {"A": 180.0})) == []
    (alert,) = of_stream(session, rules, {"A": 10.0, "C": 200.0, "B": 181.0})
    assert (alert.rule, alert.severity) == ("stale_data", "warning")
    assert alert.message == "live: no bar of B, C for 200 s, and the market is open: nothing is traded"
    assert alert.data["symbols"] == ["B", "C"]


def test_alpaca_streams_stocks_and_pairs_apart() -> None:
    groups = AlpacaSource({}).stream_groups(["aapl", "BTC-USD", "KO", "AAPL"])
    assert groups == [("AAPL", "KO"), ("BTC-USD",)]
    assert AlpacaSource({}).stream_groups(["KO"]) == [("KO",)]


def test_a_calendar_tells_its_next_close_and_whether_it_is_open() -> None:
    assert NEW_YORK.next_close(datetime(2026, 1, 13, 21, tzinfo=UTC)) == datetime(2026, 1, 14, 21, tzinfo=UTC)
    assert ALWAYS.next_close(MORNING) is None
    assert (str(NEW_YORK.zone), str(ALWAYS.zone)) == ("America/New_York", "UTC")
    assert NEW_YORK.is_open(np.array([minute(0), minute(-31), minute(6 * 60)])).tolist() == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("terms", "error", "says"),
    [
        ({}, Refused, "source: has no live stream of bars; allowed: alpaca, ccxt:VENUE"),
        ({"source": "alpaca"}, Denied, "source alpaca needs credentials and key, secret is not known"),
        ({"source": "ccxt:kraken"}, None, ""),
    ],
)
def test_what_can_be_known_of_a_stream_is_said_before_a_run_is_started(
    tmp_path: Path, terms: dict[str, Any], error: type[GptTraderError] | None, says: str
) -> None:
    body = {"symbol": "BTC-USD", "feed": "stream", "timeframe": "1m", **terms}
    row, caller = SLICES["paper_trade"], Principal("local", frozenset({"trade"}))
    with pytest.raises(error, match=says) if error else contextlib.nullcontext():
        admitted(row, body, caller, lake=Lake(tmp_path / "lake"), home=Home(tmp_path), settings=Settings())
