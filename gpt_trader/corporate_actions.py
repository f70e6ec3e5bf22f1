"""Splits and cash dividends of an instrument, and how they change what a price of the past is worth today.

The lake keeps prices as they were printed. What an adjusted price is gets computed on reading, so that a new split
changes no stored bar, and so that a view can be had as of any day: actions after it are not known then.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from gpt_trader.bars import Floats, Times
from gpt_trader.errors import BadBars

Days = NDArray[np.datetime64]

#: How prices are adjusted: for splits and dividends, for splits alone, or not at all.
Adjustment = Literal["all", "split", "none"]
ADJUSTMENTS: Final = ("all", "split", "none")


@dataclass(frozen=True, eq=False)
class CorporateActions:
    """Splits and dividends by ex-date, oldest first, one row a day.

    Shapes: every array is (n,). `ex_date` is datetime64[D], strictly increasing, the first session that trades
    without the claim; `split` is new shares for one old (2.0: two for one; 1.0: none); `dividend` is cash a share
    in the instrument's currency **as it was paid**, not adjusted for later splits (0.0: none); on the day of a split it
    is cash for an old share, as in CRSP.

    Raises BadBars for a ratio that is not above zero, a negative dividend, or days that do not increase.
    """

    ex_date: Days
    split: Floats
    dividend: Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "ex_date", np.ascontiguousarray(self.ex_date, dtype="datetime64[D]"))
        for name in ("split", "dividend"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.float64))
        if not self.ex_date.shape == self.split.shape == self.dividend.shape or self.ex_date.ndim != 1:
            raise ValueError("ex_date, split and dividend must have one shape (n,)")
        if np.isnat(self.ex_date).any() or (np.diff(self.ex_date) <= np.timedelta64(0, "D")).any():
            raise BadBars("corporate actions: ex-dates must be known, unique and increasing")
        wrong = ~(
            np.isfinite(self.split) & (self.split > 0) & np.isfinite(self.dividend) & (self.dividend >= 0)
        )
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise BadBars(
                f"corporate actions: on {self.ex_date[row]} split {self.split[row]} or dividend "
                f"{self.dividend[row]} is impossible: a split is above 0, a dividend at least 0"
            )

    @classmethod
    def none(cls) -> CorporateActions:
        """Return the actions of an instrument that had none."""
        return cls(np.empty(0, "datetime64[D]"), np.empty(0), np.empty(0))

    @classmethod
    def of(
        cls, splits: dict[date, float] | None = None, dividends: dict[date, float] | None = None
    ) -> CorporateActions:
        """Return actions from mappings of ex-date to ratio and to cash a share."""
        splits, dividends = splits or {}, dividends or {}
        days = sorted(splits.keys() | dividends.keys())
        return cls(
            np.array(days, "datetime64[D]"),
            np.array([splits.get(day, 1.0) for day in days], np.float64),
            np.array([dividends.get(day, 0.0) for day in days], np.float64),
        )

    def __len__(self) -> int:
        """Return the number of days with an action."""
        return len(self.ex_date)

    def until(self, known_at: date | None) -> CorporateActions:
        """Return the actions with an ex-date up to and including `known_at`; None: all."""
        if known_at is None:
            return self
        keep = self.ex_date <= np.datetime64(known_at, "D")
        return (
            self
            if keep.all()
            else CorporateActions(self.ex_date[keep], self.split[keep], self.dividend[keep])
        )

    def merged(self, newer: CorporateActions) -> CorporateActions:
        """Return both; where both have a day, the newer row wins."""
        kept = ~np.isin(self.ex_date, newer.ex_date)
        columns = [
            np.concatenate([getattr(self, name)[kept], getattr(newer, name)])
            for name in ("ex_date", "split", "dividend")
        ]
        order = np.argsort(columns[0], kind="stable")
        return CorporateActions(*(column[order] for column in columns))

    @property
    def logical_hash(self) -> str:
        """sha256 over the values as little-endian bytes."""
        digest = hashlib.sha256(b"gpt-trader actions 1\n%d\n" % len(self))
        digest.update(self.ex_date.astype("<M8[D]").tobytes())
        digest.update((self.split + 0.0).astype("<f8").tobytes())
        digest.update((self.dividend + 0.0).astype("<f8").tobytes())
        return digest.hexdigest()

    def split_factor(self, time: Times) -> Floats:
        """Return for each bar time (n,) what its price is multiplied by: 1 / product of the later splits."""
        return _after(time, self.ex_date, 1.0 / self.split)

    def dividend_factor(self, time: Times, close: Floats) -> Floats:
        """Return for each bar time (n,) the product of 1 − dividend / close over the later dividends.

        `close` (n,) are the raw closes at `time`; that of the last bar before the ex-date counts (the method of
        CRSP and Yahoo). A dividend before the first bar changes nothing. Raises BadBars for a dividend that is not
        below that close.
        """
        days = time.astype("datetime64[D]")
        before = np.searchsorted(days, self.ex_date, "left") - 1
        counts = (before >= 0) & (self.dividend > 0)
        factor = np.ones(len(self))
        factor[counts] = 1.0 - self.dividend[counts] / close[before[counts]]
        if (factor <= 0).any():
            row = int(np.flatnonzero(factor <= 0)[0])
            raise BadBars(
                f"the dividend of {self.dividend[row]:g} on {self.ex_date[row]} is not below the close before it, "
                f"{close[before[row]]:g}: one of them is in another currency or adjusted"
            )
        return _after(time, self.ex_date, factor)


def _after(time: Times, ex_date: Days, factor: Floats) -> Floats:
    """Return for each time the product of the factors whose ex-date is a later day."""
    later = np.append(np.cumprod(factor[::-1])[::-1], 1.0)
    result: Floats = later[np.searchsorted(ex_date, time.astype("datetime64[D]"), "right")]
    return result
