"""What a test of one's own strategy needs: bars, the strategy of a file, one assertion. No framework is assumed.

from gpt_trader.testing import assert_sound, load_strategy, sample_bars

def test_it():
    assert_sound(load_strategy("mine.py", "Mine")(), sample_bars("AAPL"))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpt_trader.adapters.sample import SampleSource
from gpt_trader.adjustments import adjusted
from gpt_trader.backtesting.strategy_check import check_strategy
from gpt_trader.bars import Bars
from gpt_trader.instruments import Instrument
from gpt_trader.strategies import user
from gpt_trader.strategies.base import Strategy

__all__ = ["assert_sound", "bars_of", "load_strategy", "sample_bars"]


def load_strategy(path: str | Path, class_name: str) -> type[Strategy]:
    """Return the strategy class of a file as the engine loads it; errors as `gpt_trader.strategies.user.load_file`."""
    return user.load_file(Path(path).absolute(), class_name)


def sample_bars(symbol: str = "AAPL") -> Bars:
    """Return real daily bars of AAPL, FB, GOOG, IBM or MSFT, 2000 to 2013, adjusted; no network is needed.

    Raises UnknownName for another symbol.
    """
    source = SampleSource()
    (raw,) = source.pages(symbol, "1d")
    instrument = next(found for found in source.instruments() if found.symbol == symbol.upper())
    return adjusted(raw, instrument, "1d", actions=source.actions(symbol))


def bars_of(closes: Sequence[float]) -> Bars:
    """Return made-up daily bars with these closes: each opens at the close before, and trades 1000.

    High and low are those of open and close; shape (len(closes),), from 2000-01-03 on.
    """
    close = np.asarray(closes, dtype=np.float64)
    open_ = np.concatenate([close[:1], close[:-1]])
    day = np.datetime64("2000-01-03", "us") + np.arange(len(close)) * np.timedelta64(1, "D")
    return Bars(
        Instrument(symbol="MADE-UP"),
        "1d",
        day,
        open_,
        np.maximum(open_, close),
        np.minimum(open_, close),
        close,
        np.full(len(close), 1000.0),
    )


def assert_sound(strategy: Strategy, bars: Bars, first: int = 0) -> None:
    """Raise AssertionError naming all that `gpt-trader strategy check` finds but notes; zero trades are a finding.

    Args:
        strategy: An instance, with the parameters to try.
        bars: Bars to try it on, oldest first; a few hundred at least, for the warm-up to be judged.
        first: Index of the first bar that is traded; those before it are history.
    """
    found = check_strategy(strategy, bars, first)
    if any(finding.severity != "note" for finding in found.findings):
        raise AssertionError(str(found))
