"""Adjusted views, against worked examples of others and against what was known on a day."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from gpt_trader.adapters.sample import SampleSource
from gpt_trader.adjustments import adjusted, factors
from gpt_trader.bars import Bars
from gpt_trader.corporate_actions import Adjustment, CorporateActions
from gpt_trader.errors import BadBars, Refused, UnknownName
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars
from tests.lake_samples import some_bars

MSFT = Instrument(symbol="MSFT", venue="XNAS", calendar="XNYS")
#: Microsoft's 2-for-1 split and its first dividend, on two days in a row.
ACTIONS = CorporateActions.of({date(2003, 2, 18): 2.0}, {date(2003, 2, 19): 0.08})


def bars_of(closes: dict[str, float], volume: float = 1000.0, factor: float = 1.0) -> RawBars:
    close = np.array(list(closes.values()))
    full = np.full(len(close), 1.0)
    return RawBars(
        np.array(list(closes), "datetime64[us]"),
        close,
        close * 1.01,
        close * 0.99,
        close,
        full * volume,
        full * factor,
    )


RAW = bars_of({"2003-02-13": 46.99, "2003-02-14": 48.30, "2003-02-18": 24.96, "2003-02-19": 24.53})


def view(
    raw: RawBars,
    actions: CorporateActions | None = ACTIONS,
    how: Adjustment = "all",
    known_at: date | None = None,
    timeframe: str = "1d",
) -> Bars:
    return adjusted(raw, MSFT, timeframe, actions=actions, how=how, known_at=known_at)


def without_ratio(raw: RawBars) -> RawBars:
    return RawBars(raw.time, raw.open, raw.high, raw.low, raw.close, raw.volume, np.ones(len(raw)))


def test_the_example_by_which_yahoo_explains_its_adjusted_close():
    """help.yahoo.com, "What is the adjusted close?" (SLN2311), by the standards of CRSP: split × 0.5, dividend
    × (1 − 0.08 / 24.96) = 0.9968; 46.99 → 23.42, 48.30 → 24.07, 24.96 → 24.88, 24.53 as it is."""
    assert view(RAW).close.round(2).tolist() == [23.42, 24.07, 24.88, 24.53]
    np.testing.assert_allclose(view(RAW).close[0], 46.99 * 0.5 * (1 - 0.08 / 24.96), rtol=1e-15)
    assert view(RAW, how="split").close.tolist() == [46.99 / 2, 24.15, 24.96, 24.53]
    assert view(RAW, how="none").close.tolist() == RAW.close.tolist()


def test_every_price_is_scaled_alike_and_volume_by_splits_alone():
    bars = view(RAW)
    scale = bars.close / RAW.close
    for name in ("open", "high", "low"):
        np.testing.assert_allclose(getattr(bars, name) / getattr(RAW, name), scale, rtol=1e-15)
    assert bars.volume.tolist() == view(RAW, how="split").volume.tolist() == [2000, 2000, 1000, 1000]
    assert view(RAW, how="none").volume.tolist() == [1000] * 4


def test_apples_four_for_one_split_with_the_dividend_before_it():
    """$0.82 a share, ex 2020-08-07, is of the old shares: 0.205 of today's. Split 4:1, ex 2020-08-31."""
    raw = bars_of({"2020-08-06": 455.61, "2020-08-07": 444.45, "2020-08-28": 499.23, "2020-08-31": 129.04})
    actions = CorporateActions.of({date(2020, 8, 31): 4.0}, {date(2020, 8, 7): 0.82})
    bars = view(raw, actions)
    np.testing.assert_allclose(bars.close, [(455.61 - 0.82) / 4, 444.45 / 4, 499.23 / 4, 129.04], rtol=1e-14)
    returns = bars.close[1:] / bars.close[:-1] - 1
    np.testing.assert_allclose(
        returns, [444.45 / (455.61 - 0.82) - 1, 499.23 / 444.45 - 1, 4 * 129.04 / 499.23 - 1], rtol=1e-13
    )
    in_new_shares = (455.61 / 4, 0.82 / 4)
    np.testing.assert_allclose(bars.close[0], in_new_shares[0] - in_new_shares[1], rtol=1e-14)


def test_a_reverse_split_raises_the_prices_before_it():
    raw = bars_of({"2020-01-02": 1.5, "2020-01-03": 15.0})
    bars = view(raw, CorporateActions.of({date(2020, 1, 3): 0.1}))
    np.testing.assert_allclose(bars.close, [15.0, 15.0])
    np.testing.assert_allclose(bars.volume, [100.0, 1000.0])


def test_a_dividend_on_the_day_of_a_split_is_of_the_old_shares():
    """CRSP: return = (price × shares for one + cash) / price before − 1."""
    raw = bars_of({"2020-01-02": 100.0, "2020-01-03": 49.0})
    bars = view(raw, CorporateActions.of({date(2020, 1, 3): 2.0}, {date(2020, 1, 3): 2.0}))
    np.testing.assert_allclose(bars.close, [49.0, 49.0], rtol=1e-14)


def test_computed_from_actions_the_series_is_the_vendors_own_over_the_same_days():
    """The package's MSFT has a vendor's adjusted close of 2013. It has the dividend reinvested at the close of
    the ex-date, 1 / (1 + 0.08 / 24.53), where CRSP's factor is 1 - 0.08 / 24.96: they differ by 5 in 100,000."""
    raw = SampleSource().fetch("MSFT", "1d", date(2003, 2, 10), date(2003, 2, 28))
    vendor = view(raw, actions=None).close
    computed = view(without_ratio(raw)).close
    scale = (computed / computed[-1]) / (vendor / vendor[-1])
    difference = (1 - 0.08 / 24.96) * (1 + 0.08 / 24.53)
    np.testing.assert_allclose(scale[:6], difference, rtol=1e-6)
    np.testing.assert_allclose(scale[6:], 1.0, rtol=1e-6)
    assert abs(difference - 1) < 5e-5


@pytest.mark.parametrize("symbol", ["AAPL", "MSFT", "IBM", "GOOG"])
def test_the_samples_splits_leave_no_jump_and_explain_all_the_jumps_there_are(symbol: str):
    source = SampleSource()
    raw, actions = source.fetch(symbol, "1d"), source.actions(symbol)
    split = view(raw, actions, "split").close
    plain = raw.close[1:] / raw.close[:-1]
    on_split_day = np.isin(raw.time[1:].astype("datetime64[D]"), actions.ex_date)
    assert np.all(plain[on_split_day] < 0.6)
    assert np.all(np.abs(split[1:] / split[:-1] - 1)[on_split_day] < 0.1)
    np.testing.assert_allclose((split[1:] / split[:-1])[~on_split_day], plain[~on_split_day], rtol=1e-12)


@pytest.mark.parametrize("how", ["all", "split", "none"])
def test_without_actions_and_without_a_ratio_prices_are_as_printed(how: Adjustment):
    for nothing in (None, CorporateActions.none()):
        assert view(RAW, nothing, how).close.tolist() == RAW.close.tolist()
        assert view(RAW, nothing, how).volume.tolist() == RAW.volume.tolist()


def test_bars_without_a_row_have_a_view_without_a_row():
    assert len(view(RawBars.empty())) == 0


@pytest.mark.parametrize(
    ("known_at", "expected"),
    [
        ("2003-02-13", [46.99, 48.30, 24.96, 24.53]),
        ("2003-02-17", [46.99, 48.30, 24.96, 24.53]),
        ("2003-02-18", [23.495, 24.15, 24.96, 24.53]),
        ("2003-02-19", [23.42, 24.07, 24.88, 24.53]),
        ("2100-01-01", [23.42, 24.07, 24.88, 24.53]),
    ],
)
def test_a_view_as_of_a_day_knows_the_actions_up_to_that_day(known_at: str, expected: list[float]):
    day = date.fromisoformat(known_at)
    bars = view(RAW, known_at=day)
    np.testing.assert_allclose(bars.close, expected, atol=0.005)
    seen = RAW.time <= np.datetime64(day)
    then = view(RAW[seen], ACTIONS.until(day))
    assert bars.close[seen].tolist() == then.close.tolist()
    assert bars.volume[seen].tolist() == then.volume.tolist()


def test_a_vendors_ratio_is_taken_back_to_what_it_was_on_the_day():
    """A vendor's ratio holds every later dividend; as of a day, that day's price is the one that was printed."""
    raw = SampleSource().fetch("AAPL", "1d", date(2000, 3, 1), date(2005, 6, 1))
    for day in (date(2000, 6, 20), date(2000, 6, 21), date(2003, 1, 4), date(2005, 6, 1)):
        seen = raw.time <= np.datetime64(day)
        bars = view(raw, actions=None, known_at=day)
        assert bars.close[seen][-1] == raw.close[seen][-1]
        latest = view(raw, actions=None).close[seen]
        np.testing.assert_allclose(bars.close[seen] / bars.close[seen][-1], latest / latest[-1], rtol=1e-13)


def test_a_vendors_ratio_before_its_first_bar_is_left_as_it_is():
    raw = bars_of({"2003-02-13": 46.99, "2003-02-14": 48.30}, factor=0.5)
    assert view(raw, None, known_at=date(2003, 2, 12)).close.tolist() == (raw.close * 0.5).tolist()


def test_a_vendors_ratio_wins_over_actions_and_volume_follows_the_splits():
    raw = bars_of({"2003-02-14": 48.30, "2003-02-18": 24.96}, factor=0.25)
    bars = view(raw)
    assert bars.close.tolist() == [48.30 * 0.25, 24.96 * 0.25]
    assert bars.volume.tolist() == [2000.0, 1000.0]
    assert view(raw, how="split").close.tolist() == [24.15, 24.96]
    assert view(raw, None).volume.tolist() == [1000.0, 1000.0]


def test_split_alone_is_refused_where_only_a_ratio_for_both_is_known():
    raw = some_bars(5)
    with pytest.raises(Refused, match=r"one ratio for splits and dividends together.*allowed: all, none"):
        view(raw, None, "split")
    assert view(raw, CorporateActions.none(), "split").close.tolist() == raw.close.tolist()


def test_a_word_for_no_view_is_refused_with_the_nearest():
    with pytest.raises(UnknownName, match=r"'splits' is not known.*did you mean 'split'"):
        factors(RAW, ACTIONS, "splits")  # type: ignore[arg-type]


def test_actions_that_contradict_the_prices_are_refused_where_they_count():
    wrong = CorporateActions.of({}, {date(2003, 2, 19): 25.0})
    with pytest.raises(
        BadBars, match=r"dividend of 25 on 2003-02-19 is not below the close before it, 24\.96"
    ):
        view(RAW, wrong)
    assert view(RAW, wrong, "split").close.tolist() == RAW.close.tolist()
    assert view(RAW, wrong, known_at=date(2003, 2, 18)).close.tolist() == RAW.close.tolist()


def test_minutes_of_the_day_before_are_adjusted_and_those_of_the_ex_date_are_not():
    raw = bars_of({"2003-02-14T20:59": 48.0, "2003-02-14T21:00": 48.3, "2003-02-18T14:30": 24.9})
    bars = view(raw, CorporateActions.of({date(2003, 2, 18): 2.0}, {date(2003, 2, 18): 0.3}), timeframe="1m")
    kept = 1 - 0.3 / 48.3
    np.testing.assert_allclose(bars.close, [24.0 * kept, 24.15 * kept, 24.9], rtol=1e-14)


def test_a_week_with_an_action_in_it_is_in_the_terms_of_its_last_day():
    """The week of Monday the 17th closes at 24.63, after the split of Tuesday and the dividend of Wednesday."""
    weeks = bars_of({"2003-02-03": 46.58, "2003-02-10": 48.30, "2003-02-17": 24.63, "2003-02-24": 23.70})
    bars = view(weeks, timeframe="1w")
    kept = 1 - 0.08 / 48.30  # by weeks, the last close before it is that of the week before
    np.testing.assert_allclose(bars.close, [46.58 / 2 * kept, 24.15 * kept, 24.63, 23.70], rtol=1e-14)
    assert bars.volume.tolist() == [2000, 2000, 1000, 1000]
    assert view(weeks, how="split", timeframe="1w").close.tolist() == [23.29, 24.15, 24.63, 23.70]
