"""Alpaca's corporate actions as splits and cash dividends."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Final

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import BadBars

#: The kinds that are asked for. Spin-offs, mergers and rights are neither split nor cash: prices keep their step.
TYPES: Final = ("forward_split", "reverse_split", "stock_dividend", "cash_dividend")


def corporate_actions(pages: Iterable[Mapping[str, Any]], symbol: str, today: date) -> CorporateActions:
    """Return the actions with an ex-date up to `today`: what is only announced may yet change.

    New shares for one old are `new_rate / old_rate` of a split and 1 + `rate` of a stock dividend; several on a day
    multiply. Cash dividends of a day add up, as they were paid. Raises BadBars for an action that cannot be read or
    is paid in another currency than USD.
    """
    splits: dict[date, float] = defaultdict(lambda: 1.0)
    dividends: dict[date, float] = defaultdict(float)
    for kind, row in _once(pages):
        try:
            day = date.fromisoformat(row["ex_date"])
            if day > today:
                continue
            if kind == "cash_dividends":
                dividends[day] += _cash(row)
            elif kind == "stock_dividends":
                splits[day] *= 1.0 + _number(row["rate"])
            else:
                splits[day] *= _number(row["new_rate"]) / _number(row["old_rate"])
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise BadBars(f"alpaca's {kind} of {symbol}: a row cannot be read ({error}): {row}") from None
    return CorporateActions.of(dict(splits), dict(dividends))


def _once(pages: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, Any]]:
    """Return each action once, even if several pages hold it: by its id, or by what it says."""
    seen: dict[tuple[str, str], tuple[str, Any]] = {}
    for page in pages:
        for kind in (f"{each}s" for each in TYPES):
            for row in page.get(kind) or ():
                identity = row.get("id") if isinstance(row, dict) else None
                seen[kind, str(identity or row)] = kind, row
    return seen.values()


def _cash(row: Mapping[str, Any]) -> float:
    currency = row.get("currency") or "USD"
    if currency != "USD":
        raise ValueError(f"paid in {currency}, not in USD")
    return _number(row["rate"])


def _number(value: Any) -> float:  # noqa: ANN401 - JSON
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no rate")
    return number
