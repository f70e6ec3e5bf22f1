"""Which ranges an ingest fetches: nothing twice, no hole."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from gpt_trader.ingestion import MOST_WINDOW_BARS, OVERLAP_BARS, WINDOW_BARS, Range, ranges

STORED = (datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 29, tzinfo=UTC))
DAY = timedelta(days=1)


def test_a_new_series_is_fetched_as_asked():
    until = datetime(2024, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)
    wanted = Range(datetime(2024, 1, 1, tzinfo=UTC), until)
    assert list(ranges(None, "1d", date(2024, 1, 1), date(2024, 1, 31))) == [wanted]
    assert list(ranges(None, "1d", None, None)) == [Range(None, None)]


def test_a_stored_series_goes_on_a_little_before_its_last_bar():
    assert list(ranges(STORED, "1d", None, None)) == [Range(STORED[1] - OVERLAP_BARS * DAY, None)]


def test_a_short_series_is_not_fetched_from_before_its_first_bar():
    short = (STORED[1] - DAY, STORED[1])
    assert next(iter(ranges(short, "1d", None, None))).start == short[0]


@pytest.mark.parametrize(("start", "end"), [(None, date(2024, 3, 15)), (date(2024, 3, 5), date(2024, 3, 28))])
def test_what_is_stored_is_not_fetched(start: date | None, end: date):
    assert list(ranges(STORED, "1d", start, end)) == []


def test_an_earlier_start_is_fetched_backwards_up_to_what_is_stored():
    assert list(ranges(STORED, "1d", date(2024, 1, 1), date(2024, 3, 10))) == [
        Range(datetime(2024, 1, 1, tzinfo=UTC), STORED[0], ascending=False)
    ]


def test_a_range_apart_from_what_is_stored_leaves_no_hole():
    before = list(ranges(STORED, "1d", date(2023, 1, 1), date(2023, 2, 1)))
    assert before == [Range(datetime(2023, 1, 1, tzinfo=UTC), STORED[0], ascending=False)]
    behind = list(ranges(STORED, "1d", date(2024, 6, 1), None))
    assert behind == [Range(STORED[1] - OVERLAP_BARS * DAY, None)]


def test_a_long_way_back_goes_in_growing_windows_that_touch():
    minute = timedelta(minutes=1)
    parts = [part for part in ranges(STORED, "1m", date(2004, 3, 1), date(2024, 3, 1)) if not part.ascending]
    assert parts[0].end == STORED[0]
    assert parts[-1].start == datetime(2004, 3, 1, tzinfo=UTC)
    assert all(later.start == earlier.end for later, earlier in pairwise(parts))
    lengths = [(part.end - part.start) / minute for part in parts if part.end and part.start]
    assert lengths[0] == WINDOW_BARS
    assert lengths[1] == 2 * WINDOW_BARS
    assert max(lengths) == MOST_WINDOW_BARS
