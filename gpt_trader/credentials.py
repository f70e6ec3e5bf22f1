"""Keys of data vendors and brokers: from the environment, or from a file that only its owner can read.

    GPT_TRADER_CREDENTIAL_ALPACA_KEY=…  GPT_TRADER_CREDENTIAL_ALPACA_SECRET=…
    ~/.gpt-trader/credentials.yaml      mode 0600:  alpaca: {key: …, secret: …}

A name like `ccxt:kraken` is CCXT_KRAKEN in the environment. Values are SecretStr: they show as stars in any log,
error or repr, and nothing in this program writes them anywhere but into that file.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from gpt_trader.errors import Denied, Problem, Refused

PREFIX: Final = "GPT_TRADER_CREDENTIAL_"
_NAME: Final = re.compile(r"[a-z0-9]+(:[a-z0-9_]+)?")
_FIELD: Final = re.compile(r"[a-z_]{1,32}")

Credential = Mapping[str, SecretStr]


def credential(name: str, path: Path, environ: Mapping[str, str] | None = None) -> Credential:
    """Return what is known of `name` by field (`key`, `secret`, …); the environment wins over the file; {} if nothing.

    Raises Denied for a file that others may read, Refused for one that is no mapping of names to fields.
    """
    environ = os.environ if environ is None else environ
    found = dict(read_credentials(path).get(name, {}))
    prefix = f"{PREFIX}{re.sub(r'[^A-Z0-9]', '_', name.upper())}_"
    for variable, value in environ.items():
        if variable.startswith(prefix) and value:
            found[variable.removeprefix(prefix).lower()] = SecretStr(value)
    return found


def required(found: Credential, name: str, *fields: str) -> tuple[str, ...]:
    """Return the values of `fields`; raise Denied that says how to give those that are missing."""
    missing = [each for each in fields if each not in found]
    if missing:
        variables = ", ".join(
            f"{PREFIX}{re.sub(r'[^A-Z0-9]', '_', name.upper())}_{m.upper()}" for m in missing
        )
        raise Denied(
            f"source {name} needs credentials and {', '.join(missing)} is not known: give it with "
            f"`gpt-trader data credentials set {name}`, or {variables} in the engine's environment"
        )
    return tuple(found[each].get_secret_value() for each in fields)


def read_credentials(path: Path) -> dict[str, dict[str, SecretStr]]:
    """Return the file's content by name ({} if there is none); errors as `credential`."""
    try:
        # Not to block: a pipe in the file's place would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Denied(f"{path} cannot be read: {error.strerror}") from None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_mode & 0o077 or facts.st_uid != os.geteuid():
            raise Denied(f"{path} must be a regular file of yours that only you can read: chmod 600 {path}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            written = file.read()
    finally:
        os.close(descriptor)
    import yaml

    try:
        # Every value as it is written: a key like 0123 is no number.
        content = yaml.load(written.decode(), yaml.BaseLoader) or {}  # noqa: S506 - it makes text alone
    except (yaml.YAMLError, UnicodeDecodeError):
        content = None  # its own message would show the line, and with it a key
    if not isinstance(content, dict) or not all(isinstance(fields, dict) for fields in content.values()):
        raise Refused(f"{path} must map each name to its fields, e.g. `alpaca: {{key: …, secret: …}}`")
    return {
        str(name): {str(each): SecretStr(str(value)) for each, value in fields.items()}
        for name, fields in content.items()
    }


def write_credential(name: str, fields: Mapping[str, SecretStr] | None, path: Path) -> None:
    """Put one name's fields into the file (None: take the name out), whole or not at all, with mode 0600.

    Raises Refused for a name or field of another form; errors as `credential`.
    """
    if not _NAME.fullmatch(name):
        raise Refused.of(Problem("name", name, "is no source's name", allowed="alpaca, ccxt:kraken"))
    for each in fields or {}:
        if not _FIELD.fullmatch(each):
            raise Refused.of(Problem("field", each, "is no field's name", allowed="key, secret, password"))
    import yaml

    content = {
        n: {f: v.get_secret_value() for f, v in kept.items()} for n, kept in read_credentials(path).items()
    }
    if fields is None:
        content.pop(name, None)
    else:
        content[name] = {each: value.get_secret_value() for each, value in fields.items()}
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yaml.safe_dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
