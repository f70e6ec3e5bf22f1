"""Asks for what a backtest was not given: choices and defaults shown, answers checked one by one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pydantic.fields import FieldInfo

from cli.client.connect import running
from cli.runs.parameters import typed
from gpt_trader.errors import GptTraderError, Refused
from gpt_trader.requests import BacktestRequest
from gpt_trader.strategies import registry, user
from gpt_trader.validation import validated

if TYPE_CHECKING:
    from rich.console import Console

    from gpt_trader.strategies.base import Strategy

#: Asked in this order, after symbol, strategy and its parameters.
_FIELDS: Final = (
    "start",
    "end",
    "direction",
    "capital",
    "commission",
    "slippage",
    "size",
    "stop_loss",
    "take_profit",
)


def ask(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` with an answer for each field that is None; an empty answer keeps the default.

    Raises:
        Refused: standard input or stderr is no terminal: there is nobody to ask.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused("--interactive needs a terminal to ask on: give the options instead (backtest --help)")
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    console.print("Enter keeps what is in brackets; Ctrl-C leaves.")
    values = dict(given)
    if values["symbol"] is None:
        console.print(_symbols_hint())
        values["symbol"] = _until_valid(console, "symbol", "AAPL", lambda text: _field("symbol", text))
    strategy = _ask_strategy(console, values)
    values["params"] = _ask_params(console, strategy, values["params"] or {})
    for name in _FIELDS:
        if values[name] is None:
            facts = BacktestRequest.model_fields[name]
            values[name] = _until_valid(console, _label(name, facts), _default(facts), _checker(name, values))
    return values


def _ask_strategy(console: Console, values: dict[str, Any]) -> type[Strategy]:
    if values["strategy"] is None:
        names = registry.strategy_names()
        for name in names:
            console.print(f"  {name}: {registry.strategy_type(name).summary}")
        values["strategy"] = _until_valid(
            console, "strategy", str(BacktestRequest.model_fields["strategy"].default), _known_strategy
        )
    return _strategy_type(values["strategy"])


def _ask_params(
    console: Console, strategy: type[Strategy], given: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Ask for each parameter by itself, then have the whole checked (fast < slow); ask again if it is refused."""
    while True:
        params = dict(given)
        for name in registry.parameter_names(strategy):
            if name not in given:
                facts = strategy.model_fields[name]
                answer = _until_valid(console, _label(name, facts), _default(facts), lambda text: text)
                if answer is not None:
                    params[name] = answer
        try:
            return typed(strategy, params, "long") or None
        except GptTraderError as error:
            console.print(error.detail)
            if not set(registry.parameter_names(strategy)) - set(given):
                raise


def _until_valid(console: Console, label: str, default: str, check: Callable[[str], object]) -> str | None:
    while True:
        answer = console.input(f"{label} [{default}]: ", markup=False).strip()
        if not answer and default not in ("", "none"):
            return default if label in ("symbol", "strategy") else None
        if not answer:
            return None
        try:
            check(answer)
        except GptTraderError as error:
            console.print(error.detail)
        else:
            return answer


def _checker(name: str, values: Mapping[str, Any]) -> Callable[[str], object]:
    """Check a field together with the one it depends on: an end lies after its start."""
    known = {other: values[other] for other in ("start",) if values.get(other) is not None}
    return lambda text: validated(BacktestRequest, {"symbol": "AAPL", **known, name: text})


def _field(name: str, text: str) -> object:
    return validated(BacktestRequest, {"symbol": "AAPL", name: text})


def _known_strategy(name: str) -> object:
    return _strategy_type(name)


def _strategy_type(name: str) -> type[Strategy]:
    if user.is_file_reference(name):
        path, class_name = user.split_reference(name)
        return user.load_file(path.expanduser().absolute(), class_name)
    return registry.strategy_type(name)


def _label(name: str, facts: FieldInfo) -> str:
    described = (facts.description or "").partition(";")[0].rstrip(".")
    return (
        f"{name.replace('_', ' ')}, {described[0].lower()}{described[1:]}"
        if described
        else name.replace("_", " ")
    )


def _default(facts: FieldInfo) -> str:
    if facts.is_required():
        return ""
    value = facts.get_default(call_default_factory=True)
    return "none" if value is None else str(value)


def _symbols_hint() -> str:
    with suppress(GptTraderError):
        client = running()
        if client is not None:
            with client:
                names = [str(item["symbol"]) for item in client.symbols()]
            return (
                f"in the lake: {', '.join(names[:20])}"
                if names
                else "the lake is empty; AAPL is ingested on demand"
            )
    return "the engine is down; the source sample has AAPL, FB, GOOG, IBM, MSFT"
