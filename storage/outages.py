"""A database that is away for a while (restarted, failed over): telling that from other errors, and outlasting it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

_PAUSE: Final = 0.25

#: SQLSTATE classes of a server that shuts down or starts up, and of lost connections.
_CLASSES: Final = ("57P", "08")

_now, _sleep = time.monotonic, time.sleep


class Patient(Protocol):
    """Who outlasts outages: `patience` is for how many seconds (0: not at all)."""

    patience: float


Given = ParamSpec("Given")
Result = TypeVar("Result")
Store = TypeVar("Store", bound=Patient)


def is_away(error: DBAPIError) -> bool:
    """Return whether the server did not answer, or went away under us; a full disk, say, is another matter."""
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    return state is None or state.startswith(_CLASSES)


def outlasting(
    method: Callable[Concatenate[Store, Given], Result],
) -> Callable[Concatenate[Store, Given], Result]:
    """Call a store's method again while the database is away, as long as the store has patience.

    For what may be done twice: whether the first try was committed cannot be known.
    """

    @functools.wraps(method)
    def patiently(self: Store, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        end = _now() + self.patience
        while True:
            try:
                return method(self, *args, **kwargs)
            except DBAPIError as error:
                if not is_away(error) or _now() >= end:
                    raise
            _sleep(_PAUSE)

    return patiently
