"""The check of a strategy: look-ahead, warm-up, determinism, range of its targets, parameters, activity.

What it finds is a proof, what it does not find is none: it tries bars that are there, in a bounded number of places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import ValidationError

from gpt_trader.backtesting.engine import declared_warmup
from gpt_trader.backtesting.findings import Finding, StrategyCheck
from gpt_trader.backtesting.lookahead import look_ahead
from gpt_trader.backtesting.recursion import warm_up, warm_up_finding
from gpt_trader.backtesting.result import iso
from gpt_trader.backtesting.trying import Broken, guarded, targets_of
from gpt_trader.errors import Refused
from gpt_trader.strategies.registry import parameter_names

if TYPE_CHECKING:
    from gpt_trader.bars import Bars, Floats
    from gpt_trader.strategies.base import Strategy

#: Bars that an analysis may have computed, about: long series are tried in fewer places.
_WORK: Final = 400_000
_CUTS: Final = (8, 64)
_STARTS: Final = (8, 200)
#: Beyond ±1 by no more than this is rounding, as the engine has it.
_ROUNDING: Final = 1e-9


def check_strategy(
    strategy: Strategy, bars: Bars, first: int, *, shown_as: str | None = None, snapshot_id: str | None = None
) -> StrategyCheck:
    """Try a strategy on bars and return all that was found.

    Args:
        strategy: An instance, with its parameters and its direction.
        bars: Warm-up bars and the bars of the range, (n,), oldest first; at least one of the range.
        first: Index of the range's first bar.
        shown_as: The name under which it was asked for; default: its own.
        snapshot_id: Where the bars came from; told on.
    """
    findings = parameter_findings(type(strategy))
    cuts, warmth, entries = 0, None, None
    try:
        declared = _declared_warmup(strategy)
        targets = _settled_targets(strategy, bars, first, declared)
        findings += target_findings(targets, bars, first, strategy.direction)
        entries = count_entries(targets[first:])
        findings += _activity(entries, bars, first, declared)
        ahead, cuts = look_ahead(strategy, bars, first, targets, _places(len(bars), _CUTS))
        findings += ahead
        if not ahead:  # with the future in them, histories cannot be compared
            warmth = warm_up(strategy, bars, first, declared, _places(len(bars), _STARTS))
            findings += [found] if (found := warm_up_finding(warmth, bars)) else []
    except Broken as broken:
        findings.append(broken.finding)
    return StrategyCheck(
        strategy=shown_as or strategy.name,
        params=strategy.params(),
        direction=strategy.direction,
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        snapshot_id=snapshot_id,
        start=_time(bars, first),
        end=_time(bars, -1),
        bars=len(bars) - first,
        history=first,
        verdict="problems" if any(found.severity == "error" for found in findings) else "ok",
        findings=tuple(findings),
        cuts=cuts,
        warmup=warmth,
        entries=entries,
    )


def parameter_findings(strategy: type[Strategy]) -> list[Finding]:
    """Return what is wrong with the declared search space: names, values, and defaults outside of it."""
    known, space = parameter_names(strategy), strategy.search_space
    findings = []
    for name, values in space.items():
        if name not in known:
            message = (
                f"search_space names {name!r}, which is no parameter; there are: {', '.join(known) or 'none'}"
            )
            findings.append(Finding(check="params", severity="error", message=message))
            continue
        for value in values:
            if (reason := _refused(strategy, name, value)) is not None:
                message = f"search_space has {name}={value!r}, which is never taken: {reason}"
                findings.append(Finding(check="params", severity="error", message=message[:1000]))
        default = strategy.model_fields[name].default
        if _outside(default, values):
            message = f"the default {name}={default!r} is outside of its search space {min(values)} to {max(values)}"
            findings.append(Finding(check="params", severity="warning", message=message))
    return findings


def target_findings(targets: Floats, bars: Bars, first: int, direction: str) -> list[Finding]:
    """Return where targets are no position: not finite, beyond ±1, or taken before the range begins."""
    findings = []
    refused = np.flatnonzero(~(np.abs(targets) <= 1.0 + _ROUNDING))
    if len(refused):
        at = int(refused[0])
        message = (
            f"the target at {iso(bars.time[at])} is {targets[at]:g}, and {len(refused)} in all are no finite number of "
            "[-1, 1]: where an indicator is undefined, the target is 0"
        )
        findings.append(Finding(check="targets", severity="error", bar=iso(bars.time[at]), message=message))
    early = np.flatnonzero(targets[:first])
    if len(early):
        at = int(early[0])
        message = (
            f"the target at {iso(bars.time[at])}, before the range, is {targets[at]:g}: bars before `first` are "
            "warm-up, their targets are 0"
        )
        findings.append(Finding(check="targets", severity="error", bar=iso(bars.time[at]), message=message))
    unasked = {"long": targets < 0, "short": targets > 0}.get(direction)
    if unasked is not None and unasked.any():
        at = int(np.flatnonzero(unasked)[0])
        message = f"the target at {iso(bars.time[at])} is {targets[at]:g}: with direction {direction} it is traded as 0"
        findings.append(Finding(check="targets", severity="warning", bar=iso(bars.time[at]), message=message))
    return findings


def count_entries(targets: Floats) -> int:
    """Return how often the side of `targets` goes into a position that can still be filled: not at the last bar."""
    sides = np.sign(np.nan_to_num(targets))
    before = np.concatenate([[0.0], sides[:-1]])
    return int(np.count_nonzero(((sides != 0) & (sides != before))[:-1]))


def _settled_targets(strategy: Strategy, bars: Bars, first: int, declared: int) -> Floats:
    """Return targets that are the same when asked for again, other bars in between; raise Broken otherwise."""
    targets = targets_of(strategy, bars, first)
    targets_of(strategy, bars[: max(first + max(1, (len(bars) - first) // 2), declared)], first)
    again = targets_of(strategy, bars, first)
    differs = np.flatnonzero((targets != again) & ~(np.isnan(targets) & np.isnan(again)))
    if len(differs):
        at = int(differs[0])
        message = (
            f"two calls with the same bars give other targets, first {targets[at]:g} and {again[at]:g} at "
            f"{iso(bars.time[at])}: something random, or remembered from call to call; nothing else was tried"
        )
        raise Broken(Finding(check="determinism", severity="error", bar=iso(bars.time[at]), message=message))
    return targets


def _declared_warmup(strategy: Strategy) -> int:
    """Return the strategy's warm-up in bars; raise Broken where it is no whole number from 1 on."""
    guarded(strategy, lambda: strategy.warmup)  # the strategy's own code may raise
    try:
        return declared_warmup(strategy)
    except Refused as refused:
        raise Broken(Finding(check="warm-up", severity="error", message=refused.detail)) from refused


def _activity(entries: int, bars: Bars, first: int, declared: int) -> list[Finding]:
    if entries:
        return []
    message = f"no position is ever taken on these {len(bars) - first} bars: zero trades"
    if len(bars) < declared:
        message += f"; {declared} bars are needed before a first decision, and {len(bars)} are there"
    return [Finding(check="activity", severity="warning", message=message)]


def _refused(strategy: type[Strategy], name: str, value: object) -> str | None:
    """Return why a value is refused, whatever the other parameters are; None where it is taken.

    Tried with the defaults, then with each single other value that is searched: a rule between two parameters (fast
    below slow) is theirs, not the value's.
    """
    others: list[dict[str, Any]] = [{}]
    others += [{key: one} for key, values in strategy.search_space.items() if key != name for one in values]
    reason = None
    for other in others:
        try:
            strategy.model_validate({**other, name: value})
        except ValidationError as error:
            complaint = error.errors()[0]
            reason = reason or str(complaint["msg"]).removeprefix("Value error, ")
            if all(each["type"] == "missing" for each in error.errors()):
                return None  # another parameter has no default: that is not this value's fault
        else:
            return None
    return reason


def _outside(default: object, values: Any) -> bool:  # noqa: ANN401 - whatever a strategy declares
    """Return whether a number is below the least or above the greatest of the values that are searched."""
    numbers = all(isinstance(value, int | float) for value in values)
    if not (values and numbers and isinstance(default, int | float)):
        return False
    return not min(values) <= default <= max(values)


def _places(bars: int, bounds: tuple[int, int]) -> int:
    return max(bounds[0], min(bounds[1], _WORK // max(bars, 1)))


def _time(bars: Bars, at: int) -> str:
    return str(iso(bars.time[at]))
