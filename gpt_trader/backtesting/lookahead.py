"""Look-ahead analysis: does a target change when later bars go away, or become others?

The law of `Strategy.targets` in many places, as Freqtrade's `lookahead-analysis` tries it by cutting history off; the
other futures find as well what only looks at how much is to come, and single columns say what was read too early.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gpt_trader.backtesting.causality import cut_points, first_difference
from gpt_trader.backtesting.findings import Column, Finding
from gpt_trader.backtesting.other_futures import COLUMNS, other_column, other_future, scaled_column
from gpt_trader.backtesting.result import iso
from gpt_trader.backtesting.trying import Broken, targets_of

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats
    from gpt_trader.strategies.base import Strategy

#: Prices of the other futures, as multiples of what they were: one goes on far above, one far below.
LEVELS: Final = (2.0, 0.5)

#: Cuts in which the column is looked for, once it is known that something is read too early.
_TRACED: Final = 24


class _Change(NamedTuple):
    bar: int
    known: float
    otherwise: float
    said: str


def look_ahead(
    strategy: Strategy, bars: Bars, first: int, targets: Floats, count: int
) -> tuple[list[Finding], int]:
    """Return what reads the future, a finding for each column that can be named, and in how many places it was tried.

    Args:
        strategy: Whose targets they are; it must give the same answer to the same bars.
        bars: Warm-up bars and the bars of the range, (n,).
        first: Index of the range's first bar.
        targets: The strategy's targets with all bars known, (n,).
        count: In how many places to try.

    Raises Broken where the strategy does not run on less history, or on other prices.
    """
    cuts = cut_points(first, len(bars), count, strategy.warmup)
    changes: dict[int, _Change] = {}
    for cut in cuts:
        found = _change(strategy, bars, first, targets, cut)
        if found is not None:
            changes[cut] = found
    if not changes:
        return [], len(cuts)
    columns = _columns(strategy, bars, first, targets, list(changes)[:_TRACED])
    earliest = min(changes.values())
    if not columns:
        return [_finding(bars, earliest, None)], len(cuts)
    return [_finding(bars, min(change, earliest), column) for column, change in columns.items()], len(cuts)


def _change(strategy: Strategy, bars: Bars, first: int, targets: Floats, cut: int) -> _Change | None:
    """Return the first target that changes when the bars from `cut` on go away or become others."""
    seen = targets_of(strategy, bars[:cut], first)
    at = first_difference(targets, seen)
    found = None
    if at is not None:
        said = f"when history ends at {iso(bars.time[cut - 1])}"
        found = _Change(at, float(targets[at]), float(seen[at]), said)
    for level in LEVELS:
        other = targets_of(strategy, other_future(bars, cut, level), first)[:cut]
        at = first_difference(targets, other)
        if at is not None and (found is None or at < found.bar):
            said = f"when the prices after {iso(bars.time[cut - 1])} are others"
            found = _Change(at, float(targets[at]), float(other[at]), said)
    return found


def _columns(
    strategy: Strategy, bars: Bars, first: int, targets: Floats, cuts: list[int]
) -> dict[Column, _Change]:
    """Return the columns that change a target before them, alone, with the first target that each changes.

    First as valid bars; where that moves nothing, by shocks, which a strategy may refuse to run on.
    """

    def quietly(cut: int, column: Column) -> list[Bars]:
        return [other_column(bars, cut, column)]

    def shocked(cut: int, column: Column) -> list[Bars]:
        return [scaled_column(bars, cut, column, level) for level in LEVELS]

    for others in (quietly, shocked):
        found: dict[Column, _Change] = {}
        for column in COLUMNS:
            for cut in cuts:
                for other in others(cut, column):
                    change = _moved(strategy, other, first, targets, cut)
                    if change is not None and (column not in found or change.bar < found[column].bar):
                        said = f"when {column} alone is another after {iso(bars.time[cut - 1])}"
                        found[column] = change._replace(said=said)
        if found:
            return found
    return {}


def _moved(strategy: Strategy, other: Bars, first: int, targets: Floats, cut: int) -> _Change | None:
    try:
        seen = targets_of(strategy, other, first)[:cut]
    except Broken:  # prices as no market makes them: nothing is known by it
        return None
    at = first_difference(targets, seen)
    return None if at is None else _Change(at, float(targets[at]), float(seen[at]), "")


def _finding(bars: Bars, change: _Change, column: Column | None) -> Finding:
    read = f"it reads the {column} of bars to come" if column else "it looks into the future"
    message = (
        f"{read}: the target at {iso(bars.time[change.bar])} is {change.known:g} with all bars known and "
        f"{change.otherwise:g} {change.said}"
    )
    return Finding(
        check="look-ahead", severity="error", bar=iso(bars.time[change.bar]), column=column, message=message
    )
