"""What an account's role lets it do, and which part of that a login or a key was given."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Final, Literal, cast, get_args

from api.principals import ALL_SCOPES, Scope
from gpt_trader.errors import Problem, Refused

Role = Literal["admin", "trader", "researcher", "viewer"]

SCOPES: Final[dict[str, frozenset[Scope]]] = {
    "admin": ALL_SCOPES,
    "trader": frozenset({"read", "research", "trade", "live"}),
    "researcher": frozenset({"read", "research"}),
    "viewer": frozenset({"read"}),
}

#: Whoever registers by themselves may look; an administrator gives more.
FIRST_ROLE: Final[Role] = "viewer"


def scopes_of(role: str) -> frozenset[Scope]:
    """Return what a role may do; a role of a newer version, which nobody here knows, nothing."""
    return SCOPES.get(role, frozenset())


def held(granted: Collection[str], role: str) -> frozenset[Scope]:
    """Return which of the scopes that were granted once the role still has."""
    return frozenset(scope for scope in scopes_of(role) if scope in granted)


def chosen(asked: Sequence[str], holder: frozenset[Scope]) -> frozenset[Scope]:
    """Return the scopes that were asked for (none: all that the holder has); raise Refused for any it has not."""
    wrong = [_problem(scope, holder) for scope in asked if scope not in holder]
    if wrong:
        raise Refused.of(*wrong)
    return frozenset(cast("Sequence[Scope]", asked)) or holder


def ordered(scopes: Collection[Scope]) -> tuple[Scope, ...]:
    """Return scopes in the order in which they are declared, from the least to the most."""
    return tuple(scope for scope in get_args(Scope) if scope in scopes)


def _problem(scope: str, holder: frozenset[Scope]) -> Problem:
    message = "is more than you have" if scope in ALL_SCOPES else "is no scope"
    close = get_close_matches(scope, holder, n=1, cutoff=0.5)
    return Problem("scopes", scope, message, ", ".join(ordered(holder)), close[0] if close else None)
