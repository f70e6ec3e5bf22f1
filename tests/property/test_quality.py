"""Series of any market and timeframe: nothing is found where nothing is wrong, and what is done to one is found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.quality import gap_spans
from gpt_trader.raw_bars import VALUES, RawBars
from tests.examples import examples
from tests.quality_samples import labels, moved, scaled, verdict, walk, without

#: Of each market some weeks with what makes it special: a holiday, a half-day, a change of clocks.
MARKETS = {
    "XNYS": [("2024-02-26", "2024-03-29"), ("2023-11-06", "2023-12-01"), ("2024-10-21", "2024-11-15")],
    "XLON": [("2024-03-11", "2024-04-12"), ("2024-12-09", "2025-01-03")],
    "XHKG": [("2024-01-22", "2024-02-23")],
    "CMES": [("2024-01-02", "2024-01-31"), ("2024-10-21", "2024-11-15")],
    "24/7": [("2024-02-20", "2024-03-20")],
}
#: Years for bars of which a month has too few.
YEARS = dict.fromkeys(MARKETS, ("2022-11-01", "2024-11-30"))


@st.composite
def clean(draw: st.DrawFn) -> tuple[str, str, RawBars]:
    """Draw calendar, timeframe and the bars that are expected, from anywhere to anywhere in a stretch of weeks."""
    name = draw(st.sampled_from(list(MARKETS)))
    timeframe = draw(st.sampled_from(["1m", "5m", "15m", "1h", "4h", "1d", "1w"]))
    first, last = YEARS[name] if timeframe in ("4h", "1d", "1w") else draw(st.sampled_from(MARKETS[name]))
    anchor = draw(st.sampled_from(["open", "clock"])) if timeframe in ("1h", "4h") else "open"
    time = labels(name, timeframe, first, last, anchor)
    start = draw(st.integers(0, max(len(time) // 2 - 40, 0)))
    stop = draw(st.integers(start + 90, len(time))) if len(time) > start + 90 else len(time)
    return name, timeframe, walk(time[start:stop], draw(st.integers(0, 2**16)))


def rules(bars: RawBars, name: str, timeframe: str, **more) -> list[str]:
    return [f.rule for f in verdict(bars, calendar=name, timeframe=timeframe, **more).findings]


checked = settings(max_examples=examples(12), deadline=None)


@checked
@given(clean())
def test_nothing_is_found_where_nothing_is_wrong(drawn):
    name, timeframe, bars = drawn
    judged = verdict(bars, calendar=name, timeframe=timeframe)
    assert (judged.findings, judged.notes) == ((), ())
    assert judged.expected == len(bars)


@checked
@given(clean(), st.data())
def test_bars_that_are_taken_out_are_the_gaps(drawn, data):
    name, timeframe, bars = drawn
    row = data.draw(st.integers(1, len(bars) - 2))
    length = data.draw(st.integers(1, min(60, len(bars) - row - 1)))
    judged = verdict(without(bars, slice(row, row + length)), calendar=name, timeframe=timeframe)
    assert [(f.rule, f.first, f.last, f.count) for f in judged.findings] == [
        ("gaps", bars.time[row], bars.time[row + length - 1], length)
    ]
    (first,), (last,) = gap_spans(judged)
    assert (first, last) == (bars.time[row], bars.time[row + length - 1])


def nan_close(bars: RawBars, row: int) -> RawBars:
    return scaled(bars, row, np.nan, ["close"])


def crossed(bars: RawBars, row: int) -> RawBars:
    return scaled(bars, row, -1, ["low"])


def twice(bars: RawBars, row: int) -> RawBars:
    return bars[np.sort(np.append(np.arange(len(bars)), row))]


def hung(bars: RawBars, row: int) -> RawBars:
    columns = {name: getattr(bars, name).copy() for name in VALUES}
    for column in columns.values():
        column[row : row + 70] = column[row]
    return RawBars(bars.time, **columns)


def spike(bars: RawBars, row: int) -> RawBars:
    return scaled(bars, row, 10, ["high", "close"])


def dip(bars: RawBars, row: int) -> RawBars:
    return scaled(bars, row, 0.1)


def halved(bars: RawBars, row: int) -> RawBars:
    return scaled(bars, slice(row, None), 0.5)


def leap(bars: RawBars, row: int) -> RawBars:
    return scaled(bars, slice(row, None), 1.9)


FAULTS = {
    "finite": nan_close, "ohlc": crossed, "duplicates": twice, "stale": hung, "splits": halved, "outliers": spike,
}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "fault"), [*FAULTS.items(), ("outliers", dip), ("outliers", leap)], ids=[*FAULTS, "dip", "leap"]
)
@checked
@given(clean(), st.data())
def test_each_fault_is_found_by_its_rule_alone(rule, fault, drawn, data):
    name, timeframe, bars = drawn
    row = data.draw(st.integers(2, len(bars) - (80 if rule == "stale" else 3)))
    assert rules(fault(bars, row), name, timeframe) == [rule]


@checked
@given(clean(), st.data())
def test_a_recorded_split_is_no_finding(drawn, data):
    name, timeframe, bars = drawn
    day = bars.time.astype("M8[D]")
    first_of_days = np.flatnonzero(day[1:] != day[:-1]) + 1
    row = int(first_of_days[data.draw(st.integers(0, len(first_of_days) - 1))]) if len(first_of_days) else 0
    ratio = data.draw(st.sampled_from([2.0, 3.0, 1.5, 0.1, 0.05]))
    split = scaled(bars, slice(row, None), 1 / ratio)
    actions = CorporateActions.of({day[row].item(): ratio})
    assert rules(split, name, timeframe, actions=actions) == []


@checked
@given(clean(), st.integers(-13, 13).filter(bool))
def test_a_clock_that_is_wrong_is_one_finding(drawn, hours):
    name, timeframe, bars = drawn
    if timeframe in ("1d", "1w") or name == "24/7" or timeframe in ("1h", "4h"):
        return  # they have no time of day, no close, or bars as long as the shift
    days = len(np.unique(bars.time.astype("M8[D]")))
    found = rules(moved(bars, np.timedelta64(hours, "h")), name, timeframe)
    assert found == ["timezone"] or days < 3, "a few hours of one session fit into another clock's session"


@checked
@given(clean())
def test_labels_by_the_close_are_one_finding(drawn):
    name, timeframe, bars = drawn
    if timeframe in ("1h", "4h", "1w") or name == "24/7":
        return  # a short last bar, and markets without a close: see the tables of tests/unit
    step = np.diff(bars.time)
    if (step == step.min()).all():
        return  # the part of one session, without its end
    closed = moved(bars, step.min())
    assert rules(closed, name, timeframe) == ["label"]


@checked
@given(clean(), st.data())
def test_what_was_changed_when_fetched_again_is_restated(drawn, data):
    name, timeframe, bars = drawn
    row = data.draw(st.integers(0, len(bars) - 1))
    which = data.draw(st.sampled_from(VALUES))
    older = scaled(bars, row, data.draw(st.sampled_from([0.999, 1.001, 2.0])), [which])
    assert rules(bars, name, timeframe, revisions=older) == ["restated"]
    assert rules(bars, name, timeframe, revisions=bars) == []
