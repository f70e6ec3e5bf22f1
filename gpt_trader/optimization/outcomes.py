"""Trials in Optuna's terms: states, values, constraints, and trials as its own tools show them.

===================================== ========= ==========================================================
what became of it                     state     violations (above 0: the constraint is broken)
===================================== ========= ==========================================================
run, with an objective                COMPLETE  `min_trades`: missing entries / min_trades;
                                                `max_drawdown`: by how much it falls deeper
run, its objective undefined;         PRUNED    `objective`: 3, more than all others can be together
skipped by the strategy; failed
===================================== ========= ==========================================================

A sampler looks for the best among those that break nothing; of the others the less they break the better.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from gpt_trader.optimization.ranking import objectives
from gpt_trader.optimization.screening import COLUMNS
from gpt_trader.optimization.study import FAILED, RUN, SKIPPED, Screened, Study
from gpt_trader.requests import ParamValue

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

#: Violation of a trial without an objective.
_NOTHING: Final = 3.0

_BECAME: Final = {RUN: "run", SKIPPED: "skipped", FAILED: "failed"}


@dataclass(frozen=True)
class Outcome:
    """What became of the combination of this number: Optuna's state, the objective (COMPLETE), violations by name."""

    number: int
    state: Literal["COMPLETE", "PRUNED"]
    value: float | None
    violations: dict[str, float]


def outcomes(study: Study, screened: Screened) -> Iterator[Outcome]:
    """Yield the outcomes of trials, in their order."""
    request = study.request
    objective = objectives(screened, study.traded, request)
    entries = screened.sums[:, COLUMNS.index("entries")]
    depth = screened.sums[:, COLUMNS.index("depth")]
    for at, number in enumerate(screened.number.tolist()):
        if screened.state[at] != RUN or not np.isfinite(objective[at]):
            yield Outcome(number, "PRUNED", None, {"objective": _NOTHING})
            continue
        violations = {"min_trades": (request.min_trades - float(entries[at])) / max(request.min_trades, 1)}
        if request.max_drawdown is not None:
            violations["max_drawdown"] = -float(depth[at]) - request.max_drawdown
        yield Outcome(number, "COMPLETE", float(objective[at]), violations)


def frozen(study: Study, screened: Screened) -> list[FrozenTrial]:
    """Return trials as Optuna's tools show them: parameters with their values, and our number and state of each."""
    from optuna.trial import TrialState, create_trial

    values = study.space.values
    shown = {name: _distribution(several) for name, several in values.items()}
    found = []
    for told, state in zip(outcomes(study, screened), screened.state.tolist(), strict=True):
        combination = study.space.at(told.number)
        attributes = {"number": told.number, "state": _BECAME[state], **study.space.fixed}
        if told.number in screened.reasons:
            attributes["reason"] = screened.reasons[told.number]
        found.append(
            create_trial(
                state=TrialState[told.state],
                value=told.value,
                params={name: combination[name] for name in values},
                distributions=shown,
                user_attrs=attributes,
                constraints=told.violations,
            )
        )
    return found


def is_ordered(values: Sequence[ParamValue]) -> bool:
    """Return whether the values are numbers, so that one lies between others."""
    return not any(isinstance(value, bool | str) for value in values)


def _distribution(values: Sequence[ParamValue]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    numbers = [value for value in values if isinstance(value, int | float)]
    if not is_ordered(values):
        return CategoricalDistribution(values)
    if all(isinstance(value, int) for value in numbers):
        return IntDistribution(int(min(numbers)), int(max(numbers)))
    return FloatDistribution(float(min(numbers)), float(max(numbers)))
