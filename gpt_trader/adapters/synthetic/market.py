"""A made-up market's days: a geometric walk whose drift and noise switch between three regimes.

Everything is drawn by counter (Philox, keyed by seed and purpose) for every date since 2000, so that a day is the same
whatever range is asked for. Prices are whole cents, and a day's open, high, low, close and volume are drawn first:
minutes are made to fit them (`minutes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gpt_trader.bars import Floats
from gpt_trader.calendars import calendar, monday_of
from gpt_trader.corporate_actions import CorporateActions, Days

Ints = NDArray[np.int64]

#: What a day has in whole numbers.
COLUMNS: Final = ("open", "high", "low", "close", "volume")
EPOCH: Final = np.datetime64("2000-01-01", "D")
#: Regimes: calm and rising, choppy, crash. Drift and noise of a day's log return, and volume against the usual.
_DRIFT: Final = np.array([0.0007, 0.0, -0.006])
_NOISE: Final = np.array([0.007, 0.014, 0.03])
_TRADED: Final = np.array([1.0, 1.3, 2.5])
#: Probability to be in each regime on the next date.
_NEXT: Final = ((0.985, 0.012, 0.003), (0.03, 0.965, 0.005), (0.02, 0.06, 0.92))
#: Share of a day's noise that falls between sessions, where there is a between.
_OVERNIGHT: Final = 0.4
#: A walk that reaches 2 or 20,000 turns back: prices stay such that a cent is neither much nor nothing.
_FIRST, _LOWEST, _HIGHEST = np.log(100.0), np.log(2.0), np.log(20_000.0)
_USUAL_VOLUME: Final = 2_000_000
#: More than a day has minutes: each trades a share at least.
_LEAST_VOLUME: Final = 10_000
#: A split comes every so many dates, on the first session of its week; prices above or below these decide its kind.
_DATES_A_SPLIT: Final = 400
_HIGH, _LOW = 30.0, 8.0


class Purpose(IntEnum):
    """What is drawn: each has a stream of its own, so that none moves another."""

    REGIME = 1
    RETURN = 2
    RANGE = 3
    VOLUME = 4
    SPLIT = 5
    MINUTES = 6
    GAPS = 7


@dataclass(frozen=True)
class Terms:
    """What a symbol says: the seed, and whether the market never closes, splits its shares, or loses bars."""

    seed: int
    always_open: bool = False
    splits: bool = False
    gaps: bool = False

    @property
    def calendar(self) -> str:
        """The calendar's name."""
        return "24/7" if self.always_open else "XNYS"


@dataclass(frozen=True, eq=False)
class MarketDays:
    """Sessions of a market, oldest first; arrays are (n,). Prices are in cents, as printed."""

    day: Days
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    noise: Floats
    actions: CorporateActions

    def __len__(self) -> int:
        """Return the number of days."""
        return len(self.day)

    def __getitem__(self, part: slice) -> MarketDays:
        """Return the chosen days, with all actions."""
        columns = {name: getattr(self, name)[part] for name in ("day", "noise", *COLUMNS)}
        return MarketDays(**columns, actions=self.actions)


def draws(terms: Terms, purpose: Purpose, number: int = 0) -> np.random.Generator:
    """Return the random numbers of one purpose; those of another `number` (below 2^32) are independent."""
    return np.random.Generator(np.random.Philox(key=[terms.seed, (int(purpose) << 32) + number]))


@lru_cache(maxsize=32)
def market_days(terms: Terms, last: date) -> MarketDays:
    """Return the days from 2000 to `last`, as far as the calendar is known; a later `last` only adds to them."""
    sessions = calendar(terms.calendar).sessions(EPOCH.item(), last).day
    index = (sessions - EPOCH).astype(np.int64)
    dates = int(index[-1]) + 1
    regime = _regimes(terms, dates)[index]
    share = 0.0 if terms.always_open else _OVERNIGHT
    overnight, within = draws(terms, Purpose.RETURN).standard_normal((dates, 2))[index].T
    noise = _NOISE[regime] * np.sqrt(1 - share**2)
    move = _DRIFT[regime] + noise * within
    walk = _FIRST + np.cumsum(share * _NOISE[regime] * overnight + move)
    first, final = _turned(walk - move), _turned(walk)
    high, low = _extremes(terms, first, final, noise, index)
    volume = _TRADED[regime] * np.exp(0.35 * draws(terms, Purpose.VOLUME).standard_normal(dates)[index])
    actions = _splits(terms, sessions, index, final) if terms.splits else CorporateActions.none()
    shares = np.append(1.0, np.cumprod(actions.split))[np.searchsorted(actions.ex_date, sessions, "right")]
    opens, highs, lows, closes = (_cents(np.exp(prices) / shares) for prices in (first, high, low, final))
    traded = np.maximum(np.rint(_USUAL_VOLUME * volume * shares), _LEAST_VOLUME).astype(np.int64)
    return MarketDays(sessions, opens, highs, lows, closes, traded, noise, actions)


def _regimes(terms: Terms, dates: int) -> Ints:
    """Return the regime of each date: a Markov chain that begins calm."""
    chances = [np.cumsum(row)[:2].tolist() for row in _NEXT]
    regime, found = 0, []
    for drawn in draws(terms, Purpose.REGIME).random(dates).tolist():
        calm, choppy = chances[regime]
        regime = 0 if drawn < calm else 1 if drawn < choppy else 2
        found.append(regime)
    return np.array(found, np.int64)


def _turned(walk: Floats) -> Floats:
    """Return the walk with what lies outside of the bounds mirrored back."""
    width = _HIGHEST - _LOWEST
    folded: Floats = _HIGHEST - np.abs((walk - _LOWEST) % (2 * width) - width)
    return folded


def _extremes(
    terms: Terms, first: Floats, final: Floats, noise: Floats, index: Ints
) -> tuple[Floats, Floats]:
    """Return highs and lows, each distributed as those of a Brownian bridge from open to close."""
    dates = int(index[-1]) + 1
    above, below = -np.log1p(-draws(terms, Purpose.RANGE).random((dates, 2))[index].T)
    move = final - first
    high = first + (move + np.sqrt(move**2 + 2 * noise**2 * above)) / 2
    low = first + (move - np.sqrt(move**2 + 2 * noise**2 * below)) / 2
    return high, low


def _splits(terms: Terms, sessions: Days, index: Ints, final: Floats) -> CorporateActions:
    """Return the splits, which keep printed prices near where companies like theirs."""
    when, which = draws(terms, Purpose.SPLIT).random((int(index[-1]) + 1, 2)).T
    drawn = sessions[when[index] < 1 / _DATES_A_SPLIT]
    at = np.unique(np.searchsorted(sessions, monday_of(drawn), "left"))
    splits: dict[date, float] = {}
    shares = 1.0
    for place in at[at > 0].tolist():
        before = float(np.exp(final[place - 1])) / shares
        if before > _HIGH:
            ratio = (2.0, 3.0, 4.0)[int(3 * which[index[place]])]
        elif before < _LOW:
            ratio = 0.1
        else:
            ratio = 1.5
        splits[sessions[place].item()] = ratio
        shares *= ratio
    return CorporateActions.of(splits)


def _cents(prices: Floats) -> Ints:
    return np.maximum(np.rint(prices * 100), 1).astype(np.int64)
