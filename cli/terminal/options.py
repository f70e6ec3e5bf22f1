"""The global options of one invocation, and the one way to talk to the person at the terminal (stderr).

Standard library only: every command module imports this, and `--help` loads them all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final

#: Tells the person one line.
Say = Callable[[str], None]


class Output(StrEnum):
    """How a result is written on stdout."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


@dataclass(frozen=True)
class Options:
    """The global options, as given before or after the command."""

    server: str | None = None
    output: Output = Output.TABLE
    verbose: bool = False
    quiet: bool = False

    @property
    def machine(self) -> bool:
        """Whether stdout is for a program: then it holds the result and nothing else."""
        return self.output is not Output.TABLE


_current: ContextVar[Options] = ContextVar("options")

#: Global options and whether each takes a value.
GLOBAL_OPTIONS: Final = {"--server": True, "--output": True, "--verbose": False, "--quiet": False}


def current() -> Options:
    """Return the options of this invocation."""
    return _current.get(Options())


def use(options: Options) -> None:
    """Make `options` those of this invocation."""
    _current.set(options)


def hoisted(args: Sequence[str]) -> list[str]:
    """Return `args` with the global options moved to the front, so that they may stand after the command too.

    What follows a bare `--` is left alone.
    """
    front: list[str] = []
    rest: list[str] = []
    remaining = list(args)
    while remaining:
        word = remaining.pop(0)
        if word == "--":
            return [*front, *rest, word, *remaining]
        name, given, _ = word.partition("=")
        if name not in GLOBAL_OPTIONS:
            rest.append(word)
            continue
        front.append(word)
        if GLOBAL_OPTIONS[name] and not given and remaining:
            front.append(remaining.pop(0))
    return [*front, *rest]


def foreseen(args: Sequence[str]) -> Options:
    """Return the options as far as `args` and the environment tell before parsing.

    An error of the parser itself must already be reported in the format that was asked for.
    """
    asked = os.environ.get("GPT_TRADER_OUTPUT", "")
    for word, following in pairwise([*args, ""]):
        if word == "--output":
            asked = following
        elif word.startswith("--output="):
            asked = word.partition("=")[2]
    known = asked in Output.__members__.values()
    return Options(output=Output(asked) if known else Output.TABLE, verbose="--verbose" in args)


def say(message: str) -> None:
    """Tell the person something on stderr, unless `--quiet`."""
    if not current().quiet:
        write_error(message)


def detail(message: str) -> None:
    """Tell the person something on stderr where `--verbose` asks for it."""
    if current().verbose:
        write_error(message)


def write_error(message: str) -> None:
    """Write one line on stderr, whatever the options; a reader that has gone is no error."""
    try:
        sys.stderr.write(message + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 it lives as long as the process


def plain_terminal() -> bool:
    """Whether stderr is no terminal that can redraw a line (a pipe, a file, `TERM=dumb`)."""
    return not sys.stderr.isatty() or os.environ.get("TERM", "") in ("dumb", "unknown")
