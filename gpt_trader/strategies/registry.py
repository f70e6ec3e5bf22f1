"""Finds strategies by name: the built-in ones, plugins of the entry-point group, and a user's own files."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from gpt_trader.errors import Refused, UnknownName
from gpt_trader.strategies.base import Direction, Strategy
from gpt_trader.validation import validated

ENTRY_POINT_GROUP: Final = "gpt_trader.strategies"

#: Loaded on demand, so that a list of names costs no import.
BUILT_IN: Final[Mapping[str, str]] = {
    "ma_crossover": "gpt_trader.strategies.ma_crossover:MaCrossover",
    "momentum": "gpt_trader.strategies.momentum:Momentum",
    "mean_reversion": "gpt_trader.strategies.mean_reversion:MeanReversion",
    "volatility": "gpt_trader.strategies.volatility:Volatility",
    "breakout": "gpt_trader.strategies.breakout:Breakout",
}


def strategy_names() -> list[str]:
    """Return every registered name, built-in first, then plugins in order of name."""
    plugins = sorted(e.name for e in entry_points(group=ENTRY_POINT_GROUP) if e.name not in BUILT_IN)
    return [*BUILT_IN, *plugins]


def strategy_type(name: str) -> type[Strategy]:
    """Return the class registered under `name`; raise UnknownName with the nearest one."""
    spelled = name.replace("-", "_")
    if spelled in BUILT_IN:
        module, _, attribute = BUILT_IN[spelled].partition(":")
        found = getattr(import_module(module), attribute)
    else:
        plugins = {e.name: e for e in entry_points(group=ENTRY_POINT_GROUP)}
        if name not in plugins:
            raise UnknownName.among(
                "strategy", name, strategy_names(), hint="your own is given as ./file.py:ClassName"
            )
        try:
            found = plugins[name].load()
        except Exception as error:
            raise Refused(
                f"plugin {plugins[name].value} of strategy {name!r} does not load: {type(error).__name__}: {error}"
            ) from error
    return checked_type(found, name)


def checked_type(found: object, name: str) -> type[Strategy]:
    """Return `found` if it is a usable Strategy class; raise Refused otherwise."""
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise Refused(
            f"strategy {name!r} is {found!r}, not a subclass of gpt_trader.strategies.base.Strategy"
        )
    if getattr(found, "__abstractmethods__", None):
        raise Refused(f"strategy {name!r} does not define targets(self, bars, first)")
    return found


def build(strategy: type[Strategy], params: Mapping[str, Any], direction: Direction = "long") -> Strategy:
    """Return an instance; raise Refused naming each unknown or invalid parameter as `params.NAME`."""
    if "direction" in params:
        raise UnknownName.among(
            "params.direction", "direction", parameter_names(strategy), hint="direction is its own option"
        )
    instance = validated(strategy, params, prefix="params.")
    same = instance.direction == direction  # the default: a copy would take as long as all the rest
    return instance if same else instance.model_copy(update={"direction": direction})


def parameter_names(strategy: type[Strategy]) -> list[str]:
    """Return the names of a strategy's parameters, in order of declaration."""
    return [name for name in strategy.model_fields if name != "direction"]
