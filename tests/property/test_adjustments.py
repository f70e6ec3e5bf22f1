"""Whatever actions there are: an adjusted series has a holder's returns, and as of a day it knows no later one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_trader.adjustments import adjusted
from gpt_trader.bars import Bars, Floats
from gpt_trader.corporate_actions import Adjustment, CorporateActions
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars
from tests.examples import examples

FIRST = date(2020, 1, 1)
ACME = Instrument(symbol="ACME")


@dataclass(frozen=True)
class Case:
    """Raw bars (n,) as a market would print them, given a holder's returns (n - 1,) and the actions."""

    raw: RawBars
    actions: CorporateActions
    returns: Floats


@st.composite
def cases(draw: st.DrawFn, *, dividends: bool = True) -> Case:
    """Draw daily bars: each close is (close before − dividend) × (1 + return) / split."""
    size = draw(st.integers(2, 40))
    days = st.integers(-3, size + 3)
    ratio = st.sampled_from([0.05, 0.1, 0.5, 2 / 3, 1.05, 1.5, 2.0, 3.0, 4.0, 20.0])
    splits = draw(st.dictionaries(days, ratio, max_size=4))
    share = st.floats(0.0, 0.3)
    shares = draw(st.dictionaries(days, share, max_size=6)) if dividends else {}
    returns = np.array(draw(st.lists(st.floats(-0.2, 0.2), min_size=size - 1, max_size=size - 1)))
    close, paid = [100.0], dict.fromkeys(shares, 0.01)
    for day in range(1, size):
        paid[day] = shares.get(day, 0.0) * close[-1]
        close.append((close[-1] - paid[day]) * (1 + returns[day - 1]) / splits.get(day, 1.0))
    after = {day: share * close[-1] for day, share in shares.items() if day >= size}
    paid = {**dict.fromkeys(shares, 0.01), **paid, **after}
    actions = CorporateActions.of(
        {FIRST + timedelta(days=day): split for day, split in splits.items()},
        {FIRST + timedelta(days=day): cash for day, cash in paid.items() if day in shares},
    )
    return Case(daily(np.array(close)), actions, returns)


def daily(close: Floats, factor: Floats | None = None) -> RawBars:
    time = np.datetime64(FIRST, "us") + np.arange(len(close)) * np.timedelta64(1, "D")
    ratio = np.ones(len(close)) if factor is None else factor
    return RawBars(time, close, close * 1.01, close * 0.99, close, np.full(len(close), 1000.0), ratio)


def view(
    raw: RawBars, actions: CorporateActions | None, how: Adjustment, known_at: date | None = None
) -> Bars:
    return adjusted(raw, ACME, "1d", actions=actions, how=how, known_at=known_at)


def step(values: Floats) -> Floats:
    return values[1:] / values[:-1] - 1


@settings(max_examples=examples(150), deadline=None)
@given(case=cases())
def test_the_returns_of_an_adjusted_series_are_those_of_a_holder(case: Case):
    np.testing.assert_allclose(step(view(case.raw, case.actions, "all").close), case.returns, atol=1e-9)


@settings(max_examples=examples(100), deadline=None)
@given(case=cases(dividends=False))
def test_a_split_leaves_no_jump_in_price_and_none_in_money_traded(case: Case):
    bars = view(case.raw, case.actions, "split")
    np.testing.assert_allclose(step(bars.close), case.returns, atol=1e-9)
    np.testing.assert_allclose(bars.close * bars.volume, case.raw.close * case.raw.volume, rtol=1e-12)
    np.testing.assert_allclose(view(case.raw, case.actions, "all").close, bars.close, rtol=1e-15)


@settings(max_examples=examples(150), deadline=None)
@given(case=cases(), how=st.sampled_from(["all", "split", "none"]), day=st.integers(-1, 42))
def test_as_of_a_day_a_view_is_what_only_that_days_knowledge_gives(case: Case, how: Adjustment, day: int):
    known_at = FIRST + timedelta(days=day)
    seen = case.raw.time <= np.datetime64(known_at)
    now = view(case.raw, case.actions, how, known_at)
    then = view(case.raw[seen], case.actions.until(known_at), how)
    assert now.close[seen].tolist() == then.close.tolist()
    assert now.volume[seen].tolist() == then.volume.tolist()


@settings(max_examples=examples(150), deadline=None)
@given(
    case=cases(),
    how=st.sampled_from(["all", "split", "none"]),
    day=st.integers(0, 30),
    later=st.integers(1, 30),
    split=st.sampled_from([0.1, 3.0]),
)
def test_as_of_a_day_later_actions_change_nothing(
    case: Case, how: Adjustment, day: int, later: int, split: float
):
    known_at = FIRST + timedelta(days=day)
    other = case.actions.until(known_at).merged(
        CorporateActions.of({known_at + timedelta(days=later): split})
    )
    now, then = (view(case.raw, actions, how, known_at) for actions in (case.actions, other))
    assert now.close.tolist() == then.close.tolist()
    assert now.volume.tolist() == then.volume.tolist()


@settings(max_examples=examples(150), deadline=None)
@given(case=cases(), day=st.integers(0, 42), scale=st.floats(0.01, 0.99))
def test_as_of_a_day_a_vendors_ratio_shows_nothing_that_came_later(case: Case, day: int, scale: float):
    """The vendor scales every earlier ratio when something happens after the last bar, or after the day."""
    known_at = FIRST + timedelta(days=day)
    seen = case.raw.time <= np.datetime64(known_at)
    ratio = view(case.raw, case.actions, "all").close / case.raw.close
    now = view(daily(case.raw.close, ratio * scale), None, "all", known_at)
    then = view(case.raw[seen], case.actions.until(known_at), "all")
    # An action between the last bar and the day scales all bars alike; a ratio that goes with bars cannot show it.
    np.testing.assert_allclose(now.close[seen] / now.close[seen][-1], then.close / then.close[-1], rtol=1e-12)
