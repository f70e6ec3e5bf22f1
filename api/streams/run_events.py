"""A run's events, from the event log to a stream: resumed by position, ended after the final state."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from api.context import Context
from api.streams.sse import frame
from gpt_trader.errors import EngineUnreachable, Refused
from gpt_trader.runs import FINAL_STATES, channel_of
from storage.events import Event, Position, UnrecoverablePosition

#: Bytes after which a piece of the stream is sent.
PIECE_BYTES: Final = 128 * 1024

#: Frames that are kept for clients that follow the same run; an event never changes.
_FRAMES: Final[OrderedDict[tuple[str, Position], bytes]] = OrderedDict()
_FRAMES_KEPT: Final = 512
_LARGEST_KEPT: Final = 4096


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
    """Yield the run's events as frames of the stream, what has come at a time, until its final state has been told.

    A `reset` comes first where the client's position is of another epoch: what follows is the whole story anew.
    """
    if start.reset is not None:
        yield frame("reset", {"reason": start.reset})
    after = start.after
    with context.streams.tally.event_stream():
        async with context.run_states.watched(run_id):
            while True:
                # It is closed with this one: a follower that is left waiting would stay registered.
                following = context.reader.follow_batches(channel_of(run_id), after)
                try:
                    async with aclosing(following) as batches:
                        async for events in batches:
                            last = next((n for n, event in enumerate(events) if _ends(event, start)), None)
                            for piece in _pieces(events if last is None else events[: last + 1]):
                                yield piece
                            if last is not None:
                                return
                except UnrecoverablePosition as lost:  # the channel began anew under our eyes
                    yield frame("reset", {"reason": lost.detail})
                    after = None
                else:
                    return


def _ends(event: Event, start: Resume) -> bool:
    """Return whether nothing follows an event."""
    final = event.type == "state" and event.data.get("state") in FINAL_STATES
    return final or event.position.offset == start.last


def _pieces(events: Sequence[Event]) -> Iterator[bytes]:
    """Yield the events' frames in pieces of a bounded size: a client gets the next when it has taken one."""
    waiting: list[bytes] = []
    size = 0
    for event in events:
        waiting.append(_framed(event))
        size += len(waiting[-1])
        if size > PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _framed(event: Event) -> bytes:
    """Return an event's frame; made once for all clients that get it at about the same time."""
    key = event.channel, event.position
    found = _FRAMES.get(key)
    if found is None:
        found = frame(event.type, event.data, str(event.position))
        if len(found) <= _LARGEST_KEPT:
            _FRAMES[key] = found
            if len(_FRAMES) > _FRAMES_KEPT:
                _FRAMES.popitem(last=False)
    return found
