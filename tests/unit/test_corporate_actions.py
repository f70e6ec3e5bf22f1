"""Splits and dividends as values: what is refused, how lists meet, and what they make of a price."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import BadBars

D1, D2, D3 = date(2020, 1, 10), date(2020, 2, 10), date(2020, 3, 10)
ACTIONS = CorporateActions.of({D2: 2.0}, {D1: 0.5, D3: 0.25})


def rows(actions: CorporateActions) -> list[tuple[date, float, float]]:
    return list(zip(actions.ex_date.tolist(), actions.split.tolist(), actions.dividend.tolist(), strict=True))


def days(*values: str) -> np.ndarray:
    return np.array(values, "datetime64[us]")


def test_splits_and_dividends_become_one_row_a_day_oldest_first():
    both = CorporateActions.of({D2: 2.0, D1: 3.0}, {D1: 0.5})
    assert rows(both) == [(D1, 3.0, 0.5), (D2, 2.0, 0.0)]
    assert rows(CorporateActions.of()) == rows(CorporateActions.none()) == []


@pytest.mark.parametrize("split", [0.0, -2.0, np.inf, np.nan])
def test_a_split_that_is_no_ratio_is_refused(split: float):
    with pytest.raises(BadBars, match=f"on 2020-01-10 split {split} or dividend 0.0 is impossible"):
        CorporateActions.of({D1: split})


@pytest.mark.parametrize("dividend", [-0.01, np.inf, np.nan])
def test_a_dividend_that_is_no_amount_is_refused(dividend: float):
    with pytest.raises(BadBars, match=f"on 2020-01-10 split 1.0 or dividend {dividend} is impossible"):
        CorporateActions.of({}, {D1: dividend})


@pytest.mark.parametrize("ex_date", [[D2, D1], [D1, D1], [D1, None]])
def test_days_that_do_not_increase_are_refused(ex_date: list[date | None]):
    with pytest.raises(BadBars, match="ex-dates must be known, unique and increasing"):
        CorporateActions(np.array(ex_date, "datetime64[D]"), np.ones(2), np.zeros(2))


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="must have one shape"):
        CorporateActions(np.array([D1], "datetime64[D]"), np.ones(2), np.zeros(1))


@pytest.mark.parametrize(
    ("known_at", "count"), [(None, 3), (D3, 3), (D3 - timedelta(days=1), 2), (D1, 1), (date(2019, 12, 31), 0)]
)
def test_what_is_known_on_a_day_is_what_went_ex_up_to_it(known_at: date | None, count: int):
    assert rows(ACTIONS.until(known_at)) == rows(ACTIONS)[:count]


def test_of_two_lists_the_newer_one_wins_where_both_have_a_day():
    newer = CorporateActions.of({D2: 4.0}, {date(2020, 2, 20): 0.1})
    assert rows(ACTIONS.merged(newer)) == [
        (D1, 1.0, 0.5),
        (D2, 4.0, 0.0),
        (date(2020, 2, 20), 1.0, 0.1),
        (D3, 1.0, 0.25),
    ]
    assert ACTIONS.merged(CorporateActions.none()).logical_hash == ACTIONS.logical_hash
    assert CorporateActions.none().merged(ACTIONS).logical_hash == ACTIONS.logical_hash


def test_equal_lists_hash_alike_and_others_do_not():
    again = CorporateActions.of({D2: 2.0}, {D3: 0.25, D1: 0.5, D2: -0.0})
    assert again.logical_hash == ACTIONS.logical_hash
    others = [
        CorporateActions.none(),
        CorporateActions.of({D2: 2.5}, {D1: 0.5, D3: 0.25}),
        CorporateActions.of({D2: 2.0}, {D1: 0.5, D3: 0.26}),
        CorporateActions.of({D2: 2.0}, {D1: 0.5, D3 + timedelta(days=1): 0.25}),
    ]
    assert len({ACTIONS.logical_hash, *(other.logical_hash for other in others)}) == 5


def test_a_price_before_several_splits_is_divided_by_all_later_ones():
    splits = CorporateActions.of({D1: 2.0, D2: 0.1, D3: 3.0})
    time = days(
        "2020-01-09", "2020-01-10", "2020-02-09T23:59", "2020-02-10T00:00", "2020-03-09", "2020-03-10"
    )
    np.testing.assert_allclose(
        splits.split_factor(time), [1 / 0.6, 1 / 0.3, 1 / 0.3, 1 / 3, 1 / 3, 1.0], rtol=1e-15
    )


def test_a_dividend_takes_its_share_of_the_last_close_before_it():
    time = days("2020-01-08", "2020-01-09", "2020-01-13", "2020-03-09", "2020-03-10")
    close = np.array([10.0, 20.0, 30.0, 50.0, 60.0])
    first, second = 1 - 0.5 / 20.0, 1 - 0.25 / 50.0
    np.testing.assert_allclose(
        ACTIONS.dividend_factor(time, close),
        [first * second, first * second, second, second, 1.0],
        rtol=1e-15,
    )


def test_an_action_outside_of_the_bars_changes_what_lies_before_it_or_nothing():
    time, close = days("2020-02-20", "2020-02-21"), np.array([10.0, 10.0])
    assert ACTIONS.split_factor(time).tolist() == [1.0, 1.0]
    assert ACTIONS.dividend_factor(time, close).tolist() == [1 - 0.25 / 10, 1 - 0.25 / 10]
    assert ACTIONS.dividend_factor(days("2020-05-01"), np.array([0.1])).tolist() == [1.0]


@pytest.mark.parametrize("close", [0.25, 0.2])
def test_a_dividend_not_below_the_close_before_it_is_refused_with_both(close: float):
    with pytest.raises(
        BadBars, match=rf"dividend of 0.25 on 2020-03-10 is not below the close before it, {close:g}"
    ):
        ACTIONS.dividend_factor(days("2020-03-09"), np.array([close]))
