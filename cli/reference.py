"""Writes docs/reference/cli.md from the command tree: `python -m cli.reference [PATH]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

from cli.tree import build

#: A command and its context; Typer keeps the classes of its tree private.
Command = Any
Context = Any

_HEAD: Final = """# The command line

Generated from the command tree by `python -m cli.reference docs/reference/cli.md`; a test compares the two.

`gpt-trader` and `python -m gpt_trader` are the same program. Global options may stand before or after the command.
What is left out keeps its default; settings come from defaults < `config.yaml` < environment `GPT_TRADER_*` < options.

## What is written where

With `--output json`, `yaml` or `csv` stdout holds the result alone; progress, notes and errors go to stderr. With
`json` and `yaml` a command writes what the API returned, unchanged. With `csv` a list has one row an item, and a
backtest one row a metric (`metric,value`). `workflow logs --follow` writes one JSON object a line, as a stream has
no end to close a list with. Without a terminal, with `TERM=dumb` or with `NO_COLOR` there are no colors, and no
progress bar where a line cannot be redrawn.

An error with a machine format is one JSON object on the last line of stderr, and stdout stays empty:

```json
{"type": "unknown-name", "title": "Unknown name", "detail": "…", "exit_code": 2,
 "problems": [{"field": "strategy", "value": "momentun", "message": "…", "allowed": "…", "nearest": "momentum"}]}
```

| exit code | meaning |
|---|---|
| 0 | ok; an unfavorable result is still 0, and so is a reader that closed the pipe (`| head`) |
| 1 | the run failed, was cancelled by somebody else, or gave another result than it should reproduce |
| 2 | wrong usage or refused input: by this program, by the API, or by the run itself (a period without bars) |
| 3 | the engine or the server does not answer |
| 4 | not allowed: no valid key, or it may not do this |
| 130 | interrupted: Ctrl-C cancels the run that is being followed and waits until it has stopped |

## Other servers

With `--server URL` or `GPT_TRADER_SERVER` no local engine is started. The key is read from `GPT_TRADER_API_KEY`, or
else the login counts that `gpt-trader login` has kept for that server; the local engine's key is never sent elsewhere.
Strategies that are not installed here are then the server's to judge.

## Completion

`gpt-trader --install-completion` for bash, zsh and fish completes commands, options, strategies and their parameters,
workflows, settings and, while the engine runs, symbols.
"""


def reference() -> str:
    """Return the whole document."""
    root = typer.main.get_command(build())
    with root.make_context("gpt-trader", [], resilient_parsing=True) as context:
        return "\n".join([_HEAD, *_command(root, context, "gpt-trader")]) + "\n"


def _command(command: Command, context: Context, path: str) -> Iterator[str]:
    """Yield a command's section and then those of the commands below it."""
    yield f"## {path}\n"
    help_text = (command.help or "").strip()
    yield help_text + "\n" if help_text else ""
    yield from _parameters(command, context)
    shown = {name: below for name, below in getattr(command, "commands", {}).items() if not below.hidden}
    for name, below in shown.items():
        with below.make_context(name, [], parent=context, resilient_parsing=True) as inner:
            yield from _command(below, inner, f"{path} {name}")


def _parameters(command: Command, context: Context) -> Iterator[str]:
    records = [record for p in command.get_params(context) if (record := p.get_help_record(context))]
    if records:
        yield "| | |\n|---|---|"
        yield from (f"| `{_cell(name)}` | {_cell(meaning)} |" for name, meaning in records)
        yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(argv: list[str]) -> None:
    """Write the document to the path given, or to stdout."""
    if argv:
        Path(argv[0]).write_text(reference(), encoding="utf-8")
    else:
        sys.stdout.write(reference())


if __name__ == "__main__":
    main(sys.argv[1:])
