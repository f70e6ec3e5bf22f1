"""The bars contract, and the inspection that makes it true."""

from __future__ import annotations

import numpy as np
import pytest

from gpt_trader.adjustments import adjusted
from gpt_trader.bars import Bars
from gpt_trader.errors import BadBars
from gpt_trader.raw_bars import RawBars, inspect
from tests.lake_samples import AAPL, changed, equal, some_bars


def test_bars_in_order_pass_untouched():
    raw = some_bars(50)
    inspection = inspect(raw, "1d")
    assert equal(inspection.clean, raw)
    assert inspection.remarks() == []


def test_rows_out_of_order_are_sorted_and_reported():
    raw = some_bars(5)
    inspection = inspect(raw[np.array([0, 3, 1, 2, 4])], "1d")
    assert equal(inspection.clean, raw)
    assert inspection.reordered == 1
    assert inspection.remarks() == ["1 rows were out of order: sorted by time"]


def test_exact_repetitions_are_dropped_and_reported():
    raw = some_bars(5)
    inspection = inspect(raw[np.array([0, 1, 1, 1, 2, 3, 4])], "1d")
    assert equal(inspection.clean, raw)
    assert inspection.repeated == 2
    assert len(inspection.quarantined) == 0


def test_every_row_of_a_time_with_different_bars_is_quarantined():
    raw = some_bars(5)
    twice = RawBars.joined(raw, changed(raw, 2, volume=1.5)[2:3])
    inspection = inspect(twice, "1d")
    assert equal(inspection.clean, raw[np.array([0, 1, 3, 4])])
    assert inspection.quarantined.row.tolist() == [2, 5]
    assert inspection.quarantined.counts() == {"several different bars have this time": 2}
    assert inspection.repeated == 0


def test_a_bad_row_does_not_discredit_a_good_one_of_the_same_time():
    raw = some_bars(5)
    inspection = inspect(RawBars.joined(changed(raw, 2, close=np.nan)[2:3], raw), "1d")
    assert equal(inspection.clean, raw)
    assert inspection.quarantined.row.tolist() == [0]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"time": "NaT"}, "time is missing"),
        ({"time": "1853-01-01"}, "time is outside 1900 to 2199 (is its unit right?)"),
        ({"time": "2300-01-01"}, "time is outside 1900 to 2199 (is its unit right?)"),
        ({"open": np.nan}, "price is not a finite number"),
        ({"high": np.inf}, "price is not a finite number"),
        ({"low": 0.0}, "price is not above zero"),
        ({"close": -1.0}, "price is not above zero"),
        ({"high": 1.0}, "high or low does not contain open and close"),
        ({"low": 1e6}, "high or low does not contain open and close"),
        ({"volume": np.nan}, "volume is not a finite number"),
        ({"volume": -1.0}, "volume is negative"),
        ({"factor": np.nan}, "adjustment factor is not a finite number above zero"),
        ({"factor": 0.0}, "adjustment factor is not a finite number above zero"),
        ({"factor": 1e308}, "adjusted price is not a finite number above zero"),
        ({"factor": 5e-324}, "adjusted price is not a finite number above zero"),
        ({"time": "2020-01-03T05:00"}, "label of a 1d bar is not a date at 00:00 UTC"),
    ],
)
def test_a_bad_row_is_quarantined_with_its_reason(values, reason):
    raw = some_bars(5)
    inspection = inspect(changed(raw, 2, **values), "1d")
    assert equal(inspection.clean, raw[np.array([0, 1, 3, 4])])
    assert inspection.quarantined.reason == (reason,)
    assert inspection.quarantined.row.tolist() == [2]
    assert f"1 rows quarantined: {reason}" in inspection.remarks()


def test_intraday_labels_may_be_any_time_of_day():
    raw = some_bars(500, timeframe="1m")
    assert len(inspect(raw, "1m").clean) == 500


def test_prices_that_scaling_rounded_pass():
    raw = changed(some_bars(5), 2, open=100.0, high=100.0 * (1 - 1e-12), low=100.0 * (1 + 1e-12), close=100.0)
    assert len(inspect(raw, "1d").clean) == 5
    beyond = changed(raw, 2, high=100.0 * (1 - 1e-8))
    assert len(inspect(beyond, "1d").clean) == 4


def test_input_without_a_usable_row_is_refused_and_says_why():
    raw = some_bars(3)
    broken = RawBars(raw.time, raw.open, raw.high, raw.low, np.full(3, np.nan), raw.volume, raw.factor)
    with pytest.raises(
        BadBars, match=r"none of the 3 rows is usable: 3 × price is not a finite number; the first is"
    ):
        inspect(broken, "1d")


def test_no_rows_in_no_rows_out():
    inspection = inspect(RawBars.empty(), "1d")
    assert len(inspection.clean) == 0
    assert inspection.remarks() == []


def test_arrays_of_unequal_length_are_refused():
    raw = some_bars(3)
    with pytest.raises(ValueError, match="open has shape"):
        RawBars(raw.time, raw.open[:2], raw.high, raw.low, raw.close, raw.volume, raw.factor)


def test_the_logical_hash_is_of_the_values_alone():
    raw = some_bars(10)
    strided = RawBars(
        *(
            np.repeat(getattr(raw, n), 2)[::2]
            for n in ("time", "open", "high", "low", "close", "volume", "factor")
        )
    )
    assert strided.logical_hash == raw.logical_hash
    assert changed(raw, 3, volume=0.0).logical_hash == changed(raw, 3, volume=-0.0).logical_hash
    hashes = {
        changed(raw, 3, **{name: 99.0}).logical_hash
        for name in ("open", "high", "low", "close", "volume", "factor")
    }
    assert len(hashes | {raw.logical_hash, raw[:9].logical_hash}) == 8


def test_adjusted_prices_are_raw_times_factor_and_volume_stays():
    raw = some_bars(10)
    bars = adjusted(raw, AAPL, "1d", logical_hash="x")
    assert bars.close.tolist() == (raw.close * 0.5).tolist()
    assert bars.volume.tolist() == raw.volume.tolist()
    assert bars.logical_hash == "x"
    assert adjusted(raw, AAPL, "1d", how="none").high.tolist() == raw.high.tolist()


def test_bars_cannot_be_written_to():
    bars = adjusted(some_bars(10), AAPL, "1d")
    with pytest.raises(ValueError, match="read-only"):
        bars.close[0] = 1.0


def test_a_part_of_bars_is_a_view_with_the_same_instrument():
    bars = adjusted(some_bars(10), AAPL, "1d")
    part = bars[2:5]
    assert isinstance(part, Bars)
    assert len(part) == 3
    assert part.symbol == "AAPL"
    assert np.shares_memory(part.close, bars.close)
    assert part.periods_a_year == 252


def test_identified_bars_are_hashed_by_their_own_values():
    bars = adjusted(some_bars(10), AAPL, "1d", logical_hash="of the series")
    longer = adjusted(some_bars(12), AAPL, "1d", logical_hash="of a longer series")
    part = adjusted(RawBars.joined(some_bars(10), RawBars.empty()), AAPL, "1d").identified()
    assert bars.identified().logical_hash == part.logical_hash
    assert bars[:9].identified().logical_hash != part.logical_hash
    assert longer.identified().logical_hash != part.logical_hash
    unadjusted = adjusted(some_bars(10), AAPL, "1d", how="none")
    assert unadjusted.identified().logical_hash != part.logical_hash
