"""Half-days, holidays, breaks and changes of clocks: which bars are missing and which too many, by hand-made tables.

The spans are the exchanges' published hours in UTC, written out, so that they test the calendar as well.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from gpt_trader.quality import RULES, Policy
from tests.quality_samples import found, labels, labels_of, moved, verdict, walk, without

#: Consecutive spans of trading: no session lies between them.
WEEKS = {
    "XNYS Thanksgiving, half-day after": (
        "XNYS",
        [("2023-11-22T14:30", "2023-11-22T21:00"), ("2023-11-24T14:30", "2023-11-24T18:00"),
         ("2023-11-27T14:30", "2023-11-27T21:00")],
    ),
    "XNYS Christmas Eve": (
        "XNYS",
        [("2024-12-23T14:30", "2024-12-23T21:00"), ("2024-12-24T14:30", "2024-12-24T18:00"),
         ("2024-12-26T14:30", "2024-12-26T21:00")],
    ),
    "XNYS July 3rd": (
        "XNYS",
        [("2023-06-30T13:30", "2023-06-30T20:00"), ("2023-07-03T13:30", "2023-07-03T17:00"),
         ("2023-07-05T13:30", "2023-07-05T20:00")],
    ),
    "XNYS clocks go forward": (
        "XNYS", [("2024-03-08T14:30", "2024-03-08T21:00"), ("2024-03-11T13:30", "2024-03-11T20:00")],
    ),
    "XNYS clocks go back": (
        "XNYS", [("2024-11-01T13:30", "2024-11-01T20:00"), ("2024-11-04T14:30", "2024-11-04T21:00")],
    ),
    "XLON clocks go forward at Easter": (
        "XLON", [("2024-03-28T08:00", "2024-03-28T16:30"), ("2024-04-02T07:00", "2024-04-02T15:30")],
    ),
    "XLON clocks go back": (
        "XLON", [("2024-10-25T07:00", "2024-10-25T15:30"), ("2024-10-28T08:00", "2024-10-28T16:30")],
    ),
    "XLON Christmas Eve": (
        "XLON", [("2024-12-24T08:00", "2024-12-24T12:30"), ("2024-12-27T08:00", "2024-12-27T16:30")],
    ),
    "XHKG lunch": (
        "XHKG",
        [("2024-01-03T01:30", "2024-01-03T04:00"), ("2024-01-03T05:00", "2024-01-03T08:00"),
         ("2024-01-04T01:30", "2024-01-04T04:00")],
    ),
    "XHKG eve of the lunar new year": (
        "XHKG",
        [("2024-02-08T05:00", "2024-02-08T08:00"), ("2024-02-09T01:30", "2024-02-09T04:00"),
         ("2024-02-14T01:30", "2024-02-14T04:00")],
    ),
    "CMES clocks go forward": (
        "CMES", [("2024-03-07T23:00", "2024-03-08T22:00"), ("2024-03-10T22:00", "2024-03-11T21:00")],
    ),
    "CMES clocks go back": (
        "CMES", [("2024-10-31T22:00", "2024-11-01T21:00"), ("2024-11-03T23:00", "2024-11-04T22:00")],
    ),
    "CMES holiday, products that close at noon": (
        "CMES", [("2024-01-14T23:00", "2024-01-15T18:00"), ("2024-01-15T23:00", "2024-01-16T22:00")],
    ),
    "CMES holiday, products that trade on": (
        "CMES", [("2024-01-14T23:00", "2024-01-15T22:00"), ("2024-01-15T23:00", "2024-01-16T22:00")],
    ),
    "24/7 weekend": ("24/7", [("2024-03-08T00:00", "2024-03-12T00:00")]),
}  # fmt: skip

weeks = pytest.mark.parametrize(("name", "spans"), WEEKS.values(), ids=WEEKS)

#: The weeks in which every bar of the table is expected, and those of them that end before the market's next session.
EXACT = {name: week for name, week in WEEKS.items() if "trade on" not in name}
CLOSED = {name: week for name, week in EXACT.items() if len(week[1]) > 1 and "close at noon" not in name}


@weeks
@pytest.mark.parametrize("timeframe", ["1m", "5m", "15m", "1h"])
def test_the_hours_of_the_exchange_have_no_findings(name, spans, timeframe):
    bars = walk(labels_of(spans, timeframe))
    judged = verdict(bars, calendar=name, timeframe=timeframe)
    assert (judged.findings, judged.notes, judged.status) == ((), (), "ok")
    assert judged.calendar == name
    optional = (bars.time >= np.datetime64("2024-01-15T18:00")) & (
        bars.time < np.datetime64("2024-01-15T22:00")
    )
    assert judged.expected == len(bars) - np.count_nonzero(optional)


@pytest.mark.parametrize(("name", "spans"), EXACT.values(), ids=EXACT)
def test_a_lost_minute_is_a_gap_wherever_it_lies(name, spans):
    time = labels_of(spans, "1m")
    edges = np.isin(time, [np.datetime64(edge) for span in spans for edge in span])
    for row in [*np.flatnonzero(edges)[1:], *(np.flatnonzero(edges)[1:] - 1), 31]:
        lost = str(time[row].astype("M8[m]"))
        assert found(without(walk(time), row), calendar=name, timeframe="1m") == [("gaps", lost, lost, 1)]


@pytest.mark.parametrize(("name", "spans"), CLOSED.values(), ids=CLOSED)
def test_bars_beyond_the_close_are_too_many(name, spans):
    (_, close), (opens, _) = spans[:2]
    late = labels_of([(close, str(np.datetime64(close) + np.timedelta64(20, "m")))], "1m")
    time = np.sort(np.concatenate([labels_of(spans, "1m"), late]))
    ends = [str(edge.astype("M8[m]")) for edge in late[[0, -1]]]
    assert found(walk(time), calendar=name, timeframe="1m") == [("extra_sessions", *ends, 20)]
    assert np.datetime64(opens) > late[-1]


@pytest.mark.parametrize(("name", "spans"), CLOSED.values(), ids=CLOSED)
def test_a_session_that_ends_an_hour_early_lacks_its_last_hour(name, spans):
    """So does one whose hours were taken from the other half of the year."""
    close = np.datetime64(spans[-2][1])
    whole = labels_of(spans, "1m")
    early = walk(whole[(whole < close - np.timedelta64(1, "h")) | (whole >= close)])
    gap = ("gaps", str(close - np.timedelta64(60, "m")), str(close - np.timedelta64(1, "m")), 60)
    assert found(early, calendar=name, timeframe="1m") == [gap]


SHIFTED = {
    "XNYS in New York's time": ("XNYS", "1m", "2024-02-26", "2024-03-22", {"2024-01-01": -5, "2024-03-10": -4}),
    "XNYS in standard time all year": (
        "XNYS", "5m", "2024-02-12", "2024-04-12", {"2024-01-01": -5},
    ),
    "XNYS, clock not put forward": ("XNYS", "5m", "2024-02-12", "2024-04-12", {"2024-01-01": 0, "2024-03-10": 1}),
    "XNYS in Berlin's time": ("XNYS", "15m", "2024-01-08", "2024-02-09", {"2024-01-01": 1}),
    "XLON in London's time": ("XLON", "15m", "2024-02-12", "2024-05-10", {"2024-01-01": 0, "2024-03-31": 1}),
    "XHKG in Hong Kong's time": ("XHKG", "5m", "2024-01-08", "2024-01-26", {"2024-01-01": 8}),
    "XBOM in India's time": ("XBOM", "5m", "2024-01-08", "2024-01-19", {"2024-01-01": 5.5}),
    "CMES in Chicago's time": ("CMES", "1m", "2024-03-04", "2024-03-15", {"2024-01-01": -6, "2024-03-09": -5}),
    "CMES in Chicago's time, autumn": (
        "CMES", "5m", "2024-10-21", "2024-11-15", {"2024-01-01": -5, "2024-11-02": -6},
    ),
}  # fmt: skip


def clock(time, offsets):
    """Return what is added to UTC times to have them in a clock with these offsets, in hours since days."""
    since = np.array(list(offsets), "M8[us]")
    minutes = np.array([round(60 * hours) for hours in offsets.values()], "m8[m]")
    return minutes[np.searchsorted(since, time, "right") - 1]


@pytest.mark.parametrize(("name", "timeframe", "first", "last", "offsets"), SHIFTED.values(), ids=SHIFTED)
@pytest.mark.parametrize("closed", [False, True], ids=["by open", "by close"])
def test_another_clock_is_one_finding_and_undone_before_gaps_are_judged(
    name, timeframe, first, last, offsets, closed
):
    time = labels(name, timeframe, first, last)
    own = clock(time, offsets)
    step = time[1] - time[0]
    bars = moved(walk(time), own + (step if closed else np.timedelta64(0, "us")))
    judged = verdict(bars, calendar=name, timeframe=timeframe)
    assert {f.rule for f in judged.findings} == ({"timezone", "label"} if closed else {"timezone"})
    assert all((f.first, f.last) == (bars.time[0], bars.time[-1]) for f in judged.findings)
    lost = bars.time[len(bars) // 2 : len(bars) // 2 + 3]
    gapped = verdict(
        without(bars, slice(len(bars) // 2, len(bars) // 2 + 3)), calendar=name, timeframe=timeframe
    )
    gaps = [(f.first, f.last, f.count) for f in gapped.findings if f.rule == "gaps"]
    assert gaps == [(lost[0], lost[-1], 3)], "as the series labels its bars"


def test_the_detail_names_the_hours():
    time = labels("XNYS", "5m", "2024-02-12", "2024-04-12")
    bars = moved(walk(time), clock(time, {"2024-01-01": -5, "2024-03-10": -4}))
    (finding,) = verdict(bars, timeframe="5m").findings
    assert finding.detail.startswith("times are 4 or 5 hours behind UTC")
    (finding,) = verdict(
        moved(walk(time), clock(time, {"2024-01-01": 1, "2024-03-10": 2})), timeframe="5m"
    ).findings
    assert finding.detail.startswith("times are 1 or 2 hours ahead of UTC")
    (finding,) = verdict(moved(walk(time), np.timedelta64(2, "h")), timeframe="5m").findings
    assert finding.detail == "times are 2 hours ahead of UTC"


@pytest.mark.parametrize(
    ("name", "timeframe"),
    [("XNYS", "1m"), ("XNYS", "1h"), ("XNYS", "4h"), ("XHKG", "15m"), ("CMES", "1m"), ("XLON", "1d"), ("CMES", "1d")],
)  # fmt: skip
@pytest.mark.parametrize("anchor", ["open", "clock"])
def test_labels_by_the_close_are_one_finding(name, timeframe, anchor):
    time = labels(name, timeframe, "2024-01-08", "2024-02-09", anchor)
    step = {"1m": 1, "15m": 15, "1h": 60, "4h": 240, "1d": 1440}[timeframe] * np.timedelta64(60, "s")
    by_close = time + step
    if timeframe in ("1h", "4h") and anchor == "open":  # the short last bar of a session ends with it
        session_ends = labels("XNYS", "1m", "2024-01-08", "2024-02-09")[389::390] + np.timedelta64(60, "s")
        place = np.searchsorted(session_ends, time, "right")
        by_close = np.minimum(by_close, session_ends[place])
    bars = walk(by_close)
    assert [f.rule for f in verdict(bars, calendar=name, timeframe=timeframe).findings] == ["label"]
    off = Policy(rules={"label": "off"})
    assert verdict(bars, off, calendar=name, timeframe=timeframe).findings == ()


@pytest.mark.parametrize("timeframe", ["1h", "4h"])
@pytest.mark.parametrize("anchor", ["open", "clock"])
def test_both_ways_to_count_hours_are_right(timeframe, anchor):
    time = labels("XNYS", timeframe, "2024-01-08", "2024-02-09", anchor)
    assert found(walk(time), timeframe=timeframe) == []
    lost = str(time[11].astype("M8[m]"))
    assert found(without(walk(time), 11), timeframe=timeframe) == [("gaps", lost, lost, 1)]


@pytest.mark.parametrize("name", ["24/7", "XNYS"])
def test_times_a_moment_before_the_close_are_off_the_grid(name):
    time = labels(name, "1m", "2024-01-08", "2024-01-12") + np.timedelta64(59_999, "ms")
    judged = verdict(walk(time), calendar=name, timeframe="1m")
    assert [(f.rule, f.count) for f in judged.findings] == [("label", len(time))]


def test_a_stray_closing_auction_is_no_close_label():
    time = labels("XNYS", "1m", "2024-01-08", "2024-01-12")
    auctions = time[389::390] + np.timedelta64(60, "s")
    judged = verdict(walk(np.sort(np.concatenate([time, auctions]))), timeframe="1m")
    assert [(f.rule, f.count) for f in judged.findings] == [("extra_sessions", 1)] * 5


def test_extended_hours_are_no_other_clock():
    spans = [(f"2024-01-{day:02}T09:00", f"2024-01-{day + 1:02}T01:00") for day in range(8, 12)]
    judged = verdict(walk(labels_of(spans, "1m")), timeframe="1m")
    assert {f.rule for f in judged.findings} == {"extra_sessions"}
    assert sum(f.count for f in judged.findings) == 4 * (960 - 390)


def test_daily_bars_of_one_day_early_are_in_another_clock():
    """The midnight of an Asian exchange is the day before in UTC."""
    time = labels("XHKG", "1d", "2023-01-01", "2023-12-31") - np.timedelta64(1, "D")
    assert [f.rule for f in verdict(walk(time), calendar="XHKG").findings] == ["timezone"]


def test_a_holiday_is_an_extra_session_and_a_session_a_gap():
    time = labels("XNYS", "1d", "2023-01-01", "2023-12-31")
    with_holiday = np.sort(np.append(time, np.datetime64("2023-07-04", "us")))
    assert found(walk(with_holiday)) == [("extra_sessions", "2023-07-04T00:00", "2023-07-04T00:00", 1)]
    over_weekend = without(
        walk(time), *np.flatnonzero(np.isin(time, np.array(["2023-07-07", "2023-07-10"], "M8[us]")))
    )
    assert found(over_weekend) == [("gaps", "2023-07-07T00:00", "2023-07-10T00:00", 2)]


def test_weeks_without_a_session_are_not_missed():
    time = labels("XSHG", "1w", "2023-01-01", "2023-12-31")
    assert found(walk(time), calendar="XSHG", timeframe="1w") == []
    assert all(b - a >= np.timedelta64(7, "D") for a, b in pairwise(time))
    lost = str(time[5].astype("M8[m]"))
    assert found(without(walk(time), 5), calendar="XSHG", timeframe="1w") == [("gaps", lost, lost, 1)]


def test_bars_before_all_that_the_calendar_knows_are_not_judged():
    time = np.concatenate([np.arange("1989-12-20", "1989-12-30", dtype="M8[D]").astype("M8[us]"),
                           labels("XNYS", "1d", "1990-01-01", "1990-12-31")])  # fmt: skip
    judged = verdict(walk(time))
    assert judged.findings == ()
    assert "10 bars lie outside what calendar XNYS knows (1990-01-02 to " in judged.notes[0]


@pytest.mark.parametrize(("name", "word"), [(None, "has no calendar"), ("MARS", "no calendar 'MARS'")])
def test_without_a_calendar_there_are_no_verdicts_on_time(name, word):
    time = np.delete(labels("XNYS", "1d", "2023-01-01", "2023-12-31"), slice(50, 80))
    judged = verdict(walk(time), calendar=name)
    assert (judged.findings, judged.expected, judged.calendar, judged.status) == ((), None, None, "ok")
    assert word in judged.notes[0]


def test_every_rule_on_time_can_be_off():
    time = np.delete(labels("XNYS", "1m", "2024-01-08", "2024-01-12"), slice(50, 80)) + np.timedelta64(3, "h")
    assert verdict(walk(time), Policy(rules=dict.fromkeys(RULES, "off")), timeframe="1m").findings == ()
