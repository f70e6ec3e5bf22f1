"""`gpt-trader data credentials`: the keys of data vendors, in a file that only its owner can read."""

from __future__ import annotations

from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(metavar="SOURCE", help="Whose key: alpaca, ccxt:kraken, …")]


def set_(
    name: Name,
    field: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Field to ask for; repeatable (default: key and secret)."),
    ] = None,
) -> None:
    """Store a key. It is asked for without echo, or read from a pipe, a line a field: never from an option.

    Example: gpt-trader data credentials set alpaca < key-and-secret.txt
    """
    from cli.actions.credentials import set_credential

    set_credential(name, field or ["key", "secret"])


def list_() -> None:
    """List whose keys are stored, and which fields; never a value."""
    from cli.actions.credentials import list_credentials

    list_credentials()


def remove(name: Name) -> None:
    """Remove a key from the file."""
    from cli.actions.credentials import remove_credential

    remove_credential(name)


def register(group: typer.Typer) -> None:
    """Put the commands on the group `data`, as a group of their own."""
    own = typer.Typer(
        name="credentials", help="Keys of data vendors, for the local engine.", no_args_is_help=True
    )
    own.command("set")(set_)
    own.command("list")(list_)
    own.command()(remove)
    group.add_typer(own)
