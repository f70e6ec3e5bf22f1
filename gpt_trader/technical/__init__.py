"""TA-Lib's indicators over bars, with the number of bars that each needs.

Every function takes `Bars` and returns float64 arrays of shape (len(bars),), NaN where the indicator is not yet
defined; the value at bar i depends on bars up to and including i only. Definitions are TA-Lib's (0.8): Wilder's for
RSI, ATR and ADX.

Two numbers say how much history one needs:

- `lookback_of(name, …)`: bars before the first that has a value at all (TA-Lib's own lookback).
- `warmup_of(name, …)`: bars that must have been seen, the deciding one included, until the value no longer depends on
  where history began, to 1e-9. Declare that as a strategy's `warmup`. **Recursive** indicators (EMA and what is made of
  it, RSI, ATR, ADX) carry their first value along for ever, by a factor a bar, and need far more bars than their
  lookback (TA-Lib calls that an unstable period, and flags some of them only). OBV and AD are totals since the first
  bar: their level never becomes stable, only its changes do.

Windowed indicators (SMA, Bollinger) are running sums in TA-Lib, whose last bits depend on where history began. Where a
comparison hangs on those, `gpt_trader.indicators` computes the same bits wherever history begins (ADR 0005).
TA-Lib's global switches (`set_unstable_period`, `set_compatibility`) are left as they are, and assumed untouched.
"""

from gpt_trader.technical.history import lookback_of, warmup_of
from gpt_trader.technical.indicators import (
    Bands,
    Macd,
    Stochastic,
    adx,
    atr,
    bollinger,
    cci,
    compute,
    ema,
    macd,
    mfi,
    minus_di,
    obv,
    plus_di,
    rsi,
    sma,
    stochastic,
    williams_r,
    wma,
)

__all__ = [
    "Bands",
    "Macd",
    "Stochastic",
    "adx",
    "atr",
    "bollinger",
    "cci",
    "compute",
    "ema",
    "lookback_of",
    "macd",
    "mfi",
    "minus_di",
    "obv",
    "plus_di",
    "rsi",
    "sma",
    "stochastic",
    "warmup_of",
    "williams_r",
    "wma",
]
