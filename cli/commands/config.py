"""`gpt-trader config`: settings of this engine's home."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands.complete import complete_setting

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the setting.", autocompletion=complete_setting)
]


def get(name: Name) -> None:
    """Show a setting's value in effect (environment before file before default)."""
    from cli.actions.config import show_setting

    show_setting(name)


def set_(
    name: Name,
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="New value; - reads it from standard input (for secrets).")
    ],
) -> None:
    """Write a setting to config.yaml, atomically; comments stay. A running engine reads it at its next start."""
    from cli.actions.config import write_setting

    write_setting(name, value)


def list_settings() -> None:
    """List all settings with their values in effect and where each comes from."""
    from cli.actions.config import show_settings

    show_settings()


def path() -> None:
    """Show where config.yaml is."""
    from cli.actions.config import show_path

    show_path()


def validate() -> None:
    """Check config.yaml and the environment; name everything that is wrong."""
    from cli.actions.config import check_settings

    check_settings()


def register(app: typer.Typer) -> None:
    """Put the commands on the group."""
    app.command()(get)
    app.command("set")(set_)
    app.command("list")(list_settings)
    app.command()(path)
    app.command()(validate)
