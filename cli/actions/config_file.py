"""Changes one setting in `config.yaml` and leaves the rest of the text, its comments too, as it is."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml


def replaced(path: Path, name: str, value: object) -> bool:
    """Write `name: value` into the file in one atomic step, mode 0600; return whether its text was kept.

    The file is a flat mapping, so a setting is one line: that line is replaced, or one is added. Where the text
    does not then mean what it should (a value over several lines, flow style), the file is written anew.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    wanted: dict[str, Any] = (yaml.safe_load(text) or {}) | {name: value}
    edited = _edited(text, name, value)
    kept = _means(edited, wanted)
    _write(path, edited if kept else yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))
    return kept


def _edited(text: str, name: str, value: object) -> str:
    line = yaml.safe_dump({name: value}, allow_unicode=True, width=10_000).rstrip("\n")
    pattern = re.compile(rf"^{re.escape(name)}[ \t]*:[^\n#]*?(?P<comment>[ \t]+#[^\n]*)?$", re.MULTILINE)
    if pattern.search(text):
        return pattern.sub(lambda found: line + (found["comment"] or ""), text, count=1)
    separator = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{separator}{line}\n"


def _means(text: str, wanted: dict[str, Any]) -> bool:
    try:
        return bool(yaml.safe_load(text) == wanted)
    except yaml.YAMLError:
        return False


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
