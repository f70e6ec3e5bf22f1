"""What the `config` commands do; none needs the engine."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from cli.actions.config_file import replaced
from cli.client.api import Json
from cli.engine.home import prepare_home
from cli.terminal.options import say
from cli.terminal.render import emit, listing
from gpt_trader.errors import Refused, UnknownName
from gpt_trader.settings import (
    ENV_PREFIX,
    Settings,
    home,
    load_settings,
    read_config,
    read_environment,
)
from gpt_trader.validation import validated

MASK: Final = "********"


def show_setting(name: str) -> None:
    """Show one setting in effect."""
    found = _entry(_known(name), load_settings())
    emit(found, table=lambda: [_text(found["value"])], rows=lambda: [found])


def show_settings() -> None:
    """List every setting."""
    settings = load_settings()
    items = [_entry(name, settings) for name in Settings.model_fields]
    columns = {"setting": "setting", "value": "value", "source": "from", "description": "meaning"}
    listing(items, columns, empty="")


def show_path() -> None:
    """Show the path of the settings file, whether it exists or not."""
    path = home().config
    emit({"path": str(path), "exists": path.exists()}, table=lambda: [str(path)])


def check_settings() -> None:
    """Refuse the settings with every problem named, or say that they are fine."""
    load_settings()
    path = home().config
    from_file, from_environment = read_config(path), read_environment(os.environ)
    facts = {
        "valid": True,
        "path": str(path),
        "file": sorted(from_file),
        "environment": sorted(from_environment),
    }
    emit(
        facts,
        table=lambda: [
            f"{path}: {len(from_file)} settings from the file, {len(from_environment)} "
            "from the environment, all valid"
        ],
    )


def write_setting(name: str, value: str) -> None:
    """Write one setting to the file; nothing is written unless the whole file is valid with it."""
    import yaml

    known = _known(name)
    text = sys.stdin.readline().rstrip("\n") if value == "-" else value
    parsed = text if _is_secret(known) else yaml.safe_load(text)
    if isinstance(parsed, list) or (isinstance(parsed, dict) and not _is_mapping(known)):
        raise Refused(f"{known}: a setting is one value, not {text!r}")
    before = read_config(home().config)
    validated(Settings, before | {known: parsed})
    prepare_home(home())
    kept = replaced(home().config, known, parsed)
    if not kept:
        say("the file's layout could not be kept: it was written anew, without its comments")
    shadow = f"{ENV_PREFIX}{known.upper()}"
    if shadow in os.environ:
        say(f"note: {shadow} is set in the environment and goes before the file")
    entry = {"setting": known, "value": MASK if _is_secret(known) else parsed, "path": str(home().config)}
    emit(entry, table=lambda: [f"{known}: {_text(entry['value'])}"])


def _entry(name: str, settings: Settings) -> Json:
    value: Any = settings.plain(name)
    return {
        "setting": name,
        "value": MASK if isinstance(value, SecretStr) else value,
        "source": _source(name),
        "description": Settings.model_fields[name].description or "",
    }


def _source(name: str) -> str:
    if name in read_environment(os.environ):
        return "environment"
    return "file" if name in read_config(home().config) else "default"


def _known(name: str) -> str:
    spelled = name.replace("-", "_").lower()
    if spelled not in Settings.model_fields:
        raise UnknownName.among("setting", name, list(Settings.model_fields), shown=40)
    return spelled


def _is_secret(name: str) -> bool:
    return "SecretStr" in str(Settings.model_fields[name].annotation)


def _is_mapping(name: str) -> bool:
    default = Settings.model_fields[name].get_default(call_default_factory=True)
    return isinstance(default, dict | BaseModel)


def _text(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
