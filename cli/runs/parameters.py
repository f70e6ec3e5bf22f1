"""Reads `NAME=VALUE` words of the command line into the fields of a request, typed by the model that owns them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from gpt_trader.errors import Problem, Refused, UnknownName
from gpt_trader.requests import Request
from gpt_trader.strategies.base import Direction, Strategy
from gpt_trader.strategies.registry import build, parameter_names


def pairs(words: Iterable[str], *, option: str = "param") -> dict[str, str]:
    """Return `NAME=VALUE` words by name; raise Refused naming each that is none, is empty or comes twice."""
    found: dict[str, str] = {}
    problems = []
    for word in words:
        name, equals, value = (part.strip() for part in word.partition("="))
        if not (name and equals and value):
            problems.append(Problem(option, word, "is not NAME=VALUE", allowed=f"e.g. --{option} fast=10"))
        elif name in found:
            problems.append(Problem(option, word, f"{name} is given twice"))
        found[name] = value
    if problems:
        raise Refused.of(*problems)
    return found


def typed(strategy: type[Strategy], given: Mapping[str, Any], direction: Direction) -> dict[str, Any]:
    """Return the given parameters with the types that the strategy declares.

    The strategy is built as the engine will build it, so what the engine would refuse is refused here: unknown
    names, values out of range, rules between parameters (fast < slow).
    """
    built = build(strategy, given, direction).params()
    return {name: built[name] for name in given}


def literal(text: str) -> bool | int | float | str:
    """Return what a word means where nobody declares its type: a truth value, a whole number, a number, or text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def spaces(words: Iterable[str]) -> dict[str, Any]:
    """Return `NAME=VALUES` words by name: a list from `5,10,20`, a range from `low:high` or `low:high:step`.

    Raises Refused naming each that is neither, is empty or comes twice.
    """
    return {name: _values(name, text) for name, text in pairs(words, option="space").items()}


def _values(name: str, text: str) -> Any:  # noqa: ANN401 - a list or a mapping
    if ":" not in text:
        return [literal(part) for part in _listed(text)]
    parts = [literal(part.strip()) for part in text.split(":")]
    if len(parts) not in (2, 3) or not all(type(part) in (int, float) for part in parts):
        allowed = f"e.g. --space {name}=5,10,20 or --space {name}=5:50:5"
        raise Refused.of(
            Problem(f"space.{name}", text, "is neither a list nor low:high:step", allowed=allowed)
        )
    return dict(zip(("low", "high", "step"), parts, strict=False))


def fields_of(
    model: type[Request], given: Mapping[str, str], parameters: Iterable[str] = ()
) -> dict[str, Any]:
    """Spread flat names over a request: `start=…` is a field, `params.fast=…` an entry of a field that is a mapping.

    So are `space.fast=5:50:5` (as `spaces` reads it), `walk_forward.windows=8` and `risk.drawdown=0.2`. A field that is
    a list of records takes JSON: `legs=[{"symbol": "AAPL"}]`.

    A name that is no field but one of `parameters` (of the strategy) goes into `params`. Lists are separated by
    commas. Raises UnknownName with the nearest field or parameter.
    """
    known = list(parameters)
    values: dict[str, Any] = {}
    for name, value in given.items():
        field, dot, entry = name.partition(".")
        if dot and _is_mapping(model, field):
            values.setdefault(field, {})[entry] = _values(entry, value) if field == "space" else value
        elif name in model.model_fields and _is_records(model, name):
            values[name] = _records(name, value)
        elif name in model.model_fields and not _is_mapping(model, name):
            values[name] = _listed(value) if _is_list(model, name) else value
        elif name in known:
            values.setdefault("params", {})[name] = value
        else:
            fields = [f for f in model.model_fields if f != "schema_version"]
            raise UnknownName.among("param", name, [*(_spelled(model, f) for f in fields), *known], shown=40)
    return values


def strategy_parameters(strategy: type[Strategy] | None) -> list[str]:
    """Return the names of a strategy's parameters; none where the strategy is not known here."""
    return parameter_names(strategy) if strategy else []


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _spelled(model: type[Request], field: str) -> str:
    """Return how a field is given: by its name, by entries, or as JSON."""
    if _is_records(model, field):
        return f"{field}=JSON"
    return f"{field}.NAME" if _is_mapping(model, field) else field


def _records(field: str, text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list):
        allowed = f"""e.g. --param '{field}=[{{"symbol": "AAPL", "strategy": "momentum"}}]'"""
        raise Refused.of(Problem(field, text, "is not a JSON list", allowed=allowed))
    return found


def _kinds(model: type[Request], field: str) -> Iterator[Any]:
    """Yield what a field may be: its type, or those of a union."""
    annotation = model.model_fields[field].annotation
    yield annotation
    if get_origin(annotation) not in (list, tuple, dict):
        yield from get_args(annotation)


def _is_mapping(model: type[Request], field: str) -> bool:
    if field not in model.model_fields:
        return False
    return any(get_origin(kind) is dict or _is_model(kind) for kind in _kinds(model, field))


def _is_list(model: type[Request], field: str) -> bool:
    return any(get_origin(kind) in (tuple, list) for kind in _kinds(model, field))


def _is_records(model: type[Request], field: str) -> bool:
    lists = (kind for kind in _kinds(model, field) if get_origin(kind) in (tuple, list))
    return any(_is_model(part) for kind in lists for part in get_args(kind))


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
