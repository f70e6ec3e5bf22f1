"""How much history an indicator needs: until it has a value, and until it has forgotten where history began."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, cast

from gpt_trader.errors import Problem, Refused
from gpt_trader.technical.talib_functions import called, function_named, not_taken

#: What is left of a first value when `warmup_of` calls it forgotten: below 1e-9, as a ratio of two magnifies it.
FORGOTTEN: Final = 1e-12


def lookback_of(name: str, **params: float) -> int:
    """Return how many bars come before the first with a value; errors as `compute`."""
    function = function_named(name, params)
    found = cast("int", called(name, lambda: function.lookback))
    if found < 0:  # how TA-Lib says that a parameter is out of range
        given = ", ".join(f"{key}={value}" for key, value in params.items())
        raise not_taken(name, f"does not take {given}")
    return found


def warmup_of(name: str, **params: float) -> int:
    """Return the bars that must have been seen, the deciding one included, until where history began is forgotten.

    For a windowed indicator that is lookback + 1. A recursive one forgets by a factor r a bar (EMA: (p − 1) / (p + 1),
    Wilder: (p − 1) / p), so that ln 1e-12 / ln r bars more are needed, for each stage of smoothing.

    >>> warmup_of("EMA", timeperiod=20)
    297

    Raises Refused for a total since the first bar (OBV, AD), which no warm-up makes stable, and where it is not known
    whether and how fast TA-Lib's function forgets; errors as `compute`.
    """
    function = function_named(name, params)
    known: str = function.info["name"]
    if known in _TOTALS:
        message = "is a total since the first bar: no warm-up makes its level stable; use its changes"
        raise Refused.of(Problem("name", name, message))
    rates: list[float] = []
    if known in _STAGES:
        rates = _STAGES[known](function.parameters)
    elif not _is_windowed(known, function.parameters):
        message = "is recursive, and how fast it forgets is not known here: find it by strategy check"
        raise Refused.of(Problem("name", name, message, allowed=", ".join(sorted(_STAGES))))
    return lookback_of(name, **params) + 1 + sum(_settling(rate) for rate in rates)


def _is_windowed(name: str, params: Mapping[str, float]) -> bool:
    """Return whether a value depends on its window alone: the function's own, and that of the averages it is given."""
    averages = [kind for key, kind in params.items() if key.endswith("matype")]
    return (name.startswith("CDL") or name in _WINDOWED) and all(
        kind in _WINDOWED_AVERAGES for kind in averages
    )


def _settling(rate: float) -> int:
    """Return in how many bars a factor `rate` a bar forgets a first value."""
    return math.ceil(math.log(FORGOTTEN) / math.log(rate)) if rate > 0.0 else 0


def _exponential(*names: str) -> Callable[[Mapping[str, float]], list[float]]:
    return lambda given: [1.0 - 2.0 / (given[name] + 1.0) for name in names]


def _wilder(stages: int = 1) -> Callable[[Mapping[str, float]], list[float]]:
    return lambda given: [1.0 - 1.0 / given["timeperiod"]] * stages


#: Recursive functions → the factors by which each of their stages forgets.
_STAGES: Final[Mapping[str, Callable[[Mapping[str, float]], list[float]]]] = {
    "EMA": _exponential("timeperiod"),
    "DEMA": _exponential("timeperiod", "timeperiod"),
    "TEMA": _exponential("timeperiod", "timeperiod", "timeperiod"),
    "TRIX": _exponential("timeperiod", "timeperiod", "timeperiod"),
    "MACD": _exponential("slowperiod", "signalperiod"),
    "RMA": _wilder(),
    "RSI": _wilder(),
    "CMO": _wilder(),
    "ATR": _wilder(),
    "NATR": _wilder(),
    "PLUS_DI": _wilder(),
    "MINUS_DI": _wilder(),
    "DX": _wilder(),
    "ADX": _wilder(2),
}
_TOTALS: Final = frozenset(("AD", "CUMSUM", "NVI", "OBV", "PVI", "PVT", "VWAP", "WAD"))
#: Beside the candlestick patterns. TA-Lib flags some recursive functions only (not MACD, DEMA, TRIX, ADXR): these are
#: those that `tests/unit/test_technical.py` sees to be windowed.
_WINDOWED: Final = frozenset(
    (
        "AC",
        "ACCBANDS",
        "ADR",
        "AO",
        "AROON",
        "AROONOSC",
        "AVGDEV",
        "AVGPRICE",
        "BBANDS",
        "BETA",
        "BOP",
        "CCI",
        "CMF",
        "CMOU",
        "COPPOCK",
        "CORREL",
        "DONCHIAN",
        "DPO",
        "ER",
        "FOSC",
        "FRACTAL",
        "HMA",
        "IMI",
        "LINEARREG",
        "LINEARREG_ANGLE",
        "LINEARREG_INTERCEPT",
        "LINEARREG_SLOPE",
        "MA",
        "MACDEXT",
        "MARKETFI",
        "MAX",
        "MEDPRICE",
        "MFI",
        "MIDPOINT",
        "MIDPRICE",
        "MIN",
        "MINMAX",
        "MOM",
        "PERCENTILE",
        "PERCENTRANK",
        "QSTICK",
        "ROC",
        "ROCP",
        "ROCR",
        "ROCR100",
        "RVOL",
        "SMA",
        "STDDEV",
        "STOCH",
        "STOCHF",
        "SUM",
        "TRANGE",
        "TRIMA",
        "TSF",
        "TYPPRICE",
        "ULTOSC",
        "VAR",
        "VHF",
        "VORTEX",
        "VWMA",
        "WCLPRICE",
        "WILLR",
        "WMA",
    )
)
#: TA-Lib's numbers of SMA, WMA, TRIMA.
_WINDOWED_AVERAGES: Final = frozenset((0, 2, 5))
