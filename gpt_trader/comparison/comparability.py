"""Why runs may not compare: other bars, another range, other costs, or a choice that the others had not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from gpt_trader.comparison.common_dates import CommonDates
from gpt_trader.comparison.contenders import Contender


@dataclass(frozen=True)
class Mismatch:
    """What differs, why that matters, and what each run has (by its id)."""

    field: str
    message: str
    values: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return dict(vars(self))


#: What differs → why its metrics do not compare.
_SYMBOL: Final = "the runs traded different symbols: what differs may be the market and not the strategy"
_TIMEFRAME: Final = "the bars are of different lengths: the runs decide and are measured at another pace"
_RANGE: Final = (
    "the ranges differ, and each run's metrics are of its own; curves and correlation are of the common dates"
)
_BARS: Final = (
    "the bars of a symbol differ: the lake has changed between the runs; start them on one snapshot"
)
_TERMS: Final = {
    "capital": "the capital differs: what is in money (final equity, costs, expectancy) does not compare",
    "commission": "the commissions differ: a run with lower costs looks better for nothing that it did",
    "slippage": "the slippages differ: a run with lower costs looks better for nothing that it did",
    "size": "the shares of equity put into a position differ: returns and risk scale with them",
}


def mismatches(contenders: Sequence[Contender], common: CommonDates | None) -> tuple[Mismatch, ...]:
    """Return what keeps these runs from being compared, or part of them from being drawn."""
    found = [
        *_differing(contenders, "symbol", _SYMBOL, [each.symbol for each in contenders]),
        *_differing(contenders, "timeframe", _TIMEFRAME, [each.timeframe for each in contenders]),
        *_differing(contenders, "range", _RANGE, [_range(each) for each in contenders]),
        *_other_bars(contenders),
    ]
    for name, why in _TERMS.items():
        found += _differing(contenders, name, why, [each.terms.get(name) for each in contenders])
    return (*found, *_chosen(contenders), *_not_drawn(contenders, common))


def _differing(contenders: Sequence[Contender], name: str, why: str, values: Sequence[Any]) -> list[Mismatch]:
    if all(value == values[0] for value in values):
        return []
    return [Mismatch(name, why, _by_run(contenders, values))]


def _range(each: Contender) -> str:
    return f"{each.start} to {each.end}"


def _other_bars(contenders: Sequence[Contender]) -> list[Mismatch]:
    """Return whether runs over the same series read different snapshots that hold other bars of it."""
    series: dict[tuple[str | None, str | None], set[tuple[str | None, str | None]]] = {}
    for each in contenders:
        series.setdefault((each.symbol, each.timeframe), set()).add((each.snapshot_id, each.bars_hash))
    for versions in series.values():
        if len({snapshot for snapshot, _ in versions}) > 1 and len({bars for _, bars in versions}) > 1:
            snapshots = [each.snapshot_id for each in contenders]
            return [Mismatch("snapshot", _BARS, _by_run(contenders, snapshots))]
    return []


def _chosen(contenders: Sequence[Contender]) -> list[Mismatch]:
    """Return which runs had their parameters chosen from many on these very bars."""
    chosen = {each.run_id: each.chosen_of for each in contenders if (each.chosen_of or 0) > 1}
    if not chosen:
        return []
    why = (
        "parameters that are the best of many trials look better than they are: "
        "see that run's verdict and walk-forward"
    )
    return [Mismatch("trials", why, chosen)]


def _not_drawn(contenders: Sequence[Contender], common: CommonDates | None) -> list[Mismatch]:
    without = {each.run_id: None for each in contenders if each.equity is None}
    found = []
    if without:
        why = "no equity curve was kept by these runs (optimizations of an earlier version): run them again"
        found.append(Mismatch("curves", why, without))
    have = [each for each in contenders if each.equity is not None]
    if have and common is None:
        found.append(
            Mismatch(
                "curves", "the runs have no date in common: there is nothing to draw", _ranges(contenders)
            )
        )
    elif common is not None:
        ruined = {each.run_id: 0.0 for each in have if each.run_id not in common.run_ids}
        if ruined:
            why = "these runs had nothing left on the first common date: their curves cannot be drawn"
            found.append(Mismatch("curves", why, ruined))
    return found


def _ranges(contenders: Sequence[Contender]) -> dict[str, Any]:
    return _by_run(contenders, [_range(each) for each in contenders])


def _by_run(contenders: Sequence[Contender], values: Sequence[Any]) -> dict[str, Any]:
    return {each.run_id: value for each, value in zip(contenders, values, strict=True)}
