"""Compiled sums and targets are to the bit what the plain definitions give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_trader.bars import Bars, Floats
from gpt_trader.indicators import (
    change,
    exceeds,
    highest_before,
    lowest_before,
    remembering,
    rolling_std,
    sma,
    z_score,
)
from gpt_trader.rolling import window_sums
from gpt_trader.strategies.base import Strategy
from gpt_trader.strategies.breakout import Breakout
from gpt_trader.strategies.compiled import crossover
from gpt_trader.strategies.mean_reversion import MeanReversion
from gpt_trader.strategies.momentum import Momentum
from gpt_trader.strategies.volatility import Volatility
from tests.bars_factory import random_bars
from tests.examples import examples

SIDES = {"long": (1, 0), "short": (0, -1), "both": (1, -1)}


@pytest.mark.parametrize("n", [1, 5, 255, 256, 257, 1_000])
@pytest.mark.parametrize("period", [1, 2, 5, 250])
def test_windows_are_summed_oldest_to_newest(n: int, period: int) -> None:
    values = np.random.default_rng(n).normal(100, 30, n)
    if period > n:
        assert np.isnan(sma(values, period)).all()
        return
    found = np.empty(n - period + 1)
    window_sums(values, period, found)
    expected = values[: n - period + 1].copy()
    for offset in range(1, period):
        expected += values[offset : offset + len(expected)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("direction", SIDES)
@pytest.mark.parametrize("first", [0, 3, 200])
def test_a_crossover_is_what_exceeds_says(direction: str, first: int) -> None:
    random = np.random.default_rng(2)
    fast, slow = random.normal(0, 1, 200), random.normal(0, 1, 200)
    fast[:9], slow[:17] = np.nan, np.nan
    slow[40:60] = fast[40:60]
    slow[60:80] = fast[60:80] * (1 + 1e-13)  # rounding, no crossover
    found = np.full(200 - first, 9, np.int8)
    up, down = SIDES[direction]
    crossover(fast, slow, (up, down), first, found)
    expected = np.where(exceeds(fast, slow), up, np.where(exceeds(slow, fast), down, 0.0))[first:]
    np.testing.assert_array_equal(found, expected)


def momentum(rule: Momentum, bars: Bars, first: int) -> Floats:
    moved, side, free_from = change(bars.close, rule.lookback), np.zeros(len(bars)), first
    for i in range(first, len(bars)):
        wanted = 1.0 if moved[i] > rule.threshold else -1.0 if moved[i] < -rule.threshold else 0.0
        if i >= free_from and wanted in taken(rule):
            side[i : i + rule.hold] = wanted
            free_from = i + rule.hold + 1
    return side


def mean_reversion(rule: MeanReversion, bars: Bars, first: int) -> Floats:
    scores, side, held = z_score(bars.close, rule.period), np.zeros(len(bars)), 0.0
    for i in range(first, len(bars)):
        if held and held * scores[i] >= rule.exit:
            held = 0.0
        wanted = 1.0 if scores[i] <= -rule.entry else -1.0 if scores[i] >= rule.entry else 0.0
        if not held and wanted in taken(rule):
            held = wanted
        side[i] = held
    return side


def breakout(rule: Breakout, bars: Bars, first: int) -> Floats:
    up = exceeds(bars.close, highest_before(bars.high, rule.lookback))
    down = exceeds(lowest_before(bars.low, rule.lookback), bars.close)
    side, held, entered_at = np.zeros(len(bars)), 0.0, 0.0
    for i in range(first, len(bars)):
        price, last = bars.close[i], slice(max(i - rule.confirm + 1, 0), i + 1)
        enough = i + 1 >= rule.confirm
        wanted = 1.0 if enough and up[last].all() else -1.0 if enough and down[last].all() else 0.0
        stopped = held if held and held * (price - entered_at) < -rule.stop * entered_at else 0.0
        if stopped:
            held = 0.0
        if not held and wanted in taken(rule) and wanted != stopped:
            held, entered_at = wanted, price
        side[i] = held
    return side


def volatility(rule: Volatility, bars: Bars, first: int) -> Floats:
    trend, quiet = (
        sma(bars.close, rule.trend),
        rolling_std(change(bars.close), rule.vol_period) < rule.threshold,
    )
    side = np.zeros(len(bars))
    side[quiet & exceeds(bars.close, trend)] = 1.0
    side[quiet & exceeds(trend, bars.close)] = -1.0
    side[:first] = 0.0
    return np.where(np.isin(side, taken(rule)), side, 0.0)


def taken(rule: Strategy) -> tuple[float, ...]:
    return {"long": (1.0,), "short": (-1.0,), "both": (1.0, -1.0)}[rule.direction]


DEFINED = (
    (Momentum, momentum, {"lookback": (1, 9), "hold": (1, 6), "threshold": (0.0, 0.03)}),
    (MeanReversion, mean_reversion, {"period": (2, 12), "entry": (0.3, 2.0), "exit": (-0.2, 1.0)}),
    (Breakout, breakout, {"lookback": (1, 9), "confirm": (1, 4), "stop": (0.002, 0.05)}),
    (Volatility, volatility, {"vol_period": (2, 9), "trend": (1, 9), "threshold": (0.005, 0.05)}),
)


@pytest.mark.parametrize(("kind", "plain", "ranges"), DEFINED)
@settings(max_examples=examples(120), deadline=None)  # the first call compiles
@given(bars=random_bars(min_size=2, max_size=80), choices=st.data())
def test_compiled_rules_are_the_plain_ones_to_the_bit(kind, plain, ranges, bars, choices):
    drawn = {
        name: choices.draw(st.floats(*ends) if isinstance(ends[0], float) else st.integers(*ends))
        for name, ends in ranges.items()
    }
    rule = kind(direction=choices.draw(st.sampled_from(sorted(SIDES))), **drawn)
    first = choices.draw(st.integers(0, len(bars) - 1))
    expected = plain(rule, bars, first)
    assert rule.targets(bars, first).tobytes() == (expected + 0.0).tobytes(), "no negative zero either"
    with remembering():
        for _ in range(2):
            assert rule.targets(bars, first).tobytes() == (expected + 0.0).tobytes()
