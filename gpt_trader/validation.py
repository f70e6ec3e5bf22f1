"""Turns pydantic's complaints into ours: the field, the value, what is allowed and the nearest valid name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gpt_trader.errors import Problem, Refused, UnknownName

#: Problems that one refusal names: whoever sends a million wrong fields is not told of each.
MOST_PROBLEMS: Final = 20
_MOST_TOLD_APART: Final = 1000

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], values: Mapping[str, Any], *, prefix: str = "") -> Model:
    """Return `model(**values)`; raise Refused that names every wrong field (as `prefix` + name).

    UnknownName where all that is wrong is a name: validators raise PydanticCustomError of the type `unknown_name`, with
    `allowed` and `nearest`.
    """
    try:
        # What `model_validate` calls: its own arguments take as long to look at as a strategy's parameters do.
        found: Model = model.__pydantic_validator__.validate_python(
            values if isinstance(values, dict) else dict(values)
        )
    except ValidationError as error:
        if error.error_count() > _MOST_TOLD_APART:
            message = f"has {error.error_count():,} problems"
            raise Refused.of(Problem(prefix.rstrip(".") or "request", None, message)) from None
        complaints = error.errors(include_url=False)
        names = all(complaint["type"] == "unknown_name" for complaint in complaints)
        raise (UnknownName if names else Refused).of(*_problems(complaints, model, prefix)) from None
    return found


def _problems(complaints: Sequence[ErrorDetails], model: type[BaseModel], prefix: str) -> list[Problem]:
    """Return a Problem for each complaint of pydantic, of many the first; unknown fields get the nearest known one."""
    problems = [_problem(dict(complaint), model, prefix) for complaint in complaints[:MOST_PROBLEMS]]
    if len(complaints) > MOST_PROBLEMS:
        left = len(complaints) - MOST_PROBLEMS
        problems.append(Problem(prefix.rstrip(".") or "request", None, f"has {left:,} more problems"))
    return problems


def _problem(complaint: dict[str, Any], model: type[BaseModel], prefix: str) -> Problem:
    # Pydantic's own: a tag of a union of ours, and what says that a mapping's key is meant, not its value.
    location = [
        part for part in map(str, complaint["loc"]) if not part.startswith("function-") and part != "[key]"
    ]
    name = prefix + ".".join(location) if location else prefix.rstrip(".") or "request"
    if complaint["type"] == "extra_forbidden":
        fields = list(_model_at(model, location[:-1]).model_fields)
        close = get_close_matches(location[-1], fields, n=1, cutoff=0.5)
        return Problem(
            name,
            complaint["input"],
            "is not a known field",
            allowed=", ".join(fields) or "no fields",
            nearest=close[0] if close else None,
        )
    context = complaint.get("ctx", {})
    message = str(complaint["msg"]).removeprefix("Value error, ")
    value = complaint["input"] if location else None
    allowed = context.get("allowed")
    if complaint["type"] == "unknown_name":
        return Problem(name, value, message, allowed=allowed, nearest=context.get("nearest"))
    if complaint["type"] == "literal_error":
        allowed = str(context.get("expected", "")).replace(" or ", ", ").replace("'", "")
    nearest = context.get("nearest")
    if allowed and nearest is None and complaint["type"] != "value" and isinstance(value, str):
        close = get_close_matches(value, allowed.split(", "), n=1, cutoff=0.5)
        nearest = close[0] if close else None
    return Problem(name, value, message, allowed=allowed, nearest=nearest)


def _model_at(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """Return the model whose field a complaint is about: one inside of `model`, if the path leads into it."""
    for name in path:
        if name in model.model_fields:
            model = next(_models_in(model.model_fields[name].annotation), model)
    return model


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
