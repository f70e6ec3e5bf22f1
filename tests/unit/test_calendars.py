"""Calendars: what exchanges published, written out in UTC; the labels to expect; when a bar is over; wrong names."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest

from gpt_trader.calendars import (
    calendar,
    calendar_names,
    complete,
    ends_of,
    expected_labels,
    monday_of,
    trading,
)
from gpt_trader.errors import Refused, UnknownName
from gpt_trader.instruments import TIMEFRAMES, Instrument


def day(text: str) -> date:
    return date.fromisoformat(text)


def times(*text: str) -> np.ndarray:
    return np.array(text, "datetime64[us]")


def hours(name: str, first: str, last: str) -> list[tuple[str, str, str]]:
    """Return the sessions from `first` to `last`: name, open and close to the minute."""
    found = calendar(name).sessions(day(first), day(last))
    return [
        (str(d), str(o.astype("M8[m]")), str(c.astype("M8[m]")))
        for d, o, c in zip(found.day, found.open, found.close, strict=True)
    ]


def labels(name: str, timeframe: str, first: str, last: str, anchor: str = "open") -> list[str]:
    found = expected_labels(calendar(name), timeframe, day(first), day(last), anchor)
    return [str(label.astype("M8[m]")) for label in found]


@pytest.mark.parametrize(
    ("name", "first", "last", "expected"),
    [
        pytest.param(
            "XNYS", "2024-03-28", "2024-04-01",
            [("2024-03-28", "2024-03-28T13:30", "2024-03-28T20:00"),
             ("2024-04-01", "2024-04-01T13:30", "2024-04-01T20:00")],
            id="New York, Good Friday 2024",
        ),
        pytest.param(
            "XNYS", "2024-07-02", "2024-07-05",
            [("2024-07-02", "2024-07-02T13:30", "2024-07-02T20:00"),
             ("2024-07-03", "2024-07-03T13:30", "2024-07-03T17:00"),
             ("2024-07-05", "2024-07-05T13:30", "2024-07-05T20:00")],
            id="New York, half-day before Independence Day",
        ),
        pytest.param(
            "XNYS", "2024-11-27", "2024-11-30",
            [("2024-11-27", "2024-11-27T14:30", "2024-11-27T21:00"),
             ("2024-11-29", "2024-11-29T14:30", "2024-11-29T18:00")],
            id="New York, Thanksgiving",
        ),
        pytest.param(
            "XNYS", "2024-03-08", "2024-03-11",
            [("2024-03-08", "2024-03-08T14:30", "2024-03-08T21:00"),
             ("2024-03-11", "2024-03-11T13:30", "2024-03-11T20:00")],
            id="New York, clocks go forward",
        ),
        pytest.param(
            "XNYS", "2024-11-01", "2024-11-04",
            [("2024-11-01", "2024-11-01T13:30", "2024-11-01T20:00"),
             ("2024-11-04", "2024-11-04T14:30", "2024-11-04T21:00")],
            id="New York, clocks go back",
        ),
        pytest.param(
            "XLON", "2024-03-28", "2024-04-02",
            [("2024-03-28", "2024-03-28T08:00", "2024-03-28T16:30"),
             ("2024-04-02", "2024-04-02T07:00", "2024-04-02T15:30")],
            id="London changes its clocks at Easter",
        ),
        pytest.param(
            "CMES", "2024-01-12", "2024-01-16",
            [("2024-01-12", "2024-01-11T23:00", "2024-01-12T22:00"),
             ("2024-01-15", "2024-01-14T23:00", "2024-01-15T18:00"),
             ("2024-01-16", "2024-01-15T23:00", "2024-01-16T22:00")],
            id="CME, an hour's pause, and Martin Luther King's day",
        ),
        pytest.param(
            "24/7", "2024-02-29", "2024-03-01",
            [("2024-02-29", "2024-02-29T00:00", "2024-03-01T00:00"),
             ("2024-03-01", "2024-03-01T00:00", "2024-03-02T00:00")],
            id="always open, leap day too",
        ),
        pytest.param("XNYS", "2024-07-06", "2024-07-07", [], id="a weekend"),
        pytest.param("XNYS", "2001-09-11", "2001-09-16", [], id="New York, September 2001"),
    ],
)  # fmt: skip
def test_sessions_are_those_that_the_exchange_published(
    name: str, first: str, last: str, expected: list[tuple[str, str, str]]
) -> None:
    assert hours(name, first, last) == expected


def test_hong_kong_breaks_for_lunch_but_not_on_a_half_day() -> None:
    found = calendar("XHKG").sessions(day("2024-02-08"), day("2024-02-09"))
    assert found.break_start.astype("M8[m]").astype(str).tolist() == ["2024-02-08T04:00", "NaT"]
    assert found.break_end.astype("M8[m]").astype(str).tolist() == ["2024-02-08T05:00", "NaT"]
    assert [str(end.astype("M8[m]")) for end in found.spans()[1]] == [
        "2024-02-08T04:00",
        "2024-02-08T08:00",
        "2024-02-09T04:00",
    ]


@pytest.mark.parametrize(
    ("time", "session"),
    [
        ("2024-02-08T01:29", None),
        ("2024-02-08T01:30", "2024-02-08"),
        ("2024-02-08T03:59", "2024-02-08"),
        ("2024-02-08T04:00", None),
        ("2024-02-08T04:59", None),
        ("2024-02-08T05:00", "2024-02-08"),
        ("2024-02-08T07:59", "2024-02-08"),
        ("2024-02-08T08:00", None),
        ("2024-02-09T03:59", "2024-02-09"),
        ("2024-02-09T05:00", None),
    ],
)
def test_a_time_is_in_the_session_that_holds_it_and_in_none_at_noon(time: str, session: str | None) -> None:
    found = calendar("XHKG").sessions(day("2024-02-08"), day("2024-02-09"))
    (place,) = found.holding(times(time))
    assert (None if place < 0 else str(found.day[place])) == session


def test_no_session_holds_a_time_where_there_is_none() -> None:
    nothing = calendar("XNYS").sessions(day("2024-07-06"), day("2024-07-07"))
    assert nothing.holding(times("2024-07-06T15:00")).tolist() == [-1]


@pytest.mark.parametrize(
    ("name", "timeframe", "first", "last", "anchor", "expected"),
    [
        ("XNYS", "1d", "2024-07-03", "2024-07-07", "open", ["2024-07-03T00:00", "2024-07-05T00:00"]),
        ("XNYS", "1w", "2024-07-03", "2024-07-08", "open", ["2024-07-01T00:00", "2024-07-08T00:00"]),
        ("XNYS", "1w", "2024-07-03", "2024-07-05", "clock", ["2024-07-01T00:00"]),
        ("XNYS", "4h", "2024-07-03", "2024-07-05", "open",
         ["2024-07-03T13:30", "2024-07-05T13:30", "2024-07-05T17:30"]),
        ("XNYS", "4h", "2024-07-03", "2024-07-03", "clock", ["2024-07-03T12:00", "2024-07-03T16:00"]),
        ("XNYS", "1h", "2024-07-03", "2024-07-03", "open",
         ["2024-07-03T13:30", "2024-07-03T14:30", "2024-07-03T15:30", "2024-07-03T16:30"]),
        ("XNYS", "1h", "2024-07-03", "2024-07-03", "clock",
         ["2024-07-03T13:00", "2024-07-03T14:00", "2024-07-03T15:00", "2024-07-03T16:00"]),
        ("XHKG", "1h", "2024-01-10", "2024-01-10", "open",
         ["2024-01-10T01:30", "2024-01-10T02:30", "2024-01-10T03:30",
          "2024-01-10T05:00", "2024-01-10T06:00", "2024-01-10T07:00"]),
        ("XHKG", "4h", "2024-01-10", "2024-01-10", "clock", ["2024-01-10T00:00", "2024-01-10T04:00"]),
        ("CMES", "4h", "2024-01-15", "2024-01-15", "open",
         ["2024-01-14T23:00", "2024-01-15T03:00", "2024-01-15T07:00", "2024-01-15T11:00", "2024-01-15T15:00"]),
        ("24/7", "4h", "2024-03-10", "2024-03-10", "open",
         [f"2024-03-10T{hour:02}:00" for hour in range(0, 24, 4)]),
        ("XNYS", "1m", "2024-07-06", "2024-07-07", "open", []),
        ("XNYS", "1m", "2024-07-06", "2024-07-07", "clock", []),
        ("XNYS", "1w", "2024-07-06", "2024-07-07", "open", []),
    ],
)  # fmt: skip
def test_labels_by_timeframe_and_anchor(
    name: str, timeframe: str, first: str, last: str, anchor: str, expected: list[str]
) -> None:
    assert labels(name, timeframe, first, last, anchor) == expected


@pytest.mark.parametrize(
    ("name", "first", "minutes"),
    [
        ("XNYS", "2024-07-02", 390),
        ("XNYS", "2024-07-03", 210),
        ("XHKG", "2024-01-10", 330),
        ("XHKG", "2024-02-09", 150),
        ("CMES", "2024-01-16", 1380),
        ("CMES", "2024-01-15", 19 * 60),
        ("24/7", "2024-03-10", 1440),
    ],
)
def test_a_day_has_the_minutes_that_it_trades(name: str, first: str, minutes: int) -> None:
    assert len(labels(name, "1m", first, first)) == minutes
    assert len(labels(name, "15m", first, first)) == minutes / 15


@pytest.mark.parametrize("name", ["XNYS", "XLON", "XHKG", "CMES", "24/7"])
@pytest.mark.parametrize("timeframe", list(TIMEFRAMES))
@pytest.mark.parametrize("anchor", ["open", "clock"])
def test_labels_ascend_and_each_bar_ends_before_the_next_begins(
    name: str, timeframe: str, anchor: str
) -> None:
    found = expected_labels(calendar(name), timeframe, day("2024-01-01"), day("2024-12-31"), anchor)
    assert len(found) > 50
    assert (np.diff(found) > np.timedelta64(0)).all()
    ends = ends_of(found, timeframe, calendar(name))
    assert (ends > found).all()
    if TIMEFRAMES[timeframe] < timedelta(days=1):
        # A bar that a break cuts short counts as over after its whole length: by the clock it may go on behind it.
        assert (ends[:-1] <= found[1:]).all() or (name, anchor) == ("XHKG", "open")
        assert (ends - found <= np.timedelta64(TIMEFRAMES[timeframe])).all()


@pytest.mark.parametrize(
    ("name", "timeframe", "label", "end"),
    [
        ("XNYS", "1d", "2024-07-02", "2024-07-02T20:00"),
        ("XNYS", "1d", "2024-07-03", "2024-07-03T17:00"),
        ("XNYS", "1d", "2024-11-29", "2024-11-29T18:00"),
        ("XNYS", "1d", "2024-07-04", "2024-07-05T00:00"),  # no session: a day is its whole length
        ("XNYS", "1w", "2024-03-25", "2024-03-28T20:00"),  # its Friday is Good Friday
        ("XNYS", "1w", "2024-04-01", "2024-04-05T20:00"),
        ("XNYS", "1h", "2024-07-03T16:30", "2024-07-03T17:00"),
        ("XNYS", "1h", "2024-07-03T15:30", "2024-07-03T16:30"),
        ("XNYS", "4h", "2024-07-05T17:30", "2024-07-05T20:00"),
        ("XNYS", "4h", "2024-07-03T12:00", "2024-07-03T16:00"),  # by the clock: begins before the open
        ("XNYS", "4h", "2024-07-03T16:00", "2024-07-03T17:00"),
        ("XNYS", "15m", "2024-07-06T10:00", "2024-07-06T10:15"),
        ("XNYS", "1d", "1950-01-03", "1950-01-04T00:00"),  # before what the schedule knows
        ("XNYS", "1d", "2090-01-03", "2090-01-04T00:00"),
        ("CMES", "1d", "2024-01-16", "2024-01-16T22:00"),
        ("CMES", "1d", "2024-01-15", "2024-01-15T22:00"),  # some products close at noon, others trade on
        ("CMES", "1h", "2024-01-15T17:00", "2024-01-15T18:00"),
        ("CMES", "4h", "2024-01-15T19:00", "2024-01-15T22:00"),
        ("24/7", "1d", "2024-07-06", "2024-07-07T00:00"),
        ("24/7", "1w", "2024-07-01", "2024-07-08T00:00"),
        (None, "1d", "2024-07-03", "2024-07-04T00:00"),
        (None, "1w", "2024-07-01", "2024-07-08T00:00"),
        (None, "5m", "2024-07-01T10:00", "2024-07-01T10:05"),
    ],
)
def test_when_a_bar_is_over(name: str | None, timeframe: str, label: str, end: str) -> None:
    found = calendar(name) if name else None
    assert ends_of(times(label), timeframe, found).tolist() == times(end).tolist()
    assert len(ends_of(times(), timeframe, found)) == 0

    over = times(end)[0].item().replace(tzinfo=UTC)
    moment = timedelta(microseconds=1)
    assert complete(times(label), timeframe, found, over).tolist() == [True]
    assert complete(times(label), timeframe, found, over - moment).tolist() == [False]
    elsewhere = over.astimezone(timezone(timedelta(hours=-5)))
    assert complete(times(label), timeframe, found, elsewhere).tolist() == [True]


def test_of_labels_out_of_order_each_has_its_own_end() -> None:
    given = times("2024-07-05", "2024-07-02", "2024-07-03")
    ends = times("2024-07-05T20:00", "2024-07-02T20:00", "2024-07-03T17:00")
    assert ends_of(given, "1d", calendar("XNYS")).tolist() == ends.tolist()


def test_a_time_without_a_zone_is_no_now() -> None:
    with pytest.raises(Refused, match="now: is a time without a zone"):
        complete(times("2024-07-02"), "1d", None, datetime(2024, 7, 2))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("given", "monday"),
    [
        ("2024-07-01", "2024-07-01"),
        ("2024-07-07", "2024-07-01"),
        ("2024-03-01", "2024-02-26"),
        ("1970-01-01", "1969-12-29"),
        ("1969-12-28", "1969-12-22"),
        ("1901-02-03", "1901-01-28"),
    ],
)
def test_the_monday_of_a_week(given: str, monday: str) -> None:
    assert str(monday_of(np.array([given], "M8[D]"))[0]) == monday


@pytest.mark.parametrize(
    ("alias", "canonical"), [("NASDAQ", "XNYS"), ("NYSE", "XNYS"), ("CME", "CMES"), ("HKEX", "XHKG")]
)
def test_an_alias_is_the_same_calendar(alias: str, canonical: str) -> None:
    assert calendar(alias) is calendar(canonical)
    assert alias in calendar_names()


@pytest.mark.parametrize(
    ("name", "nearest"), [("XNYSE", "XNYS"), ("nasdaqq", "NASDAQ"), ("CMEES", "CMES"), ("24/77", "24/7")]
)
def test_an_unknown_calendar_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownName, match="is not known") as refused:
        calendar(name)
    (problem,) = refused.value.problems
    assert (problem.field, problem.value, problem.nearest) == ("calendar", name, nearest)


@pytest.mark.parametrize("name", ["", " ", "../../x", "'; DROP", "\0", "😀", "x" * 10_000])
def test_a_hostile_calendar_is_refused_shortly(name: str) -> None:
    with pytest.raises(UnknownName) as refused:
        calendar(name)
    assert len(refused.value.detail) < 500


@pytest.mark.parametrize("name", ["XTAE", "ASEX"])
def test_a_calendar_that_the_library_cannot_build_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="calendar: cannot be built") as refused:
        calendar(name)
    assert len(refused.value.detail) < 200


@pytest.mark.slow
def test_every_calendar_that_can_be_chosen_is_one_or_is_refused() -> None:
    refused = {}
    for name in calendar_names():
        try:
            found = calendar(name).sessions(date(2024, 1, 1), date(2024, 12, 31))
        except Refused as refusal:
            refused[name] = str(refusal)
            continue
        assert 230 < len(found) <= 366
        assert (found.open < found.close).all()
        assert (found.close <= found.latest_close).all()
        assert (found.latest_close[:-1] <= found.open[1:]).all()
    assert {"XNYS", "NASDAQ", "24/7", "CMES", "XHKG", "XLON"}.isdisjoint(refused)
    assert all("cannot be built" in said for said in refused.values())


@pytest.mark.parametrize(
    ("name", "bars_a_year", "session_minutes"),
    [
        ("XNYS", 252, 390),
        ("NASDAQ", 252, 390),
        ("24/7", 365, 1440),
        ("CMES", 258, 1380),
        ("XHKG", 246, 330),
        ("XLON", 253, 510),
    ],
)
def test_trading_brings_the_facts_that_a_calendar_implies(
    name: str, bars_a_year: float, session_minutes: float
) -> None:
    before = Instrument(symbol="ABC", currency="EUR", tick="0.25")
    found = trading(before, name)
    assert (found.calendar, found.bars_a_year, found.session_minutes) == (name, bars_a_year, session_minutes)
    assert found == before.model_copy(
        update={"calendar": name, "bars_a_year": bars_a_year, "session_minutes": session_minutes}
    )
    assert {"calendar", "bars_a_year", "session_minutes", "currency"} <= found.model_fields_set


def test_trading_without_a_calendar_changes_nothing() -> None:
    before = Instrument(symbol="ABC")
    assert trading(before, None) is before
    with pytest.raises(UnknownName, match="did you mean 'XNYS'"):
        trading(before, "XNYSE")
