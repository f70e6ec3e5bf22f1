"""Bars for tests: valid by construction, from closes alone or from Hypothesis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from gpt_trader.bars import Bars
from gpt_trader.instruments import Instrument

STOCK = Instrument(symbol="TEST", venue="XNAS", calendar="XNYS")


def bars_of(closes: Sequence[float], *, spread: float = 0.01, instrument: Instrument = STOCK) -> Bars:
    """Return daily bars that close at `closes`, open at the close before, and reach `spread` beyond both."""
    close = np.asarray(closes, dtype=float)
    open_ = np.concatenate([close[:1], close[:-1]])
    return Bars(
        instrument=instrument,
        timeframe="1d",
        time=np.datetime64("2010-01-04", "us") + np.arange(len(close)) * np.timedelta64(1, "D"),
        open=open_,
        high=np.maximum(open_, close) * (1 + spread),
        low=np.minimum(open_, close) * (1 - spread),
        close=close,
        volume=np.full(len(close), 1000.0),
        logical_hash="test",
    )


@st.composite
def random_bars(draw: st.DrawFn, min_size: int = 2, max_size: int = 120) -> Bars:
    """Draw bars of a seeded walk, some of it flat, some of it wild."""
    size = draw(st.integers(min_size, max_size))
    seed = draw(st.integers(0, 2**32 - 1))
    level = draw(st.sampled_from([0.01, 0.03, 0.1]))
    rng = np.random.default_rng(seed)
    moves = rng.normal(0, level, size) * (rng.random(size) > draw(st.sampled_from([0.0, 0.3, 0.9])))
    return bars_of(100 * np.exp(np.cumsum(moves)), spread=level / 2)
