"""Bars whose past is what it was and whose future is another: what a causal strategy cannot tell apart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from gpt_trader.backtesting.findings import Column
    from gpt_trader.bars import Bars, Floats

COLUMNS: Final[tuple[Column, ...]] = ("open", "high", "low", "close", "volume")

#: Deviation of the other walk's steps: large enough to turn rises into falls, small enough to stay a market.
_STEP: Final = 0.02


def other_future(bars: Bars, cut: int, level: float) -> Bars:
    """Return bars that are the same before index `cut` and go another way, at `level` times the price, from it on.

    Prices of a bar move together, so each is still a valid bar; volume goes its own way. The same arguments give the
    same bars.
    """
    random = np.random.default_rng((cut, round(level * 1000)))
    later = len(bars) - cut
    walk = level * np.exp(np.cumsum(random.normal(0.0, _STEP, later)))
    open_, high, low, close = (_followed(v, cut, walk) for v in (bars.open, bars.high, bars.low, bars.close))
    traded = 0.1 + 3.0 * random.random(later)
    volume = _followed(bars.volume, cut, traded)
    return replace(bars, open=open_, high=high, low=low, close=close, volume=volume, logical_hash="")


def other_column(bars: Bars, cut: int, column: Column) -> Bars:
    """Return bars of which one column alone is another from index `cut` on, each still a valid bar.

    Open and close move within their bar's range, high and low away from it by up to 10 %.
    """
    random = np.random.default_rng((cut, COLUMNS.index(column)))
    draws = random.random(len(bars) - cut)
    low, high = bars.low[cut:], bars.high[cut:]
    if column in ("open", "close"):
        later = low + (high - low) * draws
    elif column == "high":
        later = high * (1.0 + 0.1 * draws)
    elif column == "low":
        later = low * (1.0 - 0.1 * draws)
    else:
        later = bars.volume[cut:] * (0.1 + 3.0 * draws) + draws
    whole = np.concatenate([getattr(bars, column)[:cut], later])
    return replace(bars, **{column: whole}, logical_hash="")  # type: ignore[arg-type] # the column is an array


def scaled_column(bars: Bars, cut: int, column: Column, level: float) -> Bars:
    """Return bars of which one column is `level` times itself from index `cut` on: a shock, and no valid bars.

    For what a column within its bar's range does not move, as the mean of a whole series.
    """
    factors = np.full(len(bars) - cut, level)
    return replace(bars, **{column: _followed(getattr(bars, column), cut, factors)}, logical_hash="")  # type: ignore[arg-type] # as above


def _followed(values: Floats, cut: int, factors: Floats) -> Floats:
    return np.concatenate([values[:cut], values[cut:] * factors])
