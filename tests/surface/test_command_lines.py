"""Every `gpt-trader …` line in the documents and in prefect.yaml: its command and its options are there."""

import re
from functools import cache
from pathlib import Path

import pytest
import typer

from cli.terminal.options import GLOBAL_OPTIONS
from cli.tree import build

ROOT = Path(__file__).parent.parent.parent
#: Generated from the tree itself, and compared with it by a test of its own.
GENERATED = ROOT / "docs" / "reference" / "cli.md"
PAGES = [
    page
    for page in (
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "prefect.yaml",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
    if page != GENERATED
]
#: A program's name where a line, a `code span` or a command behind another begins, and what is written up to its end.
CALL = re.compile(r"(?:^|[`$(|;&])\s*(?:\./)?gpt-trader[ \t]+([^`\n|;&#)]*)", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
GROUP_OPTIONS = {"--help", "-h", "--version", "--install-completion", "--show-completion", *GLOBAL_OPTIONS}


@cache
def tree():
    return typer.main.get_command(build())


def calls(page):
    """Return the lines of a page that call the program; a comment's continuation belongs to its line."""
    text = re.sub(r"\n[ \t]*#[ \t]*", " ", page.read_text()) if page.suffix == ".yaml" else page.read_text()
    text = text.replace("\\\n", " ")
    fences = FENCE.findall(text)
    # A code span may be broken over two lines; in a fence a line is a line.
    prose = FENCE.sub("", text)
    spans = [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", prose)]
    found = [match[1] for part in (*fences, *spans) for match in CALL.finditer(part)]
    return [line.strip() for line in found if line.strip()]


def wrong(line):
    """Return what the tree does not know of a call; None: it knows all of it."""
    command, named, words = tree(), "", line.split()
    while words and hasattr(command, "commands"):
        word = words.pop(0)
        if word.partition("=")[0] in GLOBAL_OPTIONS:
            if GLOBAL_OPTIONS[word.partition("=")[0]] and "=" not in word and words:
                words.pop(0)
            continue
        if word.startswith("-"):
            return (
                None if word.partition("=")[0] in GROUP_OPTIONS else f"no option {word} of gpt-trader {named}"
            )
        alternatives = [each for each in re.split(r"[|,]", word) if each]
        if not re.fullmatch(r"[a-z][a-z-]*(,[a-z-]+)*", word):  # COMMAND, …, [OPTIONS]
            return None
        if unknown := [
            each for each in alternatives if each not in command.commands and each != "strategies"
        ]:
            return f"no command {named} {unknown[0]}".replace("  ", " ")
        named, command = f"{named} {word}".strip(), command.commands.get(alternatives[0], command)
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | GROUP_OPTIONS
    given = [word.strip("[]…,.:()'\"").partition("=")[0] for word in words if re.match(r"\[?--?[a-z]", word)]
    unknown = [name for each in given for name in each.split("/") if name and name not in options]
    return f"no option {unknown[0]} of {named}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_that_a_page_names_are_there(page):
    assert [(line, said) for line in calls(page) if (said := wrong(line))] == []


def test_the_pages_are_read_at_all():
    found = [line for page in PAGES for line in calls(page)]
    assert len(found) > 150
    assert any(line.startswith("workflow resume paper_daily") for line in calls(ROOT / "prefect.yaml"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("paper start --feed schedule", "no option --feed of paper start"),
        ("paper strat --symbol AAPL", "no command paper strat"),
        ("--output json paper shwo x", "no command paper shwo"),
        ("--colour paper list", "no option --colour of gpt-trader "),
        ("paper start --replay --symbol AAPL --output json", None),
        ("--server URL paper show SESSION", None),
    ],
)
def test_a_wrong_call_is_found(line, said):
    assert wrong(line) == said
