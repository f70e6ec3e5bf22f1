"""Fan-out of a channel to its followers, over a log in memory whose reads the tests hold and let go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime

import pytest

from gpt_trader.shielded_tasks import ShieldedTasks
from storage.event_fanout import Fanout, Follower
from storage.events import BATCH, Event, Position, UnrecoverablePosition

CHANNEL = "runs.a"
EPOCH = "3f9a01bc"


class Log:
    """Events of one channel; a read sees what was there when it began, and answers when it is let."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.reads: list[Position | None] = []
        self.answering = asyncio.Event()
        self.answering.set()
        self.error: Exception | None = None

    def append(self, count: int = 1) -> None:
        for _ in range(count):
            position = Position(EPOCH, len(self.events) + 1)
            self.events.append(Event(CHANNEL, position, "log", {}, None, datetime.now(UTC)))

    async def read(self, channel: str, after: Position | None) -> list[Event]:
        assert channel == CHANNEL
        self.reads.append(after)
        begin = after.offset if after else 0
        found = self.events[begin : begin + BATCH]
        await self.answering.wait()
        if self.error is not None:
            raise self.error
        return found

    @property
    def latest(self) -> dict[str, Position]:
        return {CHANNEL: self.events[-1].position} if self.events else {}


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
async def fanout(log: Log) -> AsyncIterator[Fanout]:
    tasks = ShieldedTasks()
    made = Fanout(log.read, tasks)
    yield made
    made.close()
    log.answering.set()
    await tasks.close(5)


async def settled() -> None:
    """Let the loop run until whatever can happen has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


def offsets(events: Sequence[Event]) -> list[int]:
    return [event.position.offset for event in events]


def at(offset: int) -> Position:
    return Position(EPOCH, offset)


@asynccontextmanager
async def waiting(
    fanout: Fanout, count: int, after: Position | None = None
) -> AsyncIterator[list[tuple[Follower, asyncio.Task[Sequence[Event]]]]]:
    """Followers that wait for what comes."""
    with ExitStack() as stack:
        followers = [stack.enter_context(fanout.following(CHANNEL, after)) for _ in range(count)]
        tasks = [asyncio.create_task(follower.next()) for follower in followers]
        await settled()
        yield list(zip(followers, tasks, strict=True))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_read_serves_all_who_begin_at_one_position(fanout: Fanout, log: Log) -> None:
    log.append(3)
    async with waiting(fanout, 50) as some:
        got = await asyncio.gather(*(task for _, task in some))
    assert log.reads == [None]
    assert all(events is got[0] for events in got)
    assert offsets(got[0]) == [1, 2, 3]
    assert fanout.followers == {}


async def test_an_announcement_costs_one_read_for_all_who_wait(fanout: Fanout, log: Log) -> None:
    async with waiting(fanout, 50) as some:
        assert log.reads == [None]
        log.append()
        fanout.announce(CHANNEL)
        got = await asyncio.gather(*(task for _, task in some))
        assert [offsets(events) for events in got] == [[1]] * 50
        assert log.reads == [None, None]
        again = [asyncio.create_task(follower.next()) for follower, _ in some]
        await settled()
        assert log.reads == [None, None], "nothing was announced: nobody looks"
        log.append()
        fanout.announce(CHANNEL)
        assert [offsets(events) for events in await asyncio.gather(*again)] == [[2]] * 50
    assert log.reads == [None, None, at(1)]


async def test_what_is_announced_during_a_read_is_read_for(fanout: Fanout, log: Log) -> None:
    """The read under way began before the event was there."""
    log.answering.clear()
    async with waiting(fanout, 2) as some:
        log.append()
        fanout.announce(CHANNEL)
        assert log.reads == [None], "one read at a time for a follower"
        log.answering.set()
        assert [offsets(await task) for _, task in some] == [[1], [1]]
    assert log.reads == [None, None]


async def test_what_is_announced_before_a_follower_has_woken_comes_once(fanout: Fanout, log: Log) -> None:
    """It has its events and has not run yet: a read from where it stood would tell them again."""
    log.append()
    log.answering.clear()
    async with waiting(fanout, 1) as [(follower, task)]:
        log.answering.set()
        for _ in range(20):
            await asyncio.sleep(0)
            if not follower.waits:
                break
            log.append()
            fanout.announce(CHANNEL)
        log.append()
        fanout.announce(CHANNEL)
        seen = offsets(await task)
        while len(seen) < len(log.events):
            seen += offsets(await asyncio.wait_for(follower.next(), 5))
    assert seen == list(range(1, len(log.events) + 1))


async def test_who_was_busy_looks_when_it_waits_again(fanout: Fanout, log: Log) -> None:
    log.append()
    async with waiting(fanout, 1) as [(follower, task)]:
        await task
        log.append()
        fanout.announce(CHANNEL)
        await settled()
        assert log.reads == [None], "nobody waits"
        assert offsets(await follower.next()) == [2]


async def test_a_full_batch_is_read_on_at_once(fanout: Fanout, log: Log) -> None:
    log.append(2 * BATCH + 1)
    async with waiting(fanout, 1) as [(follower, task)]:
        counts = [len(await task), len(await follower.next()), len(await follower.next())]
    assert counts == [BATCH, BATCH, 1]


async def test_each_position_has_its_own_read(fanout: Fanout, log: Log) -> None:
    log.append(3)
    async with waiting(fanout, 2, at(1)) as some, waiting(fanout, 2, at(2)) as others:
        assert [offsets(await task) for _, task in (*some, *others)] == [[2, 3], [2, 3], [3], [3]]
    assert log.reads == [at(1), at(2)]


async def test_a_lost_announcement_is_made_up_for(fanout: Fanout, log: Log) -> None:
    async with waiting(fanout, 1) as [(follower, task)]:
        fanout.compare(log.latest)
        assert log.reads == [None], "it stands where the channel is"
        log.append()
        fanout.compare(log.latest)
        assert offsets(await task) == [1]
        log.append()
        fanout.compare(log.latest)
        assert log.reads == [None, None], "nobody waits"
        waiting_again = asyncio.create_task(follower.next())
        await settled()
        fanout.compare(log.latest)
        assert offsets(await waiting_again) == [2]


async def test_who_leaves_disturbs_nobody(fanout: Fanout, log: Log) -> None:
    log.append()
    log.answering.clear()
    async with waiting(fanout, 3) as some:
        leaving = some[1][1]
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        log.answering.set()
        assert [offsets(await task) for _, task in (some[0], some[2])] == [[1], [1]]


async def test_an_error_reaches_all_who_waited_for_it(fanout: Fanout, log: Log) -> None:
    log.error = UnrecoverablePosition("gone")
    async with waiting(fanout, 3) as some:
        told = await asyncio.gather(*(task for _, task in some), return_exceptions=True)
    assert told == [log.error] * 3


async def test_closing_lets_everybody_end(fanout: Fanout, log: Log) -> None:
    log.answering.clear()
    async with waiting(fanout, 3) as some:
        fanout.close()
        assert await asyncio.gather(*(task for _, task in some)) == [(), (), ()]
        assert await some[0][0].next() == ()


@pytest.mark.parametrize("seed", range(20))
async def test_nothing_is_lost_doubled_or_out_of_order(fanout: Fanout, log: Log, seed: int) -> None:
    """Events and followers at random moments, announcements lost at random, followers that take their time."""
    chance = random.Random(seed)
    total = 200
    seen: dict[int, list[int]] = {}

    async def pause() -> None:
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)

    async def follow(number: int) -> None:
        await pause()
        after = chance.randrange(len(log.events) + 1)
        seen[number] = list(range(1, after + 1))
        with fanout.following(CHANNEL, at(after) if after else None) as follower:
            while len(seen[number]) < total:
                seen[number] += offsets(await follower.next())
                await pause()

    async def write() -> None:
        while len(log.events) < total:
            log.append(chance.randrange(1, 4) if len(log.events) < total - 3 else 1)
            if chance.random() < 0.7:
                fanout.announce(CHANNEL)
            if chance.random() < 0.3:
                log.answering.set() if chance.random() < 0.8 else log.answering.clear()
            await pause()
        log.answering.set()

    async def poll() -> None:
        while True:
            fanout.compare(log.latest)
            for _ in range(30):
                await asyncio.sleep(0)

    polling = asyncio.create_task(poll())
    async with asyncio.timeout(20):
        await asyncio.gather(write(), *(follow(number) for number in range(30)))
    polling.cancel()
    assert list(seen.values()) == [list(range(1, total + 1))] * 30
