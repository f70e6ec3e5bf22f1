"""The built-in rules as compiled functions (`gpt_trader.strategies.base.CompiledTargets`): one loop over bars each.

Each writes the first of `sides` where its rule holds, the second where the mirrored rule does, else 0; a side of 0 is
not taken. Comparisons with what is undefined (NaN) are false, so that nothing is wanted there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gpt_trader.compiling import compiled
from gpt_trader.indicators import (
    ROUNDING,
    change,
    highest_before,
    lowest_before,
    rolling_std,
    shared,
    sma,
    z_score,
)
from gpt_trader.strategies.base import CompiledTargets, Direction

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats, Sides


#: The targets of the rule and of its mirror, by direction; 0: that side is not taken.
_SIDES: Final[dict[Direction, tuple[int, int]]] = {"long": (1, 0), "short": (0, -1), "both": (1, -1)}


def averages_crossed(values: Floats, fast: int, slow: int, direction: Direction) -> CompiledTargets:
    """Return the crossover of two simple moving averages, over `fast` and `slow` values."""
    inputs = (shared(sma, values, fast), shared(sma, values, slow), _SIDES[direction])
    return CompiledTargets(crossover, inputs, True)


@compiled(nogil=True)
def crossover(fast: Floats, slow: Floats, sides: tuple[int, int], first: int, found: Sides) -> None:
    """Compare as `gpt_trader.indicators.exceeds` does: above by more than rounding, or below by more."""
    (up, down), left, right = sides, fast[first:], slow[first:]
    if down == 0:  # long alone: half of the work
        for i in range(len(left)):  # without a branch, and from 0 on: several bars are done at once
            found[i] = up * (left[i] - right[i] > ROUNDING * abs(right[i]))
        return
    for i in range(len(left)):
        above = left[i] - right[i] > ROUNDING * abs(right[i])
        below = right[i] - left[i] > ROUNDING * abs(left[i])
        found[i] = up * above + down * below


def moved(values: Floats, lookback: int, rule: tuple[float, int], direction: Direction) -> CompiledTargets:
    """Return momentum: the change over `lookback` values beyond a threshold, held for so many bars."""
    inputs = (shared(change, values, lookback), rule, _SIDES[direction])
    return CompiledTargets(momentum, inputs, whole=True)


@compiled(nogil=True)
def momentum(
    moves: Floats, rule: tuple[float, int], sides: tuple[int, int], first: int, found: Sides
) -> None:
    """Hold for `rule`'s bars, the deciding one counted, after a move beyond its threshold; then decide no bar long."""
    (threshold, hold), (up, down) = rule, sides
    held, left = 0, 0
    for i in range(len(found)):
        if left > 0:
            left -= 1
            found[i] = held if left > 0 else 0
            continue
        move = moves[first + i]
        held = up * (move > threshold) + down * (move < -threshold)
        left = hold if held != 0 else 0
        found[i] = held


def reverted(values: Floats, period: int, rule: tuple[float, float], direction: Direction) -> CompiledTargets:
    """Return reversion to the mean: in beyond one z-score over `period` values, out beyond another."""
    inputs = (shared(z_score, values, period), rule, _SIDES[direction])
    return CompiledTargets(mean_reversion, inputs, whole=True)


@compiled(nogil=True)
def mean_reversion(
    scores: Floats, rule: tuple[float, float], sides: tuple[int, int], first: int, found: Sides
) -> None:
    """Go in where a score is at `rule`'s first or beyond, against it, and out at the second on the other side."""
    (entry, leave), (up, down) = rule, sides
    held = 0
    for i in range(len(found)):
        score = scores[first + i]
        if held != 0 and held * score >= leave:
            held = 0
        if held == 0:
            held = up * (score <= -entry) + down * (score >= entry)
        found[i] = held


class Channel(NamedTuple):
    """Closes, and the highest high and the lowest low of the bars before each, (n,) each."""

    close: Floats
    highest: Floats
    lowest: Floats


def broken_out(bars: Bars, lookback: int, rule: tuple[int, float], direction: Direction) -> CompiledTargets:
    """Return the breakout of the channel of `lookback` bars, confirmed, with a stop on closes."""
    highest, lowest = shared(highest_before, bars.high, lookback), shared(lowest_before, bars.low, lookback)
    return CompiledTargets(
        breakout, (Channel(bars.close, highest, lowest), rule, _SIDES[direction]), whole=True
    )


@compiled(nogil=True)
def breakout(
    channel: Channel, rule: tuple[int, float], sides: tuple[int, int], first: int, found: Sides
) -> None:
    """Go in after `rule`'s closes beyond the channel, out when a close is its stop beyond the one that went in.

    What a stop ends is not taken up at the same close.
    """
    (confirm, stop), (up, down) = rule, sides
    above, below, held, entered = 0, 0, 0, 0.0
    for i in range(max(first - confirm + 1, 0), len(channel.close)):
        close, highest, lowest = channel.close[i], channel.highest[i], channel.lowest[i]
        above = above + 1 if close - highest > ROUNDING * abs(highest) else 0
        below = below + 1 if lowest - close > ROUNDING * abs(close) else 0
        if i < first:
            continue
        wanted = down if below >= confirm and down != 0 else up if above >= confirm else 0
        stopped = held if held * (close - entered) < -stop * entered else 0
        held = 0 if stopped != 0 else held
        if held == 0 and wanted not in (0, stopped):
            held, entered = wanted, close
        found[i - first] = held


class Quiet(NamedTuple):
    """Closes, their average, and the standard deviation of their changes, (n,) each."""

    close: Floats
    trend: Floats
    deviation: Floats


def trending_quietly(
    values: Floats, periods: tuple[int, int], threshold: float, direction: Direction
) -> CompiledTargets:
    """Return the side of an average while changes are quiet; `periods` are those of the changes and of the average."""
    deviation = shared(rolling_std, shared(change, values, 1), periods[0])
    inputs = (Quiet(values, shared(sma, values, periods[1]), deviation), threshold, _SIDES[direction])
    return CompiledTargets(quiet_trend, inputs, whole=True)


@compiled(nogil=True)
def quiet_trend(quiet: Quiet, threshold: float, sides: tuple[int, int], first: int, found: Sides) -> None:
    """Take the side of the average that a close is on by more than rounding, where the deviation is below."""
    (up, down), close, trend = sides, quiet.close[first:], quiet.trend[first:]
    deviation = quiet.deviation[first:]
    for i in range(len(close)):
        above = close[i] - trend[i] > ROUNDING * abs(trend[i])
        below = trend[i] - close[i] > ROUNDING * abs(close[i])
        found[i] = (up * above + down * below) * (deviation[i] < threshold)
