"""`gpt-trader login`, `logout`, `token`: an account on a server."""

from __future__ import annotations

from typing import Annotated

import typer

Scopes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SCOPE",
        help="Ask for less than the account may: read, research, trade, live, admin; repeatable.",
    ),
]


def login(
    email: Annotated[
        str | None, typer.Option(metavar="EMAIL", help="The account (default: it is asked for).")
    ] = None,
    *,
    scope: Scopes = None,
    reset: Annotated[
        bool,
        typer.Option("--reset", help="Set a new password first, by a token from an administrator."),
    ] = False,
) -> None:
    """Log in to the server of --server; later commands to it need no key.

    The password, and a one-time code where the account wants one, are asked for without echo, or read from a pipe, a
    line each: never from an option. The login is kept in the home, readable by you alone, and renews itself.

    Example: gpt-trader login --server https://trader.example --email ann@example.com
    """
    from cli.actions.login import log_in

    log_in(email, scope or [], reset=reset)


def logout() -> None:
    """End the login to the server of --server, there and here."""
    from cli.actions.login import log_out

    log_out()


def token(
    *,
    key: Annotated[
        str | None, typer.Option(metavar="NAME", help="Make an API key of this name and print it instead.")
    ] = None,
    scope: Scopes = None,
    days: Annotated[
        float | None,
        typer.Option(metavar="DAYS", help="Days that the key is good for; 0: no end (default: 90)."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the account's API keys instead.")] = False,
    delete: Annotated[str | None, typer.Option(metavar="ID", help="Delete an API key instead.")] = None,
) -> None:
    """Print an access token of the login to --server, for other programs; or make, list and delete API keys.

    Example: curl -H "Authorization: Bearer $(gpt-trader token)" "$GPT_TRADER_SERVER/api/v1/auth/me"
    """
    from cli.actions.login import delete_key, list_keys, make_key, show_token
    from gpt_trader.errors import Refused

    if [key is not None, list_, delete is not None].count(True) > 1:
        raise Refused("give one of --key, --list and --delete")
    if key is None and (scope or days is not None):
        raise Refused("--scope and --days are for a key that is made: give --key NAME too")
    if key is not None:
        make_key(key, scope or [], 90 if days is None else days or None)
    elif list_:
        list_keys()
    elif delete is not None:
        delete_key(delete)
    else:
        show_token()


def register(app: typer.Typer) -> None:
    """Put the commands on the program."""
    for command in (login, logout, token):
        app.command()(command)
