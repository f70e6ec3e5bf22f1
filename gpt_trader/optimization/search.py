"""How a space is searched: which combinations are tried, in which order, and when it is enough.

A search proposes rounds of combinations and learns from what became of each round. A grid and a draw know all of theirs
at once; TPE and a search with patience decide after each round. What they decide follows from the request and the
trials alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gpt_trader.indicators import remembering
from gpt_trader.optimization.ranking import allowed, objectives
from gpt_trader.optimization.space import DEFAULT_DRAWS, trial_numbers
from gpt_trader.optimization.study import Screened, Study

#: A draw with patience goes by rounds of its patience, but within these.
_SHORTEST, _LONGEST = 20, 500

#: Tries a round of combinations.
Screen = Callable[[Sequence[int]], Screened]


class Proposals(Protocol):
    """What to try next."""

    def propose(self) -> Sequence[int]:
        """Return the numbers of the next round of combinations; none at the end."""

    def learn(self, screened: Screened) -> None:
        """Take in what became of the round."""


@dataclass(frozen=True)
class Search:
    """The trials of a search, in order, and where it stopped before its budget was spent (None: it did not).

    `stopped` is JSON-ready: `patience`, how many `trials` were done `of` the budget, the `best_trial` (counted from 1;
    None: nothing could be chosen).
    """

    screened: Screened
    stopped: dict[str, Any] | None = None


def budget(study: Study) -> int:
    """Return how many combinations are tried at most."""
    request, size = study.request, study.space.size
    return size if request.method == "grid" else min(request.trials or DEFAULT_DRAWS, size)


def searched(study: Study, screen: Screen) -> Search:
    """Search a study's space with what it asks for, round by round."""
    parts: list[Screened] = []
    proposals, waiting = _proposals(study), _Waiting(study)
    with remembering():  # rounds, and their chunks, share indicators
        while numbers := proposals.propose():
            parts.append(screen(numbers))
            proposals.learn(parts[-1])
            if waiting.is_over(parts[-1]):
                return Search(_joined(parts), waiting.stopped())
    return Search(_joined(parts))


def _joined(parts: list[Screened]) -> Screened:
    """Return the trials of all rounds; a grid has one, which is not copied."""
    return parts[0] if len(parts) == 1 else Screened.of(parts)


class _Waiting:
    """Counts the trials since the last one that was better than all before and may be chosen."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._patience = study.request.patience
        self._done, self._best, self._best_trial = 0, -np.inf, 0

    def is_over(self, screened: Screened) -> bool:
        """Take in a round; return whether patience is at its end, with part of the budget left."""
        if self._patience is None:
            return False
        request = self._study.request
        objective = objectives(screened, self._study.traded, request)
        value = np.where(allowed(screened, objective, request), objective, -np.inf)
        for at in np.flatnonzero(value > self._best).tolist():
            if value[at] > self._best:
                self._best, self._best_trial = float(value[at]), self._done + at + 1
        self._done += len(value)
        return self._done - self._best_trial >= self._patience and self._done < budget(self._study)

    def stopped(self) -> dict[str, Any]:
        """Return what is said of a search that stopped here."""
        return {
            "patience": self._patience,
            "trials": self._done,
            "of": budget(self._study),
            "best_trial": self._best_trial or None,
        }


class _Listed:
    """All of a list, in rounds of `size`: the outcome of a round changes nothing."""

    def __init__(self, numbers: Sequence[int], size: int) -> None:
        self._rounds: Iterator[Sequence[int]] = (
            numbers[first : first + size] for first in range(0, len(numbers), size)
        )

    def propose(self) -> Sequence[int]:
        return next(self._rounds, [])

    def learn(self, screened: Screened) -> None:
        """Nothing is learned."""


def _proposals(study: Study) -> Proposals:
    request = study.request
    if request.method == "tpe":
        from gpt_trader.optimization.tpe import ParzenSearch

        return ParzenSearch(study, budget(study))
    numbers = trial_numbers(study.space, request)
    if request.patience is None:
        return _Listed(numbers, len(numbers))
    return _Listed(numbers, min(max(request.patience, _SHORTEST), _LONGEST))
