"""The law of every registered strategy: no target depends on a later bar."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_trader.indicators import change, highest_before, lowest_before, rolling_std, sma, z_score
from gpt_trader.strategies import registry
from tests.bars_factory import random_bars

#: Short windows, so that short random histories reach every branch.
SHORT = {
    "ma_crossover": {"fast": 2, "slow": 5},
    "momentum": {"lookback": 7, "threshold": 0.01, "hold": 3},
    "mean_reversion": {"period": 5, "entry": 1.2, "exit": 0.3},
    "volatility": {"vol_period": 4, "threshold": 0.03, "trend": 6},
    "breakout": {"lookback": 4, "confirm": 2, "stop": 0.01},
}


@pytest.mark.parametrize("name", registry.strategy_names())
@settings(deadline=None)  # the first call compiles
@given(
    bars=random_bars(),
    cut=st.floats(0, 1),
    begin=st.floats(0, 1),
    side=st.sampled_from(["long", "short", "both"]),
)
def test_no_target_depends_on_a_later_bar(name, bars, cut, begin, side):
    strategy = registry.build(registry.strategy_type(name), SHORT.get(name, {}), side)
    t = int(cut * len(bars))
    first = int(begin * t)
    whole = strategy.targets(bars, first)
    assert whole.shape == (len(bars),)
    assert np.isfinite(whole).all()
    assert (np.abs(whole) <= 1).all()
    assert not whole[:first].any()
    assert whole[:t].tobytes() == strategy.targets(bars[:t], first).tobytes()
    if side == "long":
        assert (whole >= 0).all()
    if side == "short":
        assert (whole <= 0).all()


@pytest.mark.parametrize("name", registry.strategy_names())
@settings(deadline=None)  # the first call compiles
@given(bars=random_bars(min_size=60), begin=st.integers(20, 50), drop=st.integers(0, 20))
def test_a_shorter_warm_up_changes_no_target(name, bars, begin, drop):
    """Enough warm-up is enough: history beyond it changes not one bit (paper sees less of it than a backtest)."""
    strategy = registry.build(registry.strategy_type(name), SHORT.get(name, {}))
    drop = min(drop, begin - strategy.warmup)
    whole = strategy.targets(bars, begin)[begin:]
    assert whole.tobytes() == strategy.targets(bars[drop:], begin - drop)[begin - drop :].tobytes()


@pytest.mark.parametrize("name", registry.strategy_names())
@settings(deadline=None)  # the first call compiles
@given(bars=random_bars(), side=st.sampled_from(["long", "short", "both"]))
def test_no_target_falls_before_the_end_of_the_warm_up(name, bars, side):
    """As whoever trades a strategy has it for any: compiled targets are not looked through again."""
    strategy = registry.build(registry.strategy_type(name), SHORT.get(name, {}), side)
    assert not strategy.targets(bars)[: strategy.warmup - 1].any()


@pytest.mark.parametrize("indicator", [sma, z_score, rolling_std, change, highest_before, lowest_before])
@settings(deadline=None)
@given(bars=random_bars(min_size=1, max_size=30), period=st.integers(2, 25))
def test_an_indicator_of_few_values_is_the_beginning_of_that_of_many(indicator, bars, period):
    whole = indicator(bars.close, period)
    for known in range(len(bars) + 1):
        assert indicator(bars.close[:known], period).tobytes() == whole[:known].tobytes()
