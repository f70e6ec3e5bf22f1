"""Which combinations of parameters there are to try, numbered, so that a trial is known by one integer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from gpt_trader.errors import Problem, Refused, UnknownName
from gpt_trader.requests import OptimizeRequest, ParamValue, ValueRange
from gpt_trader.strategies.base import Strategy
from gpt_trader.strategies.registry import parameter_names

#: Each trial keeps 344 bytes: so many are 86 MB.
LARGEST_GRID: Final = 250_000
DEFAULT_DRAWS: Final = 200


@dataclass(frozen=True)
class SearchSpace:
    """The combinations of `values` by parameter; `fixed` parameters are the same in all of them.

    Combination number k counts through the values as an odometer does, the last parameter fastest.
    """

    values: Mapping[str, tuple[ParamValue, ...]]
    fixed: Mapping[str, ParamValue]

    @property
    def size(self) -> int:
        """How many combinations there are, invalid ones counted."""
        return math.prod(len(values) for values in self.values.values())

    @property
    def shape(self) -> tuple[int, ...]:
        """How many values each searched parameter has, in order."""
        return tuple(len(values) for values in self.values.values())

    def at(self, number: int) -> dict[str, ParamValue]:
        """Return the combination of a number, 0 ≤ number < size: searched parameters and fixed ones."""
        places = self.places(number)
        chosen = {name: values[at] for (name, values), at in zip(self.values.items(), places, strict=True)}
        return {**self.fixed, **chosen}

    def places(self, number: int) -> tuple[int, ...]:
        """Return for each searched parameter the place of its value, from 0."""
        places = []
        for length in reversed(self.shape):
            number, place = divmod(number, length)
            places.append(place)
        return tuple(reversed(places))

    def number(self, places: Sequence[int]) -> int:
        """Return the number of the combination with the values at these places."""
        number = 0
        for place, length in zip(places, self.shape, strict=True):
            number = number * length + place
        return number

    def neighbors(self, number: int) -> list[int]:
        """Return the combinations one step away in one parameter: at most two a parameter."""
        places = self.places(number)
        return [
            self.number((*places[:axis], place, *places[axis + 1 :]))
            for axis, length in enumerate(self.shape)
            for place in (places[axis] - 1, places[axis] + 1)
            if 0 <= place < length
        ]


def search_space(strategy: type[Strategy], request: OptimizeRequest) -> SearchSpace:
    """Return what a request searches: its own values, else those that the strategy declares.

    Raises UnknownName for a parameter that the strategy has not, Refused where nothing is searched, a parameter has no
    values or one that it never takes, or a grid is too large.
    """
    known = parameter_names(strategy)
    for field, names in (("space", request.space), ("params", request.params)):
        for name in names:
            if name not in known:
                raise UnknownName.among(f"{field}.{name}", name, known)
    declared: dict[str, Any] = {**strategy.search_space, **request.space}
    values = {
        name: _values(name, declared[name])
        for name in known
        if name in declared and name not in request.params
    }
    if not values:
        allowed = f"values for {', '.join(known)}" if known else f"{request.strategy} has no parameters"
        message = "names nothing to search, and the strategy declares nothing: give it values"
        raise Refused.of(Problem("space", request.space, message, allowed=allowed))
    space = SearchSpace(values, dict(request.params))
    some = {**space.fixed, **{name: several[0] for name, several in values.items()}}
    for name, value in request.params.items():
        _require_taken(strategy, f"params.{name}", name, [value], some)
    for name in request.space:
        _require_taken(strategy, f"space.{name}", name, values[name], some)
    if request.method == "grid" and space.size > LARGEST_GRID:
        message = f"has {space.size:,} combinations"
        allowed = f"at most {LARGEST_GRID:,} in a grid; method random draws from more"
        raise Refused.of(Problem("space", None, message, allowed=allowed))
    return space


def trial_numbers(space: SearchSpace, request: OptimizeRequest) -> list[int]:
    """Return the combinations to try, in order: all of a grid, or so many drawn without repetition by the seed."""
    if request.method == "grid":
        return list(range(space.size))
    wanted = min(request.trials or DEFAULT_DRAWS, space.size)
    random = np.random.default_rng(request.seed)
    if space.size <= LARGEST_GRID:
        drawn: list[int] = random.permutation(space.size)[:wanted].tolist()
        return drawn
    found: dict[int, None] = {}
    while len(found) < wanted:  # of so many combinations, few are drawn twice
        found.setdefault(space.number([int(random.integers(length)) for length in space.shape]))
    return list(found)


def _values(name: str, given: ValueRange | Sequence[ParamValue]) -> tuple[ParamValue, ...]:
    if isinstance(given, ValueRange):
        if not _within_grid(given):
            message = f"has more than {LARGEST_GRID:,} values"
            raise Refused.of(Problem(f"space.{name}", None, message, allowed=f"at most {LARGEST_GRID:,}"))
        count = math.floor((given.high - given.low) / given.step + 1e-9) + 1
        return tuple(given.low + given.step * k for k in range(count))
    values = tuple(dict.fromkeys(given))
    if not values:
        raise Refused.of(
            Problem(f"space.{name}", [], "has no values", allowed='a list, or {"low", "high", "step"}')
        )
    return values


def _within_grid(given: ValueRange) -> bool:
    try:
        return math.floor((given.high - given.low) / given.step + 1e-9) < LARGEST_GRID
    except OverflowError:
        return False


def _require_taken(
    strategy: type[Strategy], field: str, name: str, values: Sequence[ParamValue], others: Mapping[str, Any]
) -> None:
    """Raise Refused for the first of the values that the parameter takes in no combination.

    What only some combinations refuse (fast not below slow) is theirs to refuse, one by one.
    """
    for value in values:
        try:
            strategy.model_validate({**others, name: value})
        except ValidationError as error:
            own = [complaint for complaint in error.errors() if complaint["loc"][:1] == (name,)]
            if own:
                raise Refused.of(Problem(field, value, own[0]["msg"].removeprefix("Value error, "))) from None
