"""A strategy that looks into the future is refused, with the bar that gives it away."""

import numpy as np
import pytest

from gpt_trader.backtesting.causality import require_causal
from gpt_trader.errors import Refused
from gpt_trader.strategies.base import Strategy
from tests.bars_factory import bars_of

WALK = 100 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.02, 400)))


class Tomorrow(Strategy):
    name = "tomorrow"

    def targets(self, bars, first=0):
        rises = np.zeros(len(bars))
        rises[:-1] = bars.close[1:] > bars.close[:-1]
        rises[:first] = 0
        return rises


class Hindsight(Strategy):
    """Compares with the mean of the whole series: no shift, and yet the future."""

    name = "hindsight"

    def targets(self, bars, first=0):
        below = (bars.close < bars.close.mean()).astype(float)
        below[:first] = 0
        return below


class Moody(Strategy):
    """Another answer to each call."""

    name = "moody"

    def targets(self, bars, first=0):
        return np.random.default_rng().integers(0, 2, len(bars)).astype(float)


class Honest(Strategy):
    name = "honest"

    def targets(self, bars, first=0):
        rises = np.zeros(len(bars))
        rises[1:] = bars.close[1:] > bars.close[:-1]
        rises[:first] = 0
        return rises


@pytest.mark.parametrize("strategy", [Tomorrow(), Hindsight(), Moody()])
def test_the_future_is_refused(strategy):
    with pytest.raises(Refused, match="looks into the future: the target at 20"):
        require_causal(strategy, bars_of(WALK), 50)


@pytest.mark.parametrize("bars", [1, 2, 3, 400])
def test_the_past_is_not(bars):
    require_causal(Honest(), bars_of(WALK[:bars]), 0)
