"""Searching as tasks: rounds of trials side by side, told as they come, kept for Optuna's tools; walking forward."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from gpt_trader.optimization.ranking import allowed, objectives
from gpt_trader.optimization.search import Search, budget, searched
from gpt_trader.optimization.study import Screened, Study
from gpt_trader.optimization.walk_forward import Trained, document, trained, walk
from storage.studies import StudyStore
from tasks.optimize import array_cache, chunks, keep, key_of, screen, study_name
from tasks.passing import whole
from tasks.places import compute
from tasks.stores import OUTAGE_SECONDS, stores

#: Tells how far a run is: stage, done, total, message.
Tell = Callable[[str, int, int, str], None]

#: Fields of a request that decide what a training chooses, beside those of `tasks.optimize.key_of`.
_CHOOSING: Final = {"method", "trials", "patience", "seed", "objective", "min_trades", "max_drawdown"}

#: A short round is cut into at most so many parts, of at least so many combinations.
_PARTS: Final = 8
_SMALLEST: Final = 5


def search(study: Study, tell: Tell) -> Search:
    """Search a study's space: the chunks of each round run side by side, as tasks; `tell` gets the best so far."""
    return searched(study, _Rounds(study, tell).screen)


class _Rounds:
    """Screens rounds of a search and tells of them."""

    def __init__(self, study: Study, tell: Tell) -> None:
        self._study, self._tell = study, tell
        self._studies = StudyStore(stores().engine, patience=OUTAGE_SECONDS)
        self._submitted = self._done = 0
        self._best, self._said = -np.inf, ""

    def screen(self, numbers: Sequence[int]) -> Screened:
        """Screen a round; a chunk that was kept by an earlier run is not done anew."""
        found = Screened.of(self._screened(numbers))
        if self._study.request.method == "tpe":
            self._keep(found)
        return found

    def _screened(self, numbers: Sequence[int]) -> Iterator[Screened]:
        """Screen the parts of a round side by side and yield them in order; neither they nor their futures are kept."""
        futures = deque[PrefectFuture[Screened]]()
        for part in self._parts(numbers):
            futures.append(screen.submit(whole(self._study), part, self._submitted))
            self._submitted += 1
        while futures:
            screened = futures.popleft().result()
            self._take_in(screened)
            yield screened

    def _parts(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return a round in parts that run side by side: a search that decides after each round has short ones."""
        if self._study.request.method != "tpe" and self._study.request.patience is None:
            return chunks(numbers)
        size = max(_SMALLEST, -(-len(numbers) // _PARTS))
        return [list(numbers[first : first + size]) for first in range(0, len(numbers), size)]

    def _take_in(self, part: Screened) -> None:
        """Tell how many trials are done, and the best of them that may be chosen."""
        study = self._study
        objective = objectives(part, study.traded, study.request)
        value = np.where(allowed(part, objective, study.request), objective, -np.inf)
        place = int(np.argmax(value))
        if value[place] > self._best:
            self._best = float(value[place])
            combination = study.space.at(int(part.number[place]))
            self._said = f"best {study.request.objective} {self._best:.4g} {combination}"
        self._done += len(value)
        self._tell("trials", self._done, budget(study), self._said)

    def _keep(self, found: Screened) -> None:
        """Add a round to the study that Optuna's tools can open; what an earlier run added is left as it is."""
        from gpt_trader.optimization.outcomes import frozen

        first = self._done - len(found.number)
        self._studies.add(study_name(self._study), frozen(self._study, found), first)


@task(name="walk forward", cache_policy=NO_CACHE)
def walk_forward(study: Study, tell: Tell) -> dict[str, Any] | None:
    """Walk forward where the request asks for it; return the walk JSON-ready.

    What each training chose is kept: a run that was killed on its walk goes on with the window it was at.
    """
    how = study.request.walk_forward
    if how is None:
        return None
    windows = []
    for window in walk(study, how, _kept_training):
        windows.append(window)
        tell("walk forward", len(windows), how.windows, "")
    return document(study, windows)


def _kept_training(past: Study) -> Trained:
    """Return what a training chooses, from the cache where it was done before."""
    key = key_of(past, training=past.request.model_dump(mode="json", include=_CHOOSING))
    kept = array_cache().get(key, ("trained",))
    if kept is not None:
        return Trained(**json.loads(bytes(kept[0])))
    found = compute(f"the training up to {past.bars.time[-1]}", trained, past)
    keep(key, {"trained": np.frombuffer(json.dumps(asdict(found)).encode(), np.uint8)})
    return found
