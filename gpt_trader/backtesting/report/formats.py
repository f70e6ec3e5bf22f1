"""How numbers and times are written in a report. What is undefined is an en dash."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gpt_trader.bars import Floats, Times

UNDEFINED = "–"
#: With more trades than this, marks in a picture of fixed size would only blacken the line.
MARKED_TRADES = 400
_HUGE = 1e15


def number(value: float | None, digits: int = 2, *, signed: bool = False) -> str:
    """Return a number with thousands separators and a true minus sign; `signed` adds a plus.

    From a quadrillion on it is written as 1.23e+15: there are runs (minute bars, no costs) that get there.
    """
    if value is None or not math.isfinite(value):
        return UNDEFINED
    text = f"{abs(value):,.{digits}f}" if abs(value) < _HUGE else f"{abs(value):.2e}"
    if not text.strip("0,."):
        return text
    return ("−" if value < 0 else "+" if signed else "") + text


def money(value: float | None) -> str:
    """Return an amount at a glance: whole from 100 on, with cents below."""
    return number(value, 0 if value is None or abs(value) >= 100 else 2)


def percent(value: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """Return a fraction as percent (0.123 → 12.3%); from 1,000% on without decimals."""
    if value is None or not math.isfinite(value):
        return UNDEFINED
    return number(value * 100, 0 if abs(value) >= 10 else digits, signed=signed) + "%"


def quantity(value: float) -> str:
    """Return a size in units of the instrument, to at most four decimals, without trailing zeros."""
    text = number(value, 4)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


#: Parts of a cost model (`gpt_trader.costs`) → how they are written: as a fraction, or as an amount.
_PARTS = {
    "rate": ("{}", True),
    "per_unit": ("{} a unit", False),
    "per_order": ("{} an order", False),
    "minimum": ("at least {}", False),
    "maximum": ("at most {}", True),
}


def cost(terms: float | Mapping[str, float | None] | None) -> str:
    """Return commission or slippage as a request has it: a fraction as percent, or the parts of a model."""
    if not isinstance(terms, Mapping):
        return percent(terms, 3)
    said = [
        words.format(percent(value, 3) if fraction else quantity(value))
        for name, (words, fraction) in _PARTS.items()
        if (value := terms.get(name))
    ]
    return ", ".join(said) or percent(0.0, 3)


def round_ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Return at most about seven round values from `low` to `high` (both > 0 where `log`), for an axis.

    Where there is none between them, `low`.
    """
    if log and high / low > 10:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        digits = (1, 2, 5) if high / low < 200 else (1, 3) if high / low < 2_000 else (1,)
        ticks = [digit * 10.0**decade for decade in decades[:: 1 + len(decades) // 8] for digit in digits]
    else:
        rough = (high - low or abs(high) or 1.0) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough * 0.999)
        ticks = [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [tick for tick in ticks if low <= tick <= high] or [low]


def price(value: float) -> str:
    """Return a price by itself, to four significant digits or to cents."""
    return number(value, price_digits(np.array([value])))


def price_digits(close: Floats) -> int:
    """Return how many decimals show a middling price of `close` to four significant digits (2 to 8)."""
    middling = float(np.median(close))
    return 2 if middling <= 0 else min(8, max(2, 3 - math.floor(math.log10(middling))))


def is_daily(time: Times) -> bool:
    """Return whether all times are midnights, so that dates say everything."""
    return bool(np.all(time == time.astype("datetime64[D]")))


def moment(time: np.datetime64 | None, *, daily: bool) -> str:
    """Return a date (2012-03-01) or, within the day, date and minute in UTC (2012-03-01 14:30)."""
    if time is None:
        return UNDEFINED
    return str(np.datetime_as_string(time, unit="D" if daily else "m")).replace("T", " ")


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield names and values of nested mappings as text, e.g. `libraries · numpy` and `2.4.1`."""
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from flattened(value, f"{name} · ")
        elif isinstance(value, float):
            yield name, f"{value:.4g}"
        else:
            yield name, UNDEFINED if value is None else str(value)
