"""What is compiled is kept for as long as all that it is made of stays the same."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

RULES = """
from gpt_trader.compiling import compiled
from {prefix}rates import RATE

@compiled(inline="always")
def charged(amount):
    return amount * RATE * {factor}
"""
BOOKS = """
from gpt_trader.compiling import compiled
from {prefix}rules import charged
LEAST = {least}

@compiled()
def left(amount):
    return amount - max(charged(amount), LEAST)
"""


class Program:
    """Three files, one made of the other: books of rules, and rules of rates."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder, self.prefix = folder, prefix

    def write(self, rate: float = 0.01, factor: int = 1) -> None:
        self._put("rates", f"RATE = {rate}\n")
        self._put("rules", RULES.format(prefix=self.prefix, factor=factor))

    def write_books(self) -> None:
        self._put("books", BOOKS.format(prefix=self.prefix, least=1.0))

    def run(self) -> tuple[float, bool]:
        """Return what is left of 1,000, and whether it was computed by what had been kept, as in a new process."""
        self.forget()
        books: ModuleType = importlib.import_module(f"{self.prefix}books")
        return books.left(1000.0), bool(books.left.stats.cache_hits)

    def forget(self) -> None:
        for name in [name for name in sys.modules if name.startswith(self.prefix)]:
            del sys.modules[name]
        importlib.invalidate_caches()

    def _put(self, name: str, content: str) -> None:
        (self.folder / f"{self.prefix}{name}.py").write_text(content)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # whose age is told to the second
    made = Program(tmp_path, "made_of_three_")
    made.write()
    made.write_books()
    yield made
    made.forget()


def test_what_has_not_changed_is_not_compiled_again(program: Program) -> None:
    assert program.run() == (990.0, False)
    assert program.run() == (990.0, True)
    program.write()
    assert program.run() == (990.0, True), "the same content, written anew"


@pytest.mark.parametrize(
    ("change", "left"), [({"factor": 2}, 980.0), ({"rate": 0.05}, 950.0)], ids=["a function", "its constant"]
)
def test_what_changes_in_another_file_counts_though_the_own_stays(
    program: Program, change: dict[str, float], left: float
) -> None:
    assert program.run() == (990.0, False)
    program.write(**change)  # type: ignore[arg-type]
    assert program.run() == (left, False)
    assert program.run() == (left, True)
