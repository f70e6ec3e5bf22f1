"""Reads a session's legs from the words of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from cli.runs.parameters import pairs
from gpt_trader.errors import Problem, Refused

_FORM: Final = "ID:STRATEGY or ID@WEIGHT:STRATEGY:NAME=VALUE,…, e.g. MSFT@0.4:ma_crossover:fast=10,slow=30"


def legs_of(
    symbols: Sequence[str] | None,
    strategy: str | None,
    params: Sequence[str] | None,
    legs: Sequence[str] | None,
) -> list[dict[str, Any]]:
    """Return the legs of a request: one of each symbol, traded by `strategy` with `params`, and then `legs`.

    Raises Refused where there is none, one cannot be read, or there is a strategy without a symbol to trade.
    """
    shared = {"strategy": strategy, "params": pairs(params or [])}
    given = {name: value for name, value in shared.items() if value}
    if given and not symbols:
        name = "strategy" if strategy else "param"
        message = "is of the legs of --symbol, and there is none"
        raise Refused.of(
            Problem(name, strategy or (params or [""])[0], message, allowed="e.g. --symbol AAPL")
        )
    found: list[dict[str, Any]] = [{"symbol": symbol, **given} for symbol in symbols or ()]
    found += [_leg(word) for word in legs or ()]
    if not found:
        raise Refused.of(Problem("symbol", None, "is missing: give --symbol, e.g. --symbol AAPL, or --leg"))
    return found


def _leg(word: str) -> dict[str, Any]:
    about, _, rest = word.partition(":")
    symbol, at, weight = (part.strip() for part in about.partition("@"))
    # A strategy of the user's has a colon of its own: `./mine.py:MyStrategy`.
    before, colon, last = rest.rpartition(":")
    strategy, params = (before, last) if colon and "=" in last else (rest, "")
    if not (symbol and strategy.strip()) or bool(at) != bool(weight) or "=" in strategy:
        raise Refused.of(Problem("leg", word, "cannot be read", allowed=_FORM))
    leg: dict[str, Any] = {"symbol": symbol, "strategy": strategy.strip()}
    if weight:
        leg["weight"] = weight
    if params:
        leg["params"] = pairs(params.split(","), option="leg")
    return leg
