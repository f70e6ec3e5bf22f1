"""Each built-in strategy against the sentence that defines it, worked out by hand."""

import numpy as np
import pytest

from gpt_trader.errors import Refused, UnknownName
from gpt_trader.strategies import registry
from gpt_trader.strategies.breakout import Breakout
from gpt_trader.strategies.ma_crossover import MaCrossover
from gpt_trader.strategies.mean_reversion import MeanReversion
from gpt_trader.strategies.momentum import Momentum
from gpt_trader.strategies.volatility import Volatility
from tests.bars_factory import bars_of


def test_ma_crossover_is_long_while_the_fast_average_is_above():
    bars = bars_of([10, 11, 12, 13, 12, 11, 10, 9])
    # SMA2: -, 10.5, 11.5, 12.5, 12.5, 11.5, 10.5, 9.5   SMA3: -, -, 11, 12, 12.33, 12, 11, 10
    assert MaCrossover(fast=2, slow=3).targets(bars).tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    both = MaCrossover(fast=2, slow=3, direction="both")
    assert both.targets(bars).tolist() == [0, 0, 1, 1, 1, -1, -1, -1]


def test_ma_crossover_takes_no_side_in_a_flat_market():
    bars = bars_of([0.1] * 60)
    assert not MaCrossover(direction="both").targets(bars).any()


def test_momentum_holds_then_pauses_one_bar():
    closes = [100.0 * 1.03**i for i in range(9)]
    strategy = Momentum(lookback=1, threshold=0.02, hold=3)
    assert strategy.targets(bars_of(closes)).tolist() == [0, 1, 1, 1, 0, 1, 1, 1, 0]


def test_momentum_starts_flat_at_first():
    closes = [100.0 * 1.03**i for i in range(9)]
    strategy = Momentum(lookback=1, threshold=0.02, hold=3)
    assert strategy.targets(bars_of(closes), first=4).tolist() == [0, 0, 0, 0, 1, 1, 1, 0, 1]


def test_momentum_threshold_is_strict():
    assert not Momentum(lookback=1, threshold=1.0).targets(bars_of([100, 200, 200])).any()


def test_momentum_mirrors():
    closes = [100, 110, 121, 100, 90, 80, 79.9, 79.8]
    strategy = Momentum(lookback=1, threshold=0.05, hold=2, direction="both")
    assert strategy.targets(bars_of(closes)).tolist() == [0, 1, 1, 0, -1, -1, 0, 0]


def test_mean_reversion_waits_for_the_exit_beyond_the_mean():
    closes = [10, 10, 10, 10, 9, 9.4, 9.8, 10.2, 10.2]
    bars = bars_of(closes)
    windows = np.lib.stride_tricks.sliding_window_view(np.array(closes, float), 4)
    z = (np.array(closes[3:]) - windows.mean(axis=1)) / np.where(
        windows.std(axis=1, ddof=1) == 0, np.inf, windows.std(axis=1, ddof=1)
    )
    assert z[1] == pytest.approx(-1.5)
    assert z[3] < 1.0 < z[4]
    targets = MeanReversion(period=4, entry=1.5 - 1e-9, exit=1.0).targets(bars)
    assert targets.tolist() == [0, 0, 0, 0, 1, 1, 1, 0, 0]


def test_mean_reversion_counts_no_deviation_as_zero():
    assert not MeanReversion(period=5, direction="both").targets(bars_of([7.3] * 30)).any()


def test_volatility_needs_quiet_and_trend():
    quiet_up = [100 + i for i in range(10)]
    strategy = Volatility(vol_period=3, threshold=0.02, trend=4)
    targets = strategy.targets(bars_of([*quiet_up, 130, 131, 132, 133, 134, 135]))
    # The jump is inside the window of three returns for three bars; before and after it is quiet.
    assert targets.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1]


def test_breakout_confirms_and_stops_on_closes():
    bars = bars_of([10, 10, 10, 11, 12, 12, 11.9, 11.7, 11.7, 11.7], spread=0.0)
    # Closes 11 and 12 are above the highest high of the two bars before each; entered at 12, stop below 11.76.
    strategy = Breakout(lookback=2, confirm=2, stop=0.02)
    assert strategy.targets(bars).tolist() == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0]


def test_breakout_with_both_sides_may_turn_in_one_bar():
    bars = bars_of([10, 10, 10, 11, 10.9, 8, 7, 7, 7], spread=0.0)
    strategy = Breakout(lookback=2, confirm=1, stop=0.1, direction="both")
    assert strategy.targets(bars).tolist() == [0, 0, 0, 1, 1, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("ma_crossover", {"fast": 30, "slow": 10}, "fast 30 must be below slow 10"),
        ("ma_crossover", {"fsat": 3}, "did you mean 'fast'"),
        ("momentum", {"hold": 0}, "params.hold"),
        ("momentum", {"lookback": "ten"}, "params.lookback"),
        ("breakout", {"stop": 2}, "params.stop"),
        ("momentum", {"direction": "both"}, "params.direction"),
    ],
)
def test_bad_parameters_are_refused_by_name(name, params, said):
    with pytest.raises(Refused) as refusal:
        registry.build(registry.strategy_type(name), params)
    assert said in str(refusal.value)


def test_an_unknown_strategy_names_the_nearest():
    with pytest.raises(UnknownName) as refusal:
        registry.strategy_type("momentun")
    assert refusal.value.problems[0].nearest == "momentum"


def test_kebab_case_is_understood():
    assert registry.strategy_type("ma-crossover") is MaCrossover


def test_every_search_space_names_parameters_and_valid_values():
    for name in registry.strategy_names():
        strategy = registry.strategy_type(name)
        assert set(strategy.search_space) == set(registry.parameter_names(strategy)), name
        for parameter, values in strategy.search_space.items():
            if (
                parameter != "slow"
            ):  # the low end of `slow` is only valid with a faster average: skipped there
                for value in values:
                    registry.build(strategy, {parameter: value})
