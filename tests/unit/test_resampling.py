"""Longer bars of shorter ones: grouped by sessions, whole groups alone, in the terms of the last bar."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from gpt_trader.calendars import calendar, expected_labels
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import Refused
from gpt_trader.raw_bars import RawBars
from gpt_trader.resampling import finer, resampled


def bars_at(time: np.ndarray, close: np.ndarray | None = None) -> RawBars:
    """Return bars whose close counts up from 1 unless given; open, high and low lie around it; volume is 10."""
    close = np.arange(1.0, len(time) + 1) if close is None else close
    return RawBars(
        time, close - 0.5, close + 1, close - 0.75, close, np.full(len(time), 10.0), np.ones(len(time))
    )


def minutes(name: str, first: date, last: date, timeframe: str = "1m") -> np.ndarray:
    return expected_labels(calendar(name), timeframe, first, last)


def times(*text: str) -> list[np.datetime64]:
    return [np.datetime64(each, "us") for each in text]


def test_a_session_becomes_a_day_with_its_date():
    raw = bars_at(
        minutes("XNYS", date(2024, 7, 1), date(2024, 7, 5))
    )  # the 3rd is a half-day, the 4th a holiday
    made = resampled(raw, "1m", "1d", calendar("XNYS"))
    assert made.bars.time.tolist() == [
        t.item() for t in times("2024-07-01", "2024-07-02", "2024-07-03", "2024-07-05")
    ]
    assert made.bars.open.tolist() == [0.5, 390.5, 780.5, 990.5]
    assert made.bars.close.tolist() == [390.0, 780.0, 990.0, 1380.0]
    assert made.bars.high.tolist() == [391.0, 781.0, 991.0, 1381.0]
    assert made.bars.low.tolist() == [0.25, 390.25, 780.25, 990.25]
    assert made.bars.volume.tolist() == [3900.0, 3900.0, 2100.0, 3900.0]
    assert (made.outside, made.unfinished) == (0, ())


def test_hours_count_from_the_open_and_anew_after_a_break():
    raw = bars_at(minutes("XHKG", date(2024, 7, 2), date(2024, 7, 2), "5m"))
    made = resampled(raw, "5m", "1h", calendar("XHKG"))
    opens = (
        "01:30",
        "02:30",
        "03:30",
        "05:00",
        "06:00",
        "07:00",
    )  # 9:30 and 13:00 in Hong Kong, half an hour before noon
    assert made.bars.time.tolist() == [t.item() for t in times(*(f"2024-07-02T{at}" for at in opens))]
    assert made.bars.volume.tolist() == [120.0, 120.0, 60.0, 120.0, 120.0, 120.0]


def test_a_future_s_day_begins_the_evening_before():
    raw = bars_at(minutes("CMES", date(2024, 1, 3), date(2024, 1, 4), "1h"))
    made = resampled(raw, "1h", "1d", calendar("CMES"))
    assert raw.time[0] == np.datetime64("2024-01-02T23:00")
    assert made.bars.time.tolist() == [t.item() for t in times("2024-01-03", "2024-01-04")]


def test_bars_outside_of_every_session_are_left_out_and_counted():
    inside = minutes("XNYS", date(2024, 7, 1), date(2024, 7, 1))
    raw = bars_at(np.concatenate([times("2024-07-01T12:00"), inside]))
    made = resampled(raw, "1m", "1d", calendar("XNYS"))
    assert made.outside == 1
    assert made.bars.volume.tolist() == [3900.0]
    assert "outside of every session" in made.remarks()[0]


@pytest.mark.parametrize("name", ["XNYS", None])
def test_groups_that_the_bars_do_not_cover_are_left_out(name: str | None):
    known = calendar(name) if name else None
    raw = bars_at(minutes("24/7" if name is None else name, date(2024, 7, 1), date(2024, 7, 3)))
    made = resampled(raw[5:-5], "1m", "1d", known)
    assert made.bars.time.tolist() == times("2024-07-02")
    assert list(made.unfinished) == times("2024-07-01", "2024-07-03")


def test_weeks_are_whole_by_their_sessions_and_not_by_seven_days():
    days = minutes("XNYS", date(2024, 7, 1), date(2024, 7, 12), "1d")
    whole = resampled(bars_at(days), "1d", "1w", calendar("XNYS"))
    assert whole.bars.time.tolist() == times("2024-07-01", "2024-07-08")
    late = resampled(bars_at(days[1:]), "1d", "1w", calendar("XNYS"))
    assert list(late.unfinished) == times("2024-07-01")
    early = resampled(bars_at(days[:-1]), "1d", "1w", calendar("XNYS"))
    assert list(early.unfinished) == times("2024-07-08")


def test_a_split_within_a_week_makes_no_jump_in_its_bar():
    days = minutes("24/7", date(2024, 7, 1), date(2024, 7, 7), "1d")
    close = np.array([100.0, 102.0, 50.0, 51.0, 52.0, 53.0, 54.0])
    split = CorporateActions.of({date(2024, 7, 3): 2.0})
    week = resampled(bars_at(days, close), "1d", "1w", calendar("24/7"), split).bars
    assert week.open.tolist() == [49.75]
    assert week.high.tolist() == [55.0]
    assert week.low.tolist() == [49.25]
    assert week.close.tolist() == [54.0]
    assert week.volume.tolist() == [20.0 * 2 + 50.0]


def test_a_source_s_own_factor_is_kept_in_the_terms_of_the_last_bar():
    days = minutes("24/7", date(2024, 7, 1), date(2024, 7, 7), "1d")
    raw = bars_at(days, np.full(7, 100.0))
    raw = RawBars(
        raw.time, raw.open, raw.high, raw.low, raw.close, raw.volume, np.array([0.5] * 3 + [1.0] * 4)
    )
    week = resampled(raw, "1d", "1w", calendar("24/7")).bars
    assert week.open.tolist() == [99.5 * 0.5]
    assert week.factor.tolist() == [1.0]


def test_what_cannot_be_made_is_refused_with_what_can():
    assert finer("1h") == ["15m", "5m", "1m"]
    with pytest.raises(Refused, match=r"cannot be made of 4h bars; allowed: 15m, 5m, 1m"):
        resampled(bars_at(np.array([], "datetime64[us]")), "4h", "1h")


def test_no_bars_make_no_bars():
    made = resampled(RawBars.empty(), "1m", "1d", calendar("XNYS"))
    assert len(made.bars) == made.outside == 0
