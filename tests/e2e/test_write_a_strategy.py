"""The page `docs/how-to/write-a-strategy.md`, executed: every command and every file on it, in order."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.house import ROOT, House
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(180)

PAGE = ROOT / "docs" / "how-to" / "write-a-strategy.md"


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, what stands behind it, its text, and the last file named before it."""

    language: str
    extra: str
    text: str
    file: str


def blocks(page: str) -> list[Block]:
    found, end = [], 0
    for match in re.finditer(r"^```(\w+)([^\n]*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        named = re.findall(r"`(strategies/\w+\.py)`", page[end : match.start()])
        found.append(Block(match[1], match[2].strip(), match[3], named[-1] if named else ""))
        end = match.end()
    return found


@pytest.fixture
def desk(house: House, tmp_path: Path) -> Path:
    """A folder with the two programs that the page calls."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    program(tmp_path / "gpt-trader", f'{shlex.quote(sys.executable)} -P -m gpt_trader "$@"')
    program(tmp_path / ".venv" / "bin" / "python", f'{shlex.quote(sys.executable)} "$@"')
    return tmp_path


def program(path: Path, command: str) -> None:
    path.write_text(f"#!/bin/sh\nexec {command}\n")
    path.chmod(0o755)


def shell(house: House, desk: Path, line: str) -> str:
    """Run a line of the page to its end, and return what it wrote."""
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=desk,
        env={**house.environment, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def watch(house: House, desk: Path, line: str) -> str:
    """Run a line that goes on until Ctrl-C: until it watches, then end it as a person does."""
    log = desk / "watch.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            shlex.split(line),
            cwd=desk,
            env={**house.environment, "NO_COLOR": "1"},
            stdout=out,
            stderr=out,
            # A child of a background job ignores SIGINT: a terminal's child does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )
        try:
            eventually(lambda: "save it to run again" in log.read_text(), seconds=60, what="the watch")
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait(10)
    return log.read_text()


def put(desk: Path, block: Block) -> None:
    """Do what the page says of a file: write it, or replace one method of it."""
    path = desk / block.file
    assert path.is_file(), f"the page writes {block.file}, which the scaffold has not made"
    if not block.extra:
        path.write_text(block.text)
        return
    method = block.extra.removeprefix("replace=")
    old = re.compile(rf"    @property\n    def {method}\(self\):\n(?:        .*\n|\n(?=        ))+")
    text, count = old.subn(lambda _: block.text, path.read_text())
    assert count == 1, f"{block.file} has {count} methods {method}"
    path.write_text(text)


def test_the_page_works_as_it_stands(house: House, desk: Path) -> None:
    page = blocks(PAGE.read_text(encoding="utf-8"))
    assert [block.language for block in page].count("sh") >= 6
    said = ""
    for block in page:
        if block.language == "sh":
            lines = block.text.strip().splitlines()
            said = "".join((watch if "--watch" in line else shell)(house, desk, line) for line in lines)
        elif block.language == "python":
            put(desk, block)
        else:
            assert block.language == "text", f"nobody executes {block.language}"
            for line in block.text.strip().splitlines():
                assert line in said, f"the page says {line!r}, the program said:\n{said}"


def test_the_page_shows_what_the_last_commands_found(house: House, desk: Path) -> None:
    """Beside the page: what it leaves must be a strategy that trades, and an optimization with a verdict."""
    for block in blocks(PAGE.read_text(encoding="utf-8")):
        if block.language == "python":
            (desk / block.file).parent.mkdir(exist_ok=True)
            (desk / block.file).touch()
            put(desk, block)
    check = house.json("strategy", "check", str(desk / "strategies" / "dips.py"))
    assert (check["verdict"], check["warmup"]["declared"]) == ("ok", 100)
    assert check["entries"] > 20
    found = house.json(
        "optimize", "--strategy", str(desk / "strategies" / "dips.py"), "--symbol", "AAPL", "--no-report"
    )
    assert found["trials"]["run"] == 9
    assert found["overfitting"]["verdict"] in ("accept", "reject", "undecided")
