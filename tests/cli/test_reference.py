"""docs/reference/cli.md says what the command tree says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from cli.reference import reference
from cli.tree import build
from tests.cli.conftest import ROOT

DOCUMENT = ROOT / "docs" / "reference" / "cli.md"


def test_the_document_is_current() -> None:
    assert Path(DOCUMENT).read_text(encoding="utf-8") == reference(), (
        "python -m cli.reference docs/reference/cli.md"
    )


def test_every_command_and_option_is_documented_with_a_meaning() -> None:
    """Walk the tree by itself, so that a hole in the generator is seen too."""
    text = DOCUMENT.read_text(encoding="utf-8")
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    commands = dict(_walk(typer.main.get_command(build()), "gpt-trader"))
    assert len(commands) > 20
    for path, command in commands.items():
        section = sections[path]
        assert (command.help or "").strip().splitlines()[0] in section, path
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{path} {parameter.name} has no help"
            for option in (*parameter.opts, *parameter.secondary_opts):
                shown = option if option.startswith("-") else parameter.metavar
                assert shown in section.replace("\\|", "|"), f"{path} {option}"


def _walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:  # another name of a group that is documented
            yield from _walk(below, f"{path} {name}")
