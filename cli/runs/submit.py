"""From a checked request to a shown result: submit, follow, fetch, render. Every command that runs goes this way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cli.runs.follow import Show, cancelled_by_interrupt, demand_completed, follow, interrupt_deferred
from cli.runs.nobody_works import told_if_nobody_works
from cli.runs.progress import progress
from cli.terminal.options import detail

if TYPE_CHECKING:
    from cli.client.api import Client, Json, Started
    from cli.runs.prepare import Prepared

Submit = Callable[["Client", Mapping[str, Any]], "Started"]
Follow = Callable[["Client", str, Show], "Json"]


def start(prepared: Prepared, submit: Submit, client: Client) -> Started:
    """Send a request; Ctrl-C waits until the run's id is known, then cancels the run and raises Interrupted."""
    started: Started | None = None
    try:
        with interrupt_deferred():
            prepared.register(client)
            started = submit(client, prepared.body)
    except KeyboardInterrupt:
        if started is None:  # the second Ctrl-C, or one that came before there was anything to send
            raise
        raise cancelled_by_interrupt(client, started.run_id) from None
    detail(f"run {started.run_id} on {client.url}")
    return started


def finish(client: Client, started: Started, title: str, by: Follow = follow) -> Json:
    """Follow a run to its end and return its result; raise RunFailed or Interrupted where it has none.

    `by` follows it: server-sent events cost the least to begin with, which counts for a run of half a second.
    """
    try:
        _load_while_waiting()
        with progress(title) as show, told_if_nobody_works(client, started.run_id, show) as watching:
            final = by(client, started.run_id, watching)
    except KeyboardInterrupt:
        raise cancelled_by_interrupt(client, started.run_id) from None
    demand_completed(started.run_id, final)
    return client.result(started.run_id)


def _load_while_waiting() -> None:
    """Import what the rendering needs now: the run has been sent, and its answer takes longer than this."""
    from cli.terminal.options import current

    if not current().machine:
        import rich.box
        import rich.console
        import rich.table  # noqa: F401
