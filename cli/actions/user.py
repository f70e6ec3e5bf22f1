"""What the `user` commands do: accounts, as whoever may administer them sees them (locally, the key's reader)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cli.client.accounts import AccountClient
from cli.client.api import Json
from cli.client.connect import wire
from cli.terminal.asking import ask_new_password
from cli.terminal.options import say
from cli.terminal.render import emit, emit_line, listing, pairs

_COLUMNS: Final = {
    "email": "email",
    "role": "role",
    "is_active": "active",
    "otp_enabled": "one-time codes",
    "created_at": "since",
    "id": "id",
}


def add_user(email: str, role: str) -> None:
    """Make an account; its password is asked for."""
    password = ask_new_password(f"password for {email}")
    with AccountClient(wire()) as client:
        made = client.create_user(email, role, password)
    _show(made, f"{made['email']} has an account, role {made['role']}")


def list_users() -> None:
    """List the accounts."""
    with AccountClient(wire()) as client:
        items = client.users()
    listing(items, _COLUMNS, empty="no accounts: `gpt-trader user add EMAIL --role admin` makes the first")


def change_user(email: str, changes: Mapping[str, Any]) -> None:
    """Change an account and show it."""
    with AccountClient(wire()) as client:
        found = client.change_user(email, changes)
    _show(found)


def reset_user(email: str, *, otp: bool) -> None:
    """Make a reset token and print it; with `otp`, switch one-time codes off instead."""
    if otp:
        change_user(email, {"otp_enabled": False})
        return
    with AccountClient(wire()) as client:
        made = client.reset_token(email)
    say(
        f"hand this token to {email}; within {made['expires_in'] // 60} minutes it sets a new password, once, with "
        "`gpt-trader login --reset --server URL`"
    )
    emit_line({"email": email, **made}, made["token"])


def rotate_key(*, discard: bool) -> None:
    """Sign access tokens with a new key."""
    with AccountClient(wire()) as client:
        made = client.rotate_signing_key(discard_present=discard)
    seconds = made["present_accepted_seconds"]
    then = (
        f"tokens of the key before are accepted for {seconds} s" if seconds else "no token before is accepted"
    )
    emit(made, table=lambda: [f"key {made['kid']} signs from now on; {then}"])


def show_audit(event: str | None, limit: int) -> None:
    """Show the audit log, newest first."""
    with AccountClient(wire()) as client:
        items = client.audit(event, limit)
    columns = {
        "at": "at",
        "event": "event",
        "actor": "by",
        "subject": "to",
        "address": "from",
        "details": "details",
    }
    listing(items, columns, empty="nothing has happened yet")


def _show(user: Json, said: str | None = None) -> None:
    emit(
        user,
        table=lambda: [said] if said else [pairs({name: user[field] for field, name in _COLUMNS.items()})],
    )
