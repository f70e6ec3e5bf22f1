"""Says that a run waits for a worker, where there is none: otherwise it would wait without a word."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Final

from cli.terminal.options import detail, say
from gpt_trader.errors import GptTraderError

if TYPE_CHECKING:
    from cli.client.api import Client
    from cli.client.sse import Event
    from cli.runs.follow import Show

#: Seconds that a run may stay unbegun before the engine is asked whether it has a worker.
SECONDS: Final = 3.0
_UNBEGUN: Final = ("SCHEDULED", "PENDING", "LATE")


@contextmanager
def told_if_nobody_works(client: Client, run_id: str, show: Show) -> Iterator[Show]:
    """Yield the function that shows events; while none tells that the run has begun, look once for a worker."""
    timer = threading.Timer(SECONDS, copy_context().run, (_look, client, run_id))
    timer.daemon = True
    timer.start()

    def watching(event: Event) -> None:
        if event.type != "state" or event.data.get("state") not in _UNBEGUN:
            timer.cancel()
        show(event)

    try:
        yield watching
    finally:
        timer.cancel()
        timer.join()


def _look(client: Client, run_id: str) -> None:
    from cli.client.api import Client
    from cli.client.wire import Wire

    try:
        with Client(Wire(client.target)) as another:  # the first one is busy with the stream
            worker = another.readiness().get("parts", {}).get("worker", {})
    except GptTraderError as error:
        detail(f"whether there is a worker could not be asked: {error.detail}")
        return
    if worker.get("state") == "down":
        say(
            f"run {run_id} waits: {worker.get('detail') or 'no worker is running'}. Start one "
            "(gpt-trader up --only worker, or gpt-trader down and up); Ctrl-C cancels the run"
        )
