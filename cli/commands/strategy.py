"""`gpt-trader strategy`: which strategies there are and what they take."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands import compare, strategy_kit
from cli.commands.complete import complete_strategy


def list_strategies() -> None:
    """List the strategies: this installation's, or those of a named server."""
    from cli.actions.strategy import show_strategies

    show_strategies()


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A strategy, or your own as ./mine.py:MyStrategy.",
            autocompletion=complete_strategy,
        ),
    ],
) -> None:
    """Show a strategy's parameters with defaults, limits and search space."""
    from cli.actions.strategy import show_strategy

    show_strategy(name)


def register(app: typer.Typer) -> None:
    """Put the commands on the group."""
    app.command("list")(list_strategies)
    app.command()(show)
    strategy_kit.register(app)
    compare.register(app)
