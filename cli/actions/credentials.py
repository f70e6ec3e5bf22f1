"""What the `data credentials` commands do. They write the local home's file: nothing goes over a wire."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence

from pydantic import SecretStr

from cli.terminal.render import emit, listing
from gpt_trader.credentials import read_credentials, write_credential
from gpt_trader.errors import NotFound, Problem, Refused
from gpt_trader.settings import home


def set_credential(name: str, fields: Sequence[str]) -> None:
    """Ask for each field and store them; a field left empty is refused."""
    given = {field: SecretStr(_asked(name, field)) for field in fields}
    path = home().credentials
    write_credential(name, given, path)
    emit({"name": name, "fields": list(given), "file": str(path)}, table=lambda: [f"stored in {path}"])


def list_credentials() -> None:
    """List names and fields."""
    found = read_credentials(home().credentials)
    items = [{"name": name, "fields": sorted(fields)} for name, fields in sorted(found.items())]
    listing(items, {"name": "source", "fields": "fields"}, empty="no key is stored")


def remove_credential(name: str) -> None:
    """Remove one name's fields; raise NotFound where there are none."""
    path = home().credentials
    if name not in read_credentials(path):
        raise NotFound(f"no key of {name} is stored; `gpt-trader data credentials list` shows what is")
    write_credential(name, None, path)
    emit({"name": name, "removed": True}, table=lambda: [f"removed the key of {name}"])


def _asked(name: str, field: str) -> str:
    interactive = sys.stdin.isatty()
    value = getpass.getpass(f"{name} {field}: ") if interactive else sys.stdin.readline().rstrip("\r\n")
    if not value:
        raise Refused.of(Problem(field, None, "is empty: give it on its own line"))
    return value
