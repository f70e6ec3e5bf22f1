"""Asks for what no option may hold: a secret, without echo at a terminal, else a line of standard input."""

from __future__ import annotations

import getpass
import sys

from gpt_trader.errors import Problem, Refused


def ask_secret(label: str, field: str) -> str:
    """Return a secret; raise Refused where it is empty."""
    value = getpass.getpass(f"{label}: ") if interactive() else _line()
    return _given(value, field)


def ask_new_password(label: str = "new password") -> str:
    """Return a new password; at a terminal it is asked for twice."""
    first = ask_secret(label, "password")
    if interactive() and getpass.getpass(f"{label} once more: ") != first:
        raise Refused.of(Problem("password", None, "was not the same both times"))
    return first


def ask_line(label: str, field: str) -> str:
    """Return a line that is no secret; the prompt goes to stderr, as stdout is for results."""
    if interactive():
        sys.stderr.write(f"{label}: ")
        sys.stderr.flush()
    return _given(_line().strip(), field)


def interactive() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty()


def _line() -> str:
    return sys.stdin.readline().rstrip("\r\n")


def _given(value: str, field: str) -> str:
    if not value:
        raise Refused.of(Problem(field, None, "is empty: type it when asked, or pipe it in, one line each"))
    return value
