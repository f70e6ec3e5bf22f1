"""Alpaca's newest quote and trade of a symbol as one quote of ours."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np

from gpt_trader.adapters.alpaca.bars import moment
from gpt_trader.adapters.base import Quote
from gpt_trader.errors import BadBars, NotEnoughBars


def newest(symbol: str, quote: Any, trade: Any) -> Quote:  # noqa: ANN401 - JSON
    """Return bid, ask and last price; `time` is the newer of the two times.

    Raises NotEnoughBars where there is neither, BadBars for what cannot be read.
    """
    quote, trade = quote or {}, trade or {}
    try:
        times = [moment(each.get("t")) for each in (quote, trade)]
        known = [each for each in times if not np.isnat(each)]
        if not known:
            raise NotEnoughBars(f"source alpaca has no quote or trade of {symbol} yet")
        at: datetime = max(known).astype(object)
        return Quote(
            symbol=symbol,
            time=at.replace(tzinfo=UTC),
            source="alpaca",
            bid=_positive(quote.get("bp")),
            ask=_positive(quote.get("ap")),
            bid_size=_positive(quote.get("bs")),
            ask_size=_positive(quote.get("as")),
            last=_positive(trade.get("p")),
        )
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise BadBars(f"alpaca's quote of {symbol} cannot be read: {str(error)[:200]}") from None


def _positive(value: Any) -> float | None:  # noqa: ANN401 - JSON
    """Return a number above zero; Alpaca writes 0 for a side that nobody offers."""
    number = float("nan" if value is None else value)
    return number if math.isfinite(number) and number > 0 else None
