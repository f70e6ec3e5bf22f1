"""Where heavy calls are made: in the caller's own thread, unless the flow's task runner has named another place.

A task stays in its flow's process, where Prefect records it and where what it finds is kept; only the computing goes
elsewhere. So another process or machine needs the code and nothing more: no database, no Prefect, no lake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Protocol, TypeVar

Found = TypeVar("Found")


class Place(Protocol):
    """Makes calls somewhere, for any number of threads at once."""

    def call(self, what: str, function: Callable[..., Found], shared: object, *rest: object) -> Found:
        """Return `function(shared, *rest)`; all of it can be pickled.

        `what` names the call where it goes wrong, `shared` is the same object in many calls.
        """


_place: Final[ContextVar[Place | None]] = ContextVar("place", default=None)


@contextmanager
def computing_at(place: Place | None) -> Iterator[None]:
    """Have `compute` make its calls there, in this context and in those copied from it (None: where they stand)."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


def compute(what: str, function: Callable[..., Found], shared: object, *rest: object) -> Found:
    """Return `function(shared, *rest)`, computed wherever the flow's task runner says; see `Place.call`."""
    place = _place.get()
    return function(shared, *rest) if place is None else place.call(what, function, shared, *rest)
