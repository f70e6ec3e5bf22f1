"""Search by a tree-structured Parzen estimator (TPE): what was found so far says where to look next.

Bergstra, Bardenet, Bengio & Kégl, Algorithms for Hyper-Parameter Optimization, NeurIPS 2011; the sampler is Optuna's,
multivariate. It is asked for `ROUND` combinations at a time, so that the same request asks for the
same ones however many processors there are. A round follows from the seed, its own number and the trials of the rounds
before, told in order, and from nothing else: a search that was killed is gone through again from its start, with the
trials that were kept, and ends equal.

Optuna is shown places of values, not values: ordered parameters as integers, others as categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from gpt_trader.optimization.outcomes import is_ordered, outcomes
from gpt_trader.optimization.study import Screened, Study
from gpt_trader.requests import ParamValue

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

#: Combinations that are asked for before any of them is told.
ROUND: Final = 20

#: Trials that are drawn before the estimator is asked, and the candidates that it weighs for each that it is asked for:
#: more than Optuna's 10 and 24, with which more searches stayed on a wrong hill (`benchmarks/search.py`).
_DRAWN: Final = 2 * ROUND
_CANDIDATES: Final = 64

#: So many times as many are asked for as are wanted, until all are new; the rest of a round is drawn.
_PERSISTENCE: Final = 2


class ParzenSearch:
    """Proposes combinations of a study's space, none twice, and learns from what became of them."""

    def __init__(self, study: Study, budget: int) -> None:
        self._study = study
        self._left = min(budget, study.space.size)
        self._rounds = 0
        self._seen: set[int] = set()
        self._told: list[FrozenTrial] = []
        self._axes = {name: _Axis(values) for name, values in study.space.values.items()}
        self._shown = {name: axis.distribution() for name, axis in self._axes.items()}

    def propose(self) -> list[int]:
        """Return the numbers of the next round; none when the budget is spent."""
        wanted = min(ROUND, self._left)
        seeds = np.random.SeedSequence([self._study.request.seed, self._rounds])
        numbers = self._asked(wanted, int(seeds.generate_state(1)[0])) if wanted else []
        random = np.random.default_rng(seeds)
        while len(numbers) < wanted:  # it insists on what is known: look elsewhere
            numbers.append(self._drawn(random))
        self._left -= wanted
        self._rounds += 1
        return numbers

    def learn(self, screened: Screened) -> None:
        """Take in the trials of a round, in its order."""
        from optuna.trial import TrialState, create_trial

        for told in outcomes(self._study, screened):
            places = self._study.space.places(told.number)
            shown = {
                name: axis.order.index(at)
                for (name, axis), at in zip(self._axes.items(), places, strict=True)
            }
            self._told.append(
                create_trial(
                    state=TrialState[told.state],
                    value=told.value,
                    params=shown,
                    distributions=self._shown,
                    constraints=told.violations,
                )
            )

    def _asked(self, wanted: int, seed: int) -> list[int]:
        """Return what the estimator asks for, at most so many, all of them new."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_DRAWN, n_ei_candidates=_CANDIDATES)
        estimator = optuna.create_study(direction="maximize", sampler=sampler)
        estimator.add_trials(self._told)
        numbers: list[int] = []
        for _ in range(_PERSISTENCE * wanted):
            if len(numbers) == wanted:
                break
            trial = estimator.ask(self._shown)
            places = [axis.order[trial.params[name]] for name, axis in self._axes.items()]
            number = self._study.space.number(places)
            if number in self._seen:
                estimator.tell(trial, state=optuna.trial.TrialState.FAIL)  # as if it had not been asked for
                continue
            self._seen.add(number)
            numbers.append(number)
        return numbers

    def _drawn(self, random: np.random.Generator) -> int:
        """Return a combination that was not seen, each as likely as any other."""
        space = self._study.space
        while True:
            number = space.number([int(random.integers(length)) for length in space.shape])
            if number not in self._seen:
                self._seen.add(number)
                return number


class _Axis:
    """A parameter's values as Optuna is shown them: `order[k]` is the place of what is shown as k."""

    def __init__(self, values: Sequence[ParamValue]) -> None:
        self.ordered = is_ordered(values)
        places = range(len(values))
        self.order = sorted(places, key=lambda at: values[at]) if self.ordered else list(places)

    def distribution(self) -> BaseDistribution:
        """Return the distribution of the places."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        if self.ordered:
            return IntDistribution(0, len(self.order) - 1)
        return CategoricalDistribution(range(len(self.order)))
