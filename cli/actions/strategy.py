"""What the `strategy` commands do. The registry is part of this program: no engine is needed to read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cli.client.api import Json
from cli.client.connect import connect, is_remote
from cli.terminal.render import emit, grid, listing, shown
from gpt_trader.strategies import registry, user
from gpt_trader.strategies.description import describe

if TYPE_CHECKING:
    from rich.console import RenderableType


def show_strategies() -> None:
    """List every strategy with its parameters."""
    if is_remote():
        with connect() as client:
            items = client.strategies()
    else:
        items = [describe(name, registry.strategy_type(name)) for name in registry.strategy_names()]
    columns = {"name": "strategy", "origin": "origin", "summary": "what it does"}
    if not is_remote():
        columns["defaults"] = "parameters"
    listing(items, columns, empty="no strategies")


def show_strategy(name: str) -> None:
    """Show one strategy, a parameter a row."""
    if user.is_file_reference(name):
        path, class_name = user.split_reference(name)
        found = describe(class_name, user.load_file(path.expanduser().absolute(), class_name), "user")
    elif is_remote():
        with connect() as client:
            found = client.strategy(name)
    else:
        found = describe(name, registry.strategy_type(name))
    rows = _parameter_rows(found)
    emit(found, table=lambda: _view(found, rows), rows=lambda: rows)


def _parameter_rows(found: Mapping[str, Any]) -> list[Json]:
    properties: Mapping[str, Any] = (found.get("parameters") or {}).get("properties", {})
    defaults, tried = found.get("defaults") or {}, found.get("search_space") or {}
    return [
        {
            "parameter": name,
            "default": defaults.get(name, "required"),
            "type": facts.get("type", ""),
            "limits": _limits(facts),
            "search": shown(tried[name]) if name in tried else "",
            "meaning": facts.get("description", ""),
        }
        for name, facts in properties.items()
    ]


def _limits(facts: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join(f"{sign} {shown(facts[name])}" for name, sign in signs.items() if name in facts)


def _view(found: Mapping[str, Any], rows: list[Json]) -> Iterable[RenderableType]:
    yield f"{found['name']}: {found.get('summary') or ''}"
    if found.get("description"):
        yield ""
        yield str(found["description"])
    yield ""
    if not rows:
        yield "It takes no parameters."
        return
    headings = {"parameter": "parameter", "default": "default", "limits": "limits"}
    yield grid(rows, headings | {"search": "search space", "meaning": "meaning"})
