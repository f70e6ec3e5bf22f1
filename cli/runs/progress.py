"""Shows what a run is doing, on stderr: a bar on a terminal, lines where `--verbose` asks for them elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cli.terminal.options import current, detail, plain_terminal, say

if TYPE_CHECKING:
    from cli.client.sse import Event
    from cli.runs.follow import Show

#: Shown unasked. An error is said by the run's last state, without its traceback.
_LOUD: Final = "WARNING"


@contextmanager
def progress(title: str) -> Iterator[Show]:
    """Yield the function that shows a run's events while it is followed."""
    if current().quiet or plain_terminal():
        yield _line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[message]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        task = bar.add_task(title, total=None, message="waiting for the worker")

        def draw(event: Event) -> None:
            facts = event.data
            if event.type == "progress":
                bar.update(
                    task,
                    description=f"{title}: {facts.get('stage', '')}",
                    completed=facts.get("done") or 0,
                    total=facts.get("total"),
                    message=str(facts.get("message") or ""),
                )
            elif event.type == "state":
                bar.update(task, message=str(facts.get("name") or facts.get("state", "")).lower())
            elif event.type == "log" and _is_wanted(event):
                bar.console.print(_log_line(event), markup=False)

        yield draw


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on a terminal that an answer is waited for, until the end of the block."""
    if current().quiet or plain_terminal():
        yield
        return
    from rich.console import Console

    with Console(stderr=True, highlight=False).status(what):
        yield


def _line(event: Event) -> None:
    facts = event.data
    if event.type == "state":
        detail(f"state {facts.get('state', '')}")
    elif event.type == "progress":
        message = facts.get("message")
        detail(
            f"{facts.get('stage')} {facts.get('done')}/{facts.get('total')}"
            + (f" {message}" if message else "")
        )
    elif event.type == "log" and _is_wanted(event):
        say(_log_line(event))


def _is_wanted(event: Event) -> bool:
    return current().verbose or str(event.data.get("level", "")).upper() == _LOUD


def _log_line(event: Event) -> str:
    message = str(event.data.get("message", ""))
    shown = message if current().verbose else message.partition("\n")[0]
    return f"{str(event.data.get('level', '')).lower()}: {shown}"
