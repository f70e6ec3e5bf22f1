"""`gpt-trader monitor`: sessions, runs and what the engine does, as it happens."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands.complete import complete_symbol


def monitor(
    symbol: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SYMBOL",
            help="Show new bars of this symbol as they are stored; repeatable.",
            autocompletion=complete_symbol,
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=40, help="The newest runs, so many.", show_default=True)
    ] = 10,
    once: Annotated[bool, typer.Option("--once", help="Show how things stand now, and end.")] = False,
) -> None:
    """Watch trading sessions, runs, alerts and new bars, live over the engine's stream. q or Ctrl-C ends it.

    On a terminal one screen is kept up to date: sessions with their equity curves, positions, fills, runs with their
    progress, open alerts; ? shows the keys. Elsewhere each thing that happens is a line, and with --output json a JSON
    object a line.

    Example: gpt-trader monitor --symbol AAPL
    """
    from cli.actions.monitor import monitor as show

    show(symbol or [], limit=limit, once=once)


def register(app: typer.Typer) -> None:
    """Put the command on the tree."""
    app.command()(monitor)
