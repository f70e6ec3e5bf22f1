"""Source synthetic: the contract, one market whatever range and timeframe is asked for, its suffixes, its speed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from time import process_time

import numpy as np
import pytest

from gpt_trader.adapters.base import Source
from gpt_trader.adapters.sources import source
from gpt_trader.adapters.synthetic import SyntheticSource
from gpt_trader.adjustments import factors
from gpt_trader.calendars import calendar, expected_labels, monday_of
from gpt_trader.errors import NotEnoughBars, UnknownName
from gpt_trader.instruments import TIMEFRAMES
from gpt_trader.raw_bars import RawBars, inspect
from gpt_trader.resampling import finer, resampled
from tests.contracts.test_sources import (  # noqa: F401 - collected here too, for this source
    test_a_bound_without_a_zone_is_refused,
    test_a_range_without_bars_says_which_there_are,
    test_a_source_lists_instruments_with_valid_ids,
    test_an_unknown_symbol_names_the_nearest,
    test_an_unknown_timeframe_is_refused,
    test_both_bounds_are_inclusive,
    test_what_a_source_gives_passes_inspection,
)
from tests.lake_samples import equal

#: A Wednesday in the middle of a session.
NOW = datetime(2024, 7, 10, 16, 7, 30, tzinfo=UTC)
SPRING = date(2024, 2, 26), date(2024, 4, 12)
SYMBOLS = ("SYN-0", "SYN-123456789012345678", "SYN-3-247", "SYN-3-SPLIT", "SYN-3-247-SPLIT-GAPS")


@pytest.fixture
def any_source() -> Source:
    """The source that the contract's tests are about."""
    return mine()


def mine(now: datetime = NOW) -> SyntheticSource:
    return SyntheticSource(clock=lambda: now)


def hours(symbol: str) -> str:
    return "24/7" if "247" in symbol else "XNYS"


def test_the_source_is_found_by_name_and_says_what_it_is():
    found = source("synthetic")
    assert isinstance(found, SyntheticSource)
    assert (found.lists_all, found.live, found.timeframes) == (False, True, tuple(TIMEFRAMES))
    assert {each.venue for each in found.instruments()} == {"SYNTHETIC"}
    assert all(each.name.startswith("Synthetic market") for each in found.instruments())


@pytest.mark.parametrize(
    ("symbol", "facts"),
    [
        ("syn-7", ("SYN-7", "XNYS", 252, 390, "Synthetic market 7")),
        (
            "SYN-7-247-GAPS",
            ("SYN-7-247-GAPS", "24/7", 365, 1440, "Synthetic market 7 (never closes, gaps)"),
        ),
        ("SYN-0-SPLIT", ("SYN-0-SPLIT", "XNYS", 252, 390, "Synthetic market 0 (splits)")),
    ],
)
def test_a_symbol_says_what_its_market_is(symbol: str, facts: tuple[object, ...]):
    found = mine().instrument(symbol)
    told = (found.symbol, found.calendar, found.bars_a_year, found.session_minutes, found.name)
    assert told == facts


@pytest.mark.parametrize(
    "symbol",
    ["SYN", "SYN-", "SYN-07", "SYN--1", "SYN-1-GAP", "SYN-1-GAPS-GAPS", "SYN-1234567890123456789", "X"],
)
def test_what_is_no_such_symbol_is_unknown(symbol: str):
    for use in (mine().instrument, mine().actions, lambda s: mine().fetch(s, "1d")):
        with pytest.raises(UnknownName, match=r"SYN-SEED\[-GAPS\]\[-SPLIT\]\[-247\]"):
            use(symbol)


# --- one market


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_bars_are_the_same_whatever_range_is_asked_for_and_when(symbol: str, timeframe: str):
    whole = mine().fetch(symbol, timeframe, *SPRING)
    assert inspect(whole, timeframe).remarks() == []
    first, last = whole.time[len(whole) // 3].item(), whole.time[len(whole) // 2].item()
    part = mine().fetch(symbol, timeframe, first.replace(tzinfo=UTC), last.replace(tzinfo=UTC))
    assert equal(part, whole[len(whole) // 3 : len(whole) // 2 + 1])
    later = mine(datetime(2026, 1, 5, 9, tzinfo=UTC)).fetch(symbol, timeframe, *SPRING)
    assert equal(later, whole)


@pytest.mark.parametrize("symbol", [symbol for symbol in SYMBOLS if "GAPS" not in symbol])
@pytest.mark.parametrize("timeframe", [timeframe for timeframe in TIMEFRAMES if timeframe != "1m"])
def test_longer_bars_are_what_shorter_ones_add_up_to(symbol: str, timeframe: str):
    synthetic, found = mine(), calendar(hours(symbol))
    expected = synthetic.fetch(symbol, timeframe, *SPRING)
    for shorter in finer(timeframe):
        bars = synthetic.fetch(symbol, shorter, *SPRING)
        made = resampled(bars, shorter, timeframe, found, synthetic.actions(symbol)).bars
        common = np.isin(expected.time, made.time)
        assert common.sum() >= len(expected) - 1
        assert equal(made, expected[common])


@pytest.mark.parametrize("symbol", [symbol for symbol in SYMBOLS if "GAPS" not in symbol])
@pytest.mark.parametrize("timeframe", ["1m", "1h", "4h", "1d", "1w"])
def test_every_bar_that_the_calendar_expects_is_there(symbol: str, timeframe: str):
    first, last = date(2024, 6, 24), date(2024, 7, 7)  # with a half-day and a holiday
    expected = expected_labels(calendar(hours(symbol)), timeframe, first, last)
    assert mine().fetch(symbol, timeframe, first, last).time.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("symbol", "timeframe", "last"),
    [
        ("SYN-1", "1m", "2024-07-10T16:06"),
        ("SYN-1", "15m", "2024-07-10T15:45"),
        ("SYN-1", "1h", "2024-07-10T14:30"),
        ("SYN-1", "1d", "2024-07-09"),
        ("SYN-1", "1w", "2024-07-01"),
        ("SYN-1-247", "4h", "2024-07-10T12:00"),
        ("SYN-1-247", "1d", "2024-07-09"),
    ],
)
def test_nothing_is_given_before_it_is_over(symbol: str, timeframe: str, last: str):
    assert mine().fetch(symbol, timeframe, date(2024, 6, 1)).time[-1] == np.datetime64(last)
    with pytest.raises(NotEnoughBars):
        mine().fetch(symbol, timeframe, NOW)


@pytest.mark.parametrize(("timeframe", "unit", "pages"), [("1d", "Y", 25), ("1w", "Y", 25), ("4h", "M", 295)])
def test_pages_are_years_or_months_and_ascend(timeframe: str, unit: str, pages: int):
    found = list(mine().pages("SYN-2", timeframe))
    assert len(found) == pages
    blocks = [np.unique(page.time.astype(f"datetime64[{unit}]")) for page in found]
    assert all(len(block) == 1 for block in blocks)
    assert (np.diff(np.concatenate([page.time for page in found])) > np.timedelta64(0)).all()


def test_seeds_are_different_markets_and_suffixes_the_same_one():
    plain = mine().fetch("SYN-4", "1d")
    assert not equal(plain, mine().fetch("SYN-5", "1d"))
    split = mine().fetch("SYN-4-SPLIT", "1d")
    shares = 1 / mine().actions("SYN-4-SPLIT").split_factor(np.array([np.datetime64("1999-12-31", "us")]))
    assert split.close[-1] * shares == pytest.approx(plain.close[-1], rel=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_regimes_switch_and_prices_stay_sane(seed: int):
    close = mine().fetch(f"SYN-{seed}", "1d").close
    assert close.min() > 1
    assert close.max() < 25_000
    moves = np.abs(np.diff(np.log(close)))
    months = np.array([chunk.mean() for chunk in np.array_split(moves, len(moves) // 21)])
    assert months.max() > 4 * months.min()
    # Calm follows calm: the size of moves is correlated, as it is not in a walk of one regime.
    assert np.corrcoef(months[1:], months[:-1])[0, 1] > 0.15


def test_a_minute_is_no_wilder_than_a_minute():
    raw = mine().fetch("SYN-0", "1m", *SPRING)
    same_day = np.diff(raw.time) == np.timedelta64(1, "m")
    moves = np.abs(np.diff(np.log(raw.close)))[same_day]
    assert 0.00005 < moves.mean() < 0.002
    assert (raw.open[1:] == raw.close[:-1])[same_day].all()
    assert (np.rint(raw.close * 100) / 100 == raw.close).all()
    assert raw.volume.min() >= 1


# --- suffixes


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("suffix", ["-SPLIT", "-SPLIT-247"])
def test_splits_are_in_printed_prices_and_in_actions(seed: int, suffix: str):
    symbol = f"SYN-{seed}{suffix}"
    raw, actions = mine().fetch(symbol, "1d"), mine().actions(symbol)
    assert len(actions) >= 10
    assert set(actions.split.tolist()) <= {0.1, 1.5, 2.0, 3.0, 4.0}
    assert np.isin(actions.ex_date.astype("datetime64[us]"), raw.time).all()
    assert set(raw.factor.tolist()) == {1.0}
    at = np.searchsorted(raw.time, actions.ex_date.astype("datetime64[us]"))
    jump = raw.open[at] / raw.close[at - 1] * actions.split
    assert jump == pytest.approx(np.ones(len(at)), abs=0.1)
    view = raw.close * factors(raw, actions, "split").price
    assert np.abs(np.diff(np.log(view))).max() < 0.25


def test_splits_lie_on_the_first_session_of_a_week():
    days = mine().actions("SYN-0-SPLIT").ex_date
    for day in days:
        monday = monday_of(np.array([day]))[0]
        assert calendar("XNYS").sessions(monday.item(), monday.item() + timedelta(days=6)).day[0] == day


def test_actions_to_come_are_not_told():
    now = datetime(2010, 3, 3, tzinfo=UTC)
    whole = mine().actions("SYN-0-SPLIT")
    assert len(mine(now).actions("SYN-0-SPLIT")) == (whole.ex_date <= np.datetime64("2010-03-03")).sum()
    assert len(mine().actions("SYN-0")) == 0


def blocks(raw: RawBars, unit: str) -> Iterator[np.ndarray]:
    label = raw.time.astype(f"datetime64[{unit}]")
    for block in np.unique(label):
        yield raw.time[label == block]


@pytest.mark.parametrize(
    ("timeframe", "unit", "since"), [("1d", "Y", 2004), ("1m", "M", 2024), ("1h", "M", 2023)]
)
@pytest.mark.parametrize("suffix", ["", "-247"])
def test_gaps_are_runs_of_bars_missing_in_every_block(timeframe: str, unit: str, since: int, suffix: str):
    bounds = date(since, 1, 1), date(2024, 6, 30)
    whole = mine().fetch(f"SYN-8{suffix}", timeframe, *bounds)
    holed = mine().fetch(f"SYN-8-GAPS{suffix}", timeframe, *bounds)
    there = np.isin(whole.time, holed.time)
    assert equal(whole[there], holed)
    assert 0 < (~there).mean() < 0.15
    full = list(blocks(whole, unit))[:-1]
    assert all(not np.isin(block, holed.time).all() for block in full)


# --- speed


@pytest.mark.parametrize(
    ("symbol", "timeframe", "first", "allowed"),
    [
        ("SYN-11", "1m", date(2023, 7, 1), 1.0),
        ("SYN-11-247-SPLIT-GAPS", "1m", date(2023, 7, 1), 2.0),
        ("SYN-12", "1d", date(2004, 7, 1), 0.2),
    ],
)
def test_bars_are_made_fast(symbol: str, timeframe: str, first: date, allowed: float):
    synthetic = mine()
    calendar(hours(symbol)).sessions(first, first)  # read once a process
    began = process_time()
    assert len(synthetic.fetch(symbol, timeframe, first)) > 5000
    assert process_time() - began < allowed
