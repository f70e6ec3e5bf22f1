"""TA-Lib's functions by name, its complaints turned into ours. TA-Lib is imported when the first one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpt_trader.errors import Problem, Refused, UnknownName


def function_named(name: str, params: Mapping[str, float]) -> Any:  # noqa: ANN401 - TA-Lib's own, which names no type
    """Return TA-Lib's abstract function with its parameters set; raise UnknownName or Refused where it has no such."""
    import talib
    from talib import abstract

    known: list[str] = talib.get_functions()  # type: ignore[no-untyped-call] # its stub has no types
    if name.upper() not in known:
        raise UnknownName.among("name", name, known)
    function = abstract.Function(name.upper())  # type: ignore[attr-defined] # its stub lacks it
    for key in params:
        if key not in function.parameters:
            raise UnknownName.among(f"{name}.{key}", key, list(function.parameters))
    called(name, lambda: setattr(function, "parameters", dict(params)))
    return function


def called(name: str, call: Callable[[], object]) -> object:
    """Return what TA-Lib gives; its errors are plain exceptions with a code in their text."""
    try:
        return call()
    except Exception as error:
        raise not_taken(name, f"is refused by TA-Lib: {error}") from error


def not_taken(name: str, message: str) -> Refused:
    """Return the refusal of parameters."""
    return Refused.of(
        Problem("params", name, f"{name} {message}", allowed="periods that TA-Lib takes, e.g. 14")
    )
