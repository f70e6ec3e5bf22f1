"""A run's events, from the event log to a stream: resumed by position, ended after the final state."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from api.context import Context
from api.streams.sse import frame
from gpt_trader.errors import EngineUnreachable, Refused
from gpt_trader.runs import FINAL_STATES, channel_of
from storage.events import Event, Position, UnrecoverablePosition


@dataclass(frozen=True)
class Resume:
    """Where a stream begins: behind `after` (None: at the oldest event), and why not where it was asked to."""

    after: Position | None
    reset: str | None = None
    #: The last offset there will be, for a run that has ended; None while it goes on.
    last: int | None = None

    @property
    def nothing_left(self) -> bool:
        """Whether the client has everything there will ever be."""
        return self.last is not None and self.after is not None and self.after.offset >= self.last


async def resume(context: Context, run_id: UUID, last_event_id: str | None) -> Resume:
    """Bring the run's states into the log and return where a client that saw `last_event_id` goes on."""
    try:
        ended = await context.run_states.sync(run_id)
    except EngineUnreachable:
        ended = False  # Prefect is restarting: the log itself can be read
    channel = channel_of(run_id)
    now = await context.reader.position(channel)
    last = now.offset if ended and now else None
    if not last_event_id:
        return Resume(None, None, last)
    try:
        after = Position.parse(last_event_id)
        await context.reader.read(channel, after, limit=1)
    except (UnrecoverablePosition, Refused) as error:
        return Resume(None, error.detail, last)
    return Resume(after, None, last)


async def frames(context: Context, run_id: UUID, start: Resume) -> AsyncGenerator[bytes, None]:
    """Yield the run's events as frames of the stream, until its final state has been told.

    A `reset` comes first where the client's position is of another epoch: what follows is the whole story anew.
    """
    if start.reset is not None:
        yield frame("reset", {"reason": start.reset})
    after = start.after
    with context.streams.tally.event_stream():
        async with context.run_states.watched(run_id):
            while True:
                # It is a generator, and is closed with this one: a follower that is left waiting would stay registered.
                following = cast(
                    "AsyncGenerator[Event, None]", context.reader.follow(channel_of(run_id), after)
                )
                try:
                    async with aclosing(following) as events:
                        async for event in events:
                            yield frame(event.type, event.data, str(event.position))
                            if _ends(event) or event.position.offset == start.last:
                                return
                except UnrecoverablePosition as lost:  # the channel began anew under our eyes
                    yield frame("reset", {"reason": lost.detail})
                    after = None
                else:
                    return


def _ends(event: Event) -> bool:
    return event.type == "state" and event.data.get("state") in FINAL_STATES
