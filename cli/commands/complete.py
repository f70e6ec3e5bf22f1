"""Names for the shell's completion: quick (≤ 0.5 s), and silent whatever goes wrong, as a shell is waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import typer

#: Seconds the engine may take to name its symbols.
_PATIENCE: Final = 0.25


def complete_strategy(incomplete: str) -> list[str]:
    """Return the registered strategies; a path is left to the shell."""
    if incomplete.startswith((".", "/", "~")):
        return []
    from gpt_trader.strategies.registry import strategy_names

    return _matching(strategy_names, incomplete)


def complete_symbol(incomplete: str) -> list[str]:
    """Return the lake's symbols if a server is named or the engine runs; nothing is started for it."""
    return _matching(_symbols, incomplete)


def complete_param(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return `NAME=` for each parameter of the strategy that was chosen before."""
    if "=" in incomplete:
        return []

    def names() -> list[str]:
        from gpt_trader.strategies.registry import parameter_names, strategy_type

        chosen = ctx.params.get("strategy") or "momentum"
        return [f"{name}=" for name in parameter_names(strategy_type(str(chosen)))]

    return _matching(names, incomplete)


def complete_workflow(incomplete: str) -> list[str]:
    """Return the names of the workflows."""
    from gpt_trader.slices import SLICES

    return _matching(lambda: SLICES, incomplete)


def complete_session(incomplete: str) -> list[str]:
    """Return ids and names of sessions if a server is named or the engine runs; nothing is started for it."""
    return _matching(_sessions, incomplete)


def complete_setting(incomplete: str) -> list[str]:
    """Return the names of the settings."""

    def names() -> Iterable[str]:
        from gpt_trader.settings import Settings

        return Settings.model_fields

    return _matching(names, incomplete)


def _symbols() -> list[str]:
    from cli.client.connect import running

    client = running()
    if client is None:
        return []
    with client:
        client.patience(_PATIENCE)
        return [str(item["symbol"]) for item in client.symbols()]


def _sessions() -> list[str]:
    from cli.client.connect import running
    from cli.client.sessions import SessionClient

    client = running()
    if client is None:
        return []
    with SessionClient(client.wire) as sessions:
        sessions.patience(_PATIENCE)
        found = sessions.sessions(limit=50)
    names = [str(session["name"]) for session in found]
    once = [name for name in names if names.count(name) == 1 and not set(name) & set(" \t'\"")]
    return once + [str(session["session_id"]) for session in found]


def _matching(names: Callable[[], Iterable[str]], incomplete: str) -> list[str]:
    with suppress(Exception):  # an error text would land in the command line that is being typed
        return [name for name in names() if name.startswith(incomplete)]
    return []
