"""`gpt-trader user`: accounts of the local engine, or of a server where one may administer them."""

from __future__ import annotations

from typing import Annotated

import typer

Email = Annotated[str, typer.Argument(metavar="EMAIL", help="The account's address.")]
_ROLES = "admin, trader, researcher, viewer"


def add(
    email: Email,
    role: Annotated[str, typer.Option(metavar="ROLE", help=f"What it may do: {_ROLES}.")] = "viewer",
) -> None:
    """Make an account. Its password is asked for without echo, or read from a pipe: never from an option.

    Example: gpt-trader user add ann@example.com --role admin
    """
    from cli.actions.user import add_user

    add_user(email, role)


def list_() -> None:
    """List the accounts."""
    from cli.actions.user import list_users

    list_users()


def role(
    email: Email, role: Annotated[str, typer.Argument(metavar="ROLE", help=f"The new one: {_ROLES}.")]
) -> None:
    """Give an account another role; it counts at once, for its tokens and keys too."""
    from cli.actions.user import change_user

    change_user(email, {"role": role})


def disable(email: Email) -> None:
    """Switch an account off: its logins end and its keys open nothing; its runs stay."""
    from cli.actions.user import change_user

    change_user(email, {"is_active": False})


def enable(email: Email) -> None:
    """Switch an account on again; its keys open again, its logins do not."""
    from cli.actions.user import change_user

    change_user(email, {"is_active": True})


def reset(
    email: Email,
    otp: Annotated[
        bool, typer.Option("--otp", help="Switch its one-time codes off instead (the app was lost).")
    ] = False,
) -> None:
    """Print a token with which the account's owner sets a new password, once and within the hour."""
    from cli.actions.user import reset_user

    reset_user(email, otp=otp)


def rotate_key(
    discard: Annotated[
        bool,
        typer.Option("--discard", help="Refuse the tokens before at once, as after a theft of the key."),
    ] = False,
) -> None:
    """Sign access tokens with a new key; the ones before are accepted until they end."""
    from cli.actions.user import rotate_key as rotate

    rotate(discard=discard)


def audit(
    event: Annotated[
        str | None, typer.Option(metavar="EVENT", help="Only of this kind, e.g. login.failed.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=200, show_default=True, help="How many entries at most.")
    ] = 50,
) -> None:
    """Show what happened to accounts and keys, newest first."""
    from cli.actions.user import show_audit

    show_audit(event, limit)


def register(group: typer.Typer) -> None:
    """Put the commands on the group."""
    group.command()(add)
    group.command("list")(list_)
    for command in (role, disable, enable, reset):
        group.command()(command)
    group.command("rotate-key")(rotate_key)
    group.command()(audit)
