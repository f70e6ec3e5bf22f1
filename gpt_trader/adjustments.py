"""The adjusted view of raw bars: what each price and volume is multiplied by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

from gpt_trader.bars import Bars, Floats
from gpt_trader.corporate_actions import ADJUSTMENTS, Adjustment, CorporateActions
from gpt_trader.errors import Problem, Refused, UnknownName
from gpt_trader.instruments import TIMEFRAMES

if TYPE_CHECKING:
    from gpt_trader.instruments import Instrument
    from gpt_trader.raw_bars import RawBars

_UNCHANGED: Final = np.ones(1)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, eq=False)
class Factors:
    """Multipliers of prices and of volume: shape (n,), or (1,) where all bars have the same."""

    price: Floats
    volume: Floats


def factors(
    raw: RawBars,
    actions: CorporateActions | None,
    how: Adjustment,
    known_at: date | None = None,
    *,
    timeframe: str = "1d",
) -> Factors:
    """Return the multipliers of a view of `raw` (n,), as it was on the day `known_at` (None: as of all that is known).

    - `none`: 1.
    - `split`: 1 / product of the later splits; volume inversely.
    - `all`: where the source gave a ratio of its own (`raw.factor`), that ratio, divided by its value on the last bar
      up to `known_at`; elsewhere splits × dividends of `actions`. Volume follows the splits that are known.

    A bar longer than a day (`timeframe`) is in the terms of its last day: an action within it changes the bars before.

    Raises Refused for `split` where only a ratio for splits and dividends together is known, UnknownName for another
    word, BadBars for actions that contradict the prices.
    """
    if how not in ADJUSTMENTS:
        raise UnknownName.among("adjust", how, ADJUSTMENTS)
    own_ratio = bool((raw.factor != 1.0).any())
    if how == "none" or not len(raw):
        return Factors(_UNCHANGED, _UNCHANGED)
    if actions is None and how == "split" and own_ratio:
        raise Refused.of(
            Problem(
                "adjust",
                how,
                "the source gives one ratio for splits and dividends together, and no list of splits",
                allowed="all, none",
            )
        )
    known = (actions or CorporateActions.none()).until(known_at)
    time = raw.time + np.timedelta64(max(TIMEFRAMES[timeframe] - _DAY, timedelta()))
    split = known.split_factor(time) if len(known) else _UNCHANGED
    volume = 1.0 / split
    if how == "split":
        return Factors(split, volume)
    if own_ratio:
        return Factors(raw.factor / _ratio_at(raw, known_at), volume)
    if not len(known):
        return Factors(_UNCHANGED, _UNCHANGED)
    return Factors(split * known.dividend_factor(time, raw.close), volume)


def adjusted(
    raw: RawBars,
    instrument: Instrument,
    timeframe: str,
    *,
    actions: CorporateActions | None = None,
    how: Adjustment = "all",
    known_at: date | None = None,
    logical_hash: str = "",
) -> Bars:
    """Return raw bars as Bars in the view that is asked for; errors as `factors`."""
    by = factors(raw, actions, how, known_at, timeframe=timeframe)
    return Bars(
        instrument,
        timeframe,
        time=raw.time,
        open=raw.open * by.price,
        high=raw.high * by.price,
        low=raw.low * by.price,
        close=raw.close * by.price,
        volume=raw.volume * by.volume,
        logical_hash=logical_hash,
    )


def _ratio_at(raw: RawBars, known_at: date | None) -> float:
    """Return the vendor's ratio of the last bar up to `known_at`; 1 where nothing is to be taken back."""
    if known_at is None:
        return 1.0
    last = int(np.searchsorted(raw.time.astype("datetime64[D]"), np.datetime64(known_at, "D"), "right")) - 1
    return float(raw.factor[last]) if last >= 0 else 1.0
