"""The indicators themselves, by the names that the field has for them; anything else of TA-Lib's by `compute`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from gpt_trader.technical.talib_functions import called, function_named

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats

Price = Literal["open", "high", "low", "close", "volume"]


class Macd(NamedTuple):
    """Moving-average convergence and divergence: EMA(fast) − EMA(slow), its EMA, and the difference of both."""

    line: Floats
    signal: Floats
    histogram: Floats


class Bands(NamedTuple):
    """Bollinger's bands: the average and so many deviations (population, n) above and below it."""

    upper: Floats
    middle: Floats
    lower: Floats


class Stochastic(NamedTuple):
    """The slow stochastic oscillator, 0 to 100: %K smoothed, and its average %D."""

    k: Floats
    d: Floats


def sma(bars: Bars, period: int = 20, *, of: Price = "close") -> Floats:
    """Return the simple moving average of a column, shape (n,)."""
    return _one("SMA", bars, {"timeperiod": period}, of)


def ema(bars: Bars, period: int = 20, *, of: Price = "close") -> Floats:
    """Return the exponential moving average, α = 2 / (period + 1), begun with the SMA, shape (n,). Recursive."""
    return _one("EMA", bars, {"timeperiod": period}, of)


def wma(bars: Bars, period: int = 20, *, of: Price = "close") -> Floats:
    """Return the moving average with weights 1 … period, the newest heaviest, shape (n,)."""
    return _one("WMA", bars, {"timeperiod": period}, of)


def rsi(bars: Bars, period: int = 14, *, of: Price = "close") -> Floats:
    """Return the relative strength index, 0 to 100, with Wilder's smoothing (1978), shape (n,). Recursive."""
    return _one("RSI", bars, {"timeperiod": period}, of)


def macd(bars: Bars, fast: int = 12, slow: int = 26, signal: int = 9) -> Macd:
    """Return MACD, its signal line and histogram of the closes, each (n,). Recursive."""
    return Macd(*compute("MACD", bars, fastperiod=fast, slowperiod=slow, signalperiod=signal))


def bollinger(bars: Bars, period: int = 20, deviations: float = 2.0) -> Bands:
    """Return Bollinger's bands of the closes around their SMA, each (n,)."""
    given = {"timeperiod": period, "nbdevup": float(deviations), "nbdevdn": float(deviations)}
    return Bands(*compute("BBANDS", bars, **given))


def atr(bars: Bars, period: int = 14) -> Floats:
    """Return the average true range in price units, with Wilder's smoothing, shape (n,). Recursive."""
    return compute("ATR", bars, timeperiod=period)[0]


def adx(bars: Bars, period: int = 14) -> Floats:
    """Return the average directional movement index (Wilder), 0 to 100, shape (n,). Recursive, twice smoothed."""
    return compute("ADX", bars, timeperiod=period)[0]


def plus_di(bars: Bars, period: int = 14) -> Floats:
    """Return the positive directional indicator (Wilder), 0 to 100, shape (n,). Recursive."""
    return compute("PLUS_DI", bars, timeperiod=period)[0]


def minus_di(bars: Bars, period: int = 14) -> Floats:
    """Return the negative directional indicator (Wilder), 0 to 100, shape (n,). Recursive."""
    return compute("MINUS_DI", bars, timeperiod=period)[0]


def stochastic(bars: Bars, k: int = 14, smooth: int = 3, d: int = 3) -> Stochastic:
    """Return the slow stochastic: %K over `k` bars averaged over `smooth`, and its average over `d`, each (n,)."""
    return Stochastic(*compute("STOCH", bars, fastk_period=k, slowk_period=smooth, slowd_period=d))


def obv(bars: Bars) -> Floats:
    """Return on-balance volume, shape (n,): a total since the first bar. Use its changes, not its level."""
    return compute("OBV", bars)[0]


def cci(bars: Bars, period: int = 20) -> Floats:
    """Return the commodity channel index (Lambert), shape (n,)."""
    return compute("CCI", bars, timeperiod=period)[0]


def mfi(bars: Bars, period: int = 14) -> Floats:
    """Return the money flow index, 0 to 100, shape (n,)."""
    return compute("MFI", bars, timeperiod=period)[0]


def williams_r(bars: Bars, period: int = 14) -> Floats:
    """Return Williams' %R, −100 to 0, shape (n,)."""
    return compute("WILLR", bars, timeperiod=period)[0]


def compute(name: str, bars: Bars, **params: float) -> tuple[Floats, ...]:
    """Return any of TA-Lib's functions over the bars, with its own parameters: as many arrays (n,) as it has outputs.

    `compute("AROON", bars, timeperiod=25)`. What reads one price reads the close.

    Raises UnknownName for a function or a parameter that TA-Lib has not, Refused for a value it does not take.
    """
    import numpy as np

    function = function_named(name, params)
    columns = ("open", "high", "low", "close", "volume")
    # Contiguous float64 of its own: the views of Bars are read-only and may be slices.
    inputs = {column: np.ascontiguousarray(getattr(bars, column), np.float64) for column in columns}
    found = called(name, lambda: function(inputs))
    outputs = found if isinstance(found, list | tuple) else (found,)
    return tuple(np.asarray(output, np.float64) for output in outputs)


def _one(name: str, bars: Bars, params: Mapping[str, float], of: Price) -> Floats:
    import numpy as np
    import talib

    function_named(name, params)
    values = np.ascontiguousarray(getattr(bars, of), np.float64)
    found = called(name, lambda: getattr(talib, name)(values, **params))
    return cast("Floats", found)
