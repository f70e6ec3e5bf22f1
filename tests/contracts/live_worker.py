"""Trades one session on a live stream, as a run does, in a process that may be killed: its id is the argument."""

from __future__ import annotations

import sys
from uuid import UUID, uuid4

from prefect.logging import disable_run_logger

from tasks.live_feed import Stream
from tasks.sessions import sessions, trade, trading


def run(session_id: UUID) -> None:
    """Trade it to its end."""
    with disable_run_logger(), trading(sessions().get(session_id), f"run {uuid4()}") as running:
        feed = Stream(running)
        trade.fn(running, feed, None)
        feed.end(running)


if __name__ == "__main__":
    run(UUID(sys.argv[1]))
