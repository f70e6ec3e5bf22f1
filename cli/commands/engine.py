"""`gpt-trader up`, `down` and `status`: the local engine."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Mode(StrEnum):
    """What one process of a service manager runs."""

    ALL = "all"
    DATABASE = "database"
    PREFECT = "prefect"
    WORKER = "worker"
    API = "api"


def run_mode(mode: Mode, port: int | None) -> None:
    """Run a part in the foreground until it is told to stop; the port is the API's or Prefect's."""
    ported = {Mode.ALL: "api_port", Mode.API: "api_port", Mode.PREFECT: "prefect_port"}
    if port is not None and mode not in ported:
        from gpt_trader.errors import Problem, Refused

        raise Refused.of(Problem("port", port, f"the {mode} has no port to choose", "--mode api or prefect"))
    from cli.actions.engine import bring_up

    options = {ported[mode]: port} if mode in ported else {}
    code = bring_up(options, [] if mode is Mode.ALL else [mode.value], detach=False)
    if code:
        raise SystemExit(code)


def up(
    *,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Start it in the background and return when it is ready.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART[,PART]",
            help="Run only these of database, prefect, worker, api; the others by their settings' addresses.",
        ),
    ] = None,
    api_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="The API's port (default 8000 or next free; 0: any).")
    ] = None,
    prefect_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Prefect's port (default 4200 or next free; 0: any).")
    ] = None,
) -> None:
    """Start the local engine: database, Prefect, worker, API. Runs until Ctrl-C, or in the background.

    An engine that runs already is shown, and left as it is.

    Example: gpt-trader up --detach
    """
    from cli.actions.engine import bring_up

    parts = [name for group in only or [] for name in group.split(",") if name]
    code = bring_up({"api_port": api_port, "prefect_port": prefect_port}, parts, detach=detach)
    if code:
        raise SystemExit(code)  # Ctrl-C is how it is meant to end: nothing to say


def down() -> None:
    """Stop the local engine and everything it started, within 30 s.

    Example: gpt-trader down
    """
    from cli.actions.engine import take_down

    take_down()


def status() -> None:
    """Show the local engine, part by part: state, address, process, memory. Stopped is an answer, not an error.

    Example: gpt-trader --output json status
    """
    from cli.actions.engine import show_status

    show_status()


def register(app: typer.Typer) -> None:
    """Put the commands on the tree."""
    for command in (up, down, status):
        app.command()(command)
