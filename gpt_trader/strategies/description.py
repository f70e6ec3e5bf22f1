"""What there is to know of a strategy, in the one shape that every face shows."""

from __future__ import annotations

import inspect
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from gpt_trader.strategies.base import Strategy
from gpt_trader.strategies.registry import BUILT_IN, parameter_names

Origin = Literal["built-in", "plugin", "user"]


def summarize(name: str, strategy: type[Strategy], origin: Origin | None = None) -> dict[str, Any]:
    """Return `name`, `summary` and `origin` of a strategy known as `name`: what a list shows.

    Args:
        name: Under which it was asked for; a class that has no name of its own goes by it.
        strategy: The class.
        origin: Where it comes from, if it is not in the registry.
    """
    own = getattr(strategy, "name", "") or name
    return {
        "name": own,
        "summary": strategy.summary,
        "origin": origin or ("built-in" if own in BUILT_IN else "plugin"),
    }


def describe(name: str, strategy: type[Strategy], origin: Origin | None = None) -> dict[str, Any]:
    """Return everything needed to ask for a run of a strategy, JSON-ready; the arguments are `summarize`'s.

    Beside the summary's fields: `description` (its docstring), `parameters` (the JSON schema of `params`), `defaults`
    (of the parameters that have one), `search_space`, and `warmup` (bars before a first decision with the defaults;
    None where the defaults alone make no instance).
    """
    instance = _by_default(strategy)
    return summarize(name, strategy, origin) | {
        "description": inspect.cleandoc(strategy.__doc__ or ""),
        "parameters": _schema(strategy),
        "defaults": instance.params() if instance else _declared_defaults(strategy),
        "search_space": {field: list(values) for field, values in strategy.search_space.items()},
        "warmup": instance.warmup if instance else None,
    }


def _by_default(strategy: type[Strategy]) -> Strategy | None:
    try:
        return strategy()
    except ValidationError:  # a parameter without a default, or defaults that a rule between them refuses
        return None


def _declared_defaults(strategy: type[Strategy]) -> dict[str, Any]:
    return {
        name: to_jsonable_python(strategy.model_fields[name].get_default(call_default_factory=True))
        for name in parameter_names(strategy)
        if not strategy.model_fields[name].is_required()
    }


def _schema(strategy: type[Strategy]) -> dict[str, Any]:
    """Return the JSON schema of `params` alone: the direction is a field of the request."""
    schema = strategy.model_json_schema()
    schema["properties"] = {name: schema["properties"][name] for name in parameter_names(strategy)}
    return {name: schema[name] for name in ("type", "properties", "required", "$defs") if name in schema} | {
        "additionalProperties": False
    }
