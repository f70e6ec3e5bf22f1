"""Checks a request before anything is started, with the very models that the engine uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.client.connect import is_remote
from cli.runs.parameters import fields_of, literal, strategy_parameters, typed
from gpt_trader.errors import Refused, UnknownName
from gpt_trader.requests import OptimizeRequest, Request
from gpt_trader.validation import validated

if TYPE_CHECKING:
    from cli.client.api import Client
    from gpt_trader.strategies.base import Strategy


@dataclass(frozen=True)
class StrategyFile:
    """A strategy file of the user's that goes to the engine with the run."""

    path: Path
    source: str


@dataclass(frozen=True)
class Prepared:
    """A request that passed every check that needs no engine, and what must be stored before it is sent."""

    request: Request
    strategy_files: tuple[StrategyFile, ...] = ()

    @property
    def body(self) -> dict[str, Any]:
        """The request as sent: what was given; defaults are the engine's to fill in."""
        return self.request.model_dump(mode="json", exclude_unset=True)

    def register(self, client: Client) -> None:
        """Store the strategies' files in the engine, so that the run finds each by its hash."""
        for file in self.strategy_files:
            client.register_strategy(file.path.name, file.source)


def prepare(model: type[Request], values: Mapping[str, Any]) -> Prepared:
    """Return the checked request of `values` (by field; None is not given); raise Refused naming what is wrong."""
    given = {name: value for name, value in values.items() if value is not None}
    if "legs" in model.model_fields:
        return _prepare_legs(model, given)
    if "strategy" not in model.model_fields:
        return Prepared(validated(model, given))
    request = validated(model, given)
    named: str | None = request.strategy  # type: ignore[attr-defined] # it has the field, see above
    if named is None:
        return Prepared(request)
    strategy, file, stored = _strategy(named)
    params = given.get("params") or {}
    if strategy is None or model is OptimizeRequest:  # part of a combination is no strategy yet
        params = {name: literal(v) if isinstance(v, str) else v for name, v in params.items()}
    else:
        params = typed(strategy, params, getattr(request, "direction", "long"))
    changed = given | {"strategy": stored} | ({"params": params} if params else {})
    checked = validated(model, changed)
    if strategy is not None and isinstance(checked, OptimizeRequest):
        from gpt_trader.optimization.space import search_space

        search_space(strategy, checked)
    return Prepared(checked, (file,) if file else ())


def _prepare_legs(model: type[Request], given: Mapping[str, Any]) -> Prepared:
    """Prepare a request of several strategies, one a leg, each with its parameters."""
    request: Any = validated(model, given)
    legs, files = [], {}
    for leg in request.legs:
        strategy, file, stored = _strategy(leg.strategy)
        if strategy is None:
            params = {name: literal(v) if isinstance(v, str) else v for name, v in leg.params.items()}
        else:
            params = typed(strategy, leg.params, request.direction)
        if file is not None:
            files[stored] = file
        row = {"symbol": leg.symbol, "strategy": stored, "weight": leg.weight}
        legs.append(row | ({"params": params} if params else {}))
    if not legs:
        return Prepared(request)
    short = ("symbol", "symbols", "strategy", "params")
    named = {name: value for name, value in given.items() if name not in short}
    return Prepared(validated(model, named | {"legs": legs}), tuple(files.values()))


def prepare_flat(model: type[Request], given: Mapping[str, str]) -> Prepared:
    """Return the checked request of flat `NAME=VALUE`s (see `cli.runs.parameters.fields_of`)."""
    parameters: list[str] = []
    if "strategy" in model.model_fields:
        named = given.get("strategy") or model.model_fields["strategy"].default
        parameters = strategy_parameters(_strategy(named)[0]) if named else []
        if not parameters and is_remote():
            parameters = [name for name in given if name not in model.model_fields and "." not in name]
    return prepare(model, fields_of(model, given, parameters))


def prepare_check(name: str, values: Mapping[str, Any]) -> tuple[str, Prepared]:
    """Return the name by which the engine knows a strategy, and the checked request to try it; errors as `prepare`."""
    from gpt_trader.strategies.check_request import CheckRequest

    given = {field: value for field, value in values.items() if value is not None}
    request = validated(CheckRequest, given)
    strategy, file, stored = _strategy(name)
    params = given.get("params") or {}
    if strategy is None:
        params = {field: literal(v) if isinstance(v, str) else v for field, v in params.items()}
    else:
        params = typed(strategy, params, request.direction)
    return stored, Prepared(validated(CheckRequest, given | {"params": params}), (file,) if file else ())


def _strategy(name: str) -> tuple[type[Strategy] | None, StrategyFile | None, str]:
    """Return class (None: only the server knows it), file to send, and the name by which the engine knows it."""
    from gpt_trader.strategies import registry, user

    if user.parse_stored_id(name):
        return None, None, name
    if user.is_file_reference(name):
        return _from_file(name)
    try:
        return registry.strategy_type(name), None, name
    except UnknownName:
        if is_remote():  # it may have plugins that we lack: the server decides
            return None, None, name
        raise


def _from_file(name: str) -> tuple[type[Strategy], StrategyFile, str]:
    from gpt_trader.strategies import user

    path, class_name = user.split_reference(name)
    path = path.expanduser().absolute()
    strategy = user.load_file(path, class_name)
    source = path.read_bytes()
    try:
        text = source.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(f"{path} is not UTF-8 text") from None
    return strategy, StrategyFile(path, text), user.stored_id(source, class_name)
