"""Which combinations of parameters there are to try, numbered, so that a trial is known by one integer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from gpt_trader.errors import Problem, Refused, UnknownName
from gpt_trader.requests import OptimizeRequest, ParamValue, ValueRange
from gpt_trader.strategies.base import Strategy
from gpt_trader.strategies.registry import parameter_names

#: Each trial keeps 100 bytes in memory and 512 in a file: so many are 25 and 128 MB.
LARGEST_GRID: Final = 250_000
#: Combinations that any search may have: their numbers are 64-bit.
LARGEST_SPACE: Final = 2**63 - 1
DEFAULT_DRAWS: Final = 200

#: So many consecutive values of each parameter make a neighborhood: the indicators of two fit a core's cache.
_NEIGHBORS: Final = 16
#: The square of a larger space is beyond 64 bits.
_MOST_NUMBERED: Final = 2**31

Places = NDArray[np.int64]


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
        chosen = dict(self.fixed)
        for name, values, step, many in self._steps:
            chosen[name] = values[number // step % many]
        return chosen

    @cached_property
    def _steps(self) -> list[tuple[str, tuple[ParamValue, ...], int, int]]:
        """Return the searched parameters: values, by how much a number grows from one to the next, how many."""
        found: list[tuple[str, tuple[ParamValue, ...], int, int]] = []
        step = 1
        for name, values in reversed(list(self.values.items())):
            found.append((name, values, step, len(values)))
            step *= len(values)
        return found[::-1]

    def places(self, number: int) -> tuple[int, ...]:
        """Return for each searched parameter the place of its value, from 0."""
        places = []
        for length in reversed(self.shape):
            number, place = divmod(number, length)
            places.append(place)
        return tuple(reversed(places))

    def places_of(self, numbers: Sequence[int] | Places) -> Places:
        """Return `places` of many combinations at once, (m, parameters)."""
        left = np.asarray(numbers, np.int64)
        places = np.empty((len(left), len(self.shape)), np.int64)
        for column in range(len(self.shape) - 1, -1, -1):
            left, places[:, column] = np.divmod(left, self.shape[column])
        return places

    def by_neighborhood(self, numbers: Places) -> list[int]:
        """Return an order of these combinations, as indexes, in which neighbors come one after another.

        What depends on one value of a parameter, an indicator say, is then asked for again while it is in a processor's
        cache. The order says nothing else.
        """
        if self.size > _MOST_NUMBERED:  # of so many, those that are tried are no neighbors
            return list(range(len(numbers)))
        corner = np.zeros(len(numbers), np.int64)
        for column, length in zip(self.places_of(numbers).T // _NEIGHBORS, self.shape, strict=True):
            corner = corner * -(-length // _NEIGHBORS) + column
        order: list[int] = np.argsort(corner * self.size + numbers, kind="stable").tolist()
        return order

    def number(self, places: Sequence[int]) -> int:
        """Return the number of the combination with the values at these places."""
        number = 0
        for place, length in zip(places, self.shape, strict=True):
            number = number * length + place
        return number


def search_space(strategy: type[Strategy], request: OptimizeRequest) -> SearchSpace:
    """Return what a request searches: its own values, else those that the strategy declares.

    Raises UnknownName for a parameter that the strategy has not, Refused where nothing is searched, a parameter has no
    values or one that it never takes, or a grid is too large.
    """
    known = parameter_names(strategy)
    for field, names in (
        ("space", request.space),
        ("params", request.params),
        ("search_space", strategy.search_space),
    ):
        for name in names:
            if name not in known:
                raise UnknownName.among(f"{field}.{name}", name, known)
    declared: dict[str, Any] = {**strategy.search_space, **request.space}
    values = {
        name: _values(name, declared[name], strategy.model_fields[name].annotation)
        for name in known
        if name in declared and name not in request.params
    }
    if not values:
        allowed = f"values for {', '.join(known)}" if known else f"{request.strategy} has no parameters"
        message = "names nothing to search, and the strategy declares nothing: give it values"
        raise Refused.of(Problem("space", request.space, message, allowed=allowed))
    space = SearchSpace(values, dict(request.params))
    if space.size > LARGEST_SPACE:
        message = f"has {space.size:.1e} combinations"
        raise Refused.of(
            Problem("space", None, message, allowed=f"at most {LARGEST_SPACE:.1e}: coarser steps")
        )
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


def trial_numbers(space: SearchSpace, request: OptimizeRequest) -> Sequence[int]:
    """Return the combinations to try, in order: all of a grid, or so many drawn without repetition by the seed."""
    if request.method == "grid":
        return range(space.size)
    wanted = min(request.trials or DEFAULT_DRAWS, space.size)
    random = np.random.default_rng(request.seed)
    if space.size <= 4 * LARGEST_GRID:
        drawn: list[int] = random.permutation(space.size)[:wanted].tolist()
        return drawn
    found: dict[int, None] = {}
    while len(found) < wanted:  # of so many combinations, few are drawn twice
        found.setdefault(space.number([int(random.integers(length)) for length in space.shape]))
    return list(found)


def _values(name: str, given: ValueRange | Sequence[ParamValue], kind: object) -> tuple[ParamValue, ...]:
    """Return the values of a parameter of this type, each once, numbers in order: neighbors are then near."""
    if isinstance(given, ValueRange):
        if not _within_grid(given):
            message = f"has more than {LARGEST_GRID:,} values"
            raise Refused.of(Problem(f"space.{name}", None, message, allowed=f"at most {LARGEST_GRID:,}"))
        count = math.floor((given.high - given.low) / given.step + 1e-9) + 1
        return tuple(given.low + given.step * k for k in range(count))
    values = tuple(dict.fromkeys(_plain(value, kind) for value in given))
    if all(type(value) in (int, float) for value in values):
        values = tuple(sorted(values))
    if not values:
        raise Refused.of(
            Problem(f"space.{name}", [], "has no values", allowed='a list, or {"low", "high", "step"}')
        )
    return values


def _plain(value: Any, kind: object) -> ParamValue:  # noqa: ANN401 - whatever a strategy declares
    """Return a value as Python has it (numpy's too), and a number that is text as the number it is meant for."""
    plain: ParamValue = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, str) and kind in (int, float):
        try:
            return int(plain) if kind is int else float(plain)
        except ValueError:  # the strategy says what is wrong with it
            return plain
    return plain


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
        except Exception:  # noqa: BLE001, S112 - a user's validator: such a trial fails by itself, and is counted
            continue
