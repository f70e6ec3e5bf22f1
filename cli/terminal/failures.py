"""The one place that turns an error into a message on stderr and an exit code.

Exit codes: 0 ok, 1 the run failed, 2 usage or refused input, 3 the engine does not answer, 4 not allowed,
130 interrupted. With a machine format stderr ends with one line of JSON: `type, title, detail, exit_code` and,
where fields are at fault, `problems` (field, value, message, allowed, nearest); stdout stays empty.
"""

from __future__ import annotations

import json
import sys
import traceback

import typer

from cli.terminal.options import current, write_error
from gpt_trader.errors import GptTraderError, Problem

INTERRUPTED = 130


class Interrupted(GptTraderError):
    """Ctrl-C: what was going on has been stopped as far as the message says."""

    type = "interrupted"
    title = "Interrupted"
    exit_code = INTERRUPTED


def report(error: BaseException) -> int:
    """Say what went wrong and return the exit code; a traceback is for `--verbose` alone."""
    if current().verbose and not isinstance(error, typer.TyperException | KeyboardInterrupt | typer.Abort):
        write_error("".join(traceback.format_exception(error)).rstrip())
    known = _known(error)
    if isinstance(known, _Help):
        write_error(known.detail)
    elif current().machine:
        write_error(json.dumps(_as_object(known), ensure_ascii=False))
    else:
        for line in _lines(known):
            write_error(line)
    return known.exit_code


def _known(error: BaseException) -> GptTraderError:
    if isinstance(error, GptTraderError):
        return error
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return Interrupted("interrupted")
    if isinstance(error, typer.TyperException):
        return _usage(error)
    if isinstance(error, OSError) and error.filename:
        return _Unforeseen(f"{error.filename}: {error.strerror}")
    hint = "" if current().verbose else "; --verbose shows where. Please report it"
    return _Unforeseen(f"unexpected {type(error).__name__}: {error}{hint}")


class _Unforeseen(GptTraderError):
    """What nobody raised on purpose."""


class _Usage(GptTraderError):
    """The command line itself is wrong."""

    type = "usage"
    title = "Wrong usage"
    exit_code = 2


class _Help(_Usage):
    """A group without a command: its help is the message."""


def _usage(error: typer.TyperException) -> GptTraderError:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if type(error).__name__ == "NoArgsIsHelpError":  # its class is private to Typer
        return _Help(message.rstrip())
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "gpt-trader"
    return _Usage(f"{message.rstrip()} ({command} --help shows how)")


def _as_object(error: GptTraderError) -> dict[str, object]:
    shown: dict[str, object] = {
        "type": error.type,
        "title": error.title,
        "detail": error.detail,
        "exit_code": error.exit_code,
    }
    if error.problems:
        shown["problems"] = [problem.as_dict() for problem in error.problems]
    return shown


def _lines(error: GptTraderError) -> list[str]:
    red, plain = ("\x1b[31m", "\x1b[0m") if _colors() else ("", "")
    if len(error.problems) > 1:
        return [f"{red}error:{plain} {error.title}", *(f"  {_line(problem)}" for problem in error.problems)]
    if error.problems and error.detail == str(error.problems[0]):
        return [f"{red}error:{plain} {_line(error.problems[0])}"]
    return [f"{red}error:{plain} {error.detail}"]


def _line(problem: Problem) -> str:
    """Return a problem in one line, with the value that was given unless the message holds it."""
    said = str(problem)
    value = problem.as_dict()["value"]
    return said if value in (None, "") or str(value) in said else f"{said} (given: {value!r})"


def _colors() -> bool:
    import os

    if os.environ.get("NO_COLOR"):
        return False
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown", "")
