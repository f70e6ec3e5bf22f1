"""What every reader of the event log may rely on: no loss, no duplicate, in order, and a clear word when not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise

import psycopg
import pytest
from sqlalchemy import URL, Engine, text

from gpt_trader.crash_points import KILLED
from gpt_trader.errors import Refused
from storage.database import engine_for
from storage.event_reader import AsyncEventReader
from storage.events import Event, EventLog, NewEvent, Position, UnrecoverablePosition, append_within
from tests.waiting import eventually

CHANNEL = "runs.11111111-2222-3333-4444-555555555555"

_WRITER = """
import sys
from sqlalchemy import make_url
from storage.database import engine_for
from storage.events import EventLog, NewEvent
url, name, channels, count, batch = sys.argv[1:]
log = EventLog(engine_for(make_url(url)))
for number in range(int(count)):
    for channel in channels.split(","):
        if int(batch) > 1:
            log.append_many(channel, [NewEvent("log", {"by": name, "n": number, "i": i}) for i in range(int(batch))])
        else:
            log.append(channel, "log", {"by": name, "n": number, "i": 0}, key=f"{name}-{number}")
"""


@pytest.fixture
def log(engine: Engine) -> EventLog:
    return EventLog(engine)


def writer(
    url: URL, name: str, channels: list[str], count: int, batch: int = 1, crash_at: str = ""
) -> subprocess.Popen[bytes]:
    arguments = [url.render_as_string(), name, ",".join(channels), str(count), str(batch)]
    environment = {**os.environ, "GPT_TRADER_CRASH_AT": crash_at}
    return subprocess.Popen([sys.executable, "-P", "-c", _WRITER, *arguments], env=environment)


async def take(stream: AsyncIterator[Event], count: int, seconds: float = 30) -> list[Event]:
    """Return the next `count` events."""
    taken: list[Event] = []
    async with asyncio.timeout(seconds):
        while len(taken) < count:
            taken.append(await anext(stream))
    return taken


def test_offsets_start_at_one_and_have_no_gaps(log: EventLog) -> None:
    positions = [log.append(CHANNEL, "log", {"n": n}) for n in range(3)]
    positions += log.append_many(CHANNEL, [NewEvent("log", {"n": n}) for n in range(3, 6)])
    assert [position.offset for position in positions] == [1, 2, 3, 4, 5, 6]
    assert len({position.epoch for position in positions}) == 1
    events = log.read(CHANNEL)
    assert [event.position for event in events] == positions
    assert [event.data for event in events] == [{"n": n} for n in range(6)]
    assert log.position(CHANNEL) == positions[-1]
    assert all(earlier.at <= later.at for earlier, later in pairwise(events))


def test_reading_resumes_behind_a_position_and_in_batches(log: EventLog) -> None:
    positions = log.append_many(CHANNEL, [NewEvent("log", {"n": n}) for n in range(10)])
    assert [event.data["n"] for event in log.read(CHANNEL, positions[6])] == [7, 8, 9]
    assert [event.data["n"] for event in log.read(CHANNEL, positions[1], limit=3)] == [2, 3, 4]
    assert log.read(CHANNEL, positions[-1]) == []
    assert log.read("runs.nobody") == []
    assert log.position("runs.nobody") is None


def test_channels_do_not_see_each_other(log: EventLog) -> None:
    log.append("runs.a", "log", {"in": "a"}, key="same")
    position = log.append("runs.b", "log", {"in": "b"}, key="same")
    assert position.offset == 1
    assert [event.data["in"] for event in log.read("runs.b")] == ["b"]


def test_a_key_appends_once(log: EventLog) -> None:
    first = log.append(CHANNEL, "state", {"state": "RUNNING"}, key="s1")
    other = log.append(CHANNEL, "log", {"level": "info"})
    assert log.append(CHANNEL, "state", {"state": "OTHER"}, key="s1") == first
    batch = log.append_many(
        CHANNEL,
        [
            NewEvent("state", {"n": 1}, "s1"),
            NewEvent("state", {"n": 2}, "s2"),
            NewEvent("state", {"n": 3}, "s2"),
        ],
    )
    assert batch == [first, Position(first.epoch, 3), Position(first.epoch, 3)]
    assert other.offset == 2
    assert [(event.key, event.data) for event in log.read(CHANNEL)] == [
        ("s1", {"state": "RUNNING"}),
        (None, {"level": "info"}),
        ("s2", {"n": 2}),
    ]


def test_data_comes_back_as_it_was(log: EventLog) -> None:
    odd = {"z": 1, "a": [1.5, None, True], "text": "NUL \x00, lone \ud800, emoji 🙂, quote ' \" \\"}
    log.append(CHANNEL, "log", odd)
    found = log.read(CHANNEL)[0].data
    assert found == odd
    assert list(found) == list(odd)


def test_what_json_has_no_words_for_is_refused_and_appends_nothing(log: EventLog) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        log.append_many(CHANNEL, [NewEvent("log", {"x": 1.0}), NewEvent("log", {"x": float("nan")})])
    assert log.append(CHANNEL, "log", {}).offset == 1


@pytest.mark.parametrize(
    "channel", ["", "Runs", "runs.", "runs..a", "runs.a b", "runs.ü", "runs." + "a" * 200, "x\x00"]
)
def test_a_channel_has_a_proper_name(log: EventLog, channel: str) -> None:
    with pytest.raises(Refused, match="channel"):
        log.append(channel, "log", {})


@pytest.mark.parametrize(
    "given", ["", "abc", "abc:", "abc:-1", ":1", "a b:1", "abc:1:2", "abc:" + "9" * 30, "a:١"]
)
def test_a_position_is_parsed_strictly(given: str) -> None:
    with pytest.raises(Refused, match="position"):
        Position.parse(given)


def test_a_position_survives_its_own_text() -> None:
    assert Position.parse(str(Position("3f9a01bc", 118))) == Position("3f9a01bc", 118)


def test_another_epoch_is_unrecoverable(log: EventLog) -> None:
    position = log.append(CHANNEL, "log", {})
    for wrong in (Position("ffffffff0", 0), Position(position.epoch, 2)):
        with pytest.raises(UnrecoverablePosition, match="from the start"):
            log.read(CHANNEL, wrong)
    with pytest.raises(UnrecoverablePosition, match="no events"):
        log.read("runs.nobody", position)


def test_an_expired_channel_lives_again_under_another_epoch(log: EventLog, engine: Engine) -> None:
    old = log.append_many(CHANNEL, [NewEvent("log", {}, key="k"), NewEvent("log", {})])[-1]
    log.append("runs.young", "log", {})
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE channels SET updated_at = now() - interval '8 days' WHERE channel = :c"),
            {"c": CHANNEL},
        )
    assert log.expire(timedelta(days=7)) == 2
    assert log.read(CHANNEL) == []
    fresh = log.append(CHANNEL, "log", {}, key="k")
    assert (fresh.offset, fresh.epoch != old.epoch) == (1, True)
    with pytest.raises(UnrecoverablePosition):
        log.read(CHANNEL, old)
    assert len(log.read("runs.young")) == 1


def test_a_position_before_what_was_trimmed_is_unrecoverable(log: EventLog, engine: Engine) -> None:
    positions = log.append_many(CHANNEL, [NewEvent("log", {"n": n}) for n in range(5)])
    with engine.begin() as connection:
        connection.execute(text("UPDATE events SET at = now() - interval '8 days' WHERE \"offset\" <= 3"))
    assert log.expire(timedelta(days=7)) == 3
    assert log.expire(timedelta(days=7)) == 0
    with pytest.raises(UnrecoverablePosition):
        log.read(CHANNEL, positions[1])
    assert [event.data["n"] for event in log.read(CHANNEL, positions[2])] == [3, 4]
    assert [event.data["n"] for event in log.read(CHANNEL)] == [3, 4]
    assert log.append(CHANNEL, "log", {}).offset == 6


def test_a_later_offset_is_never_visible_first(log: EventLog, engine: Engine) -> None:
    """A writer that has an offset and has not committed holds the next writer back, not the readers."""
    log.append(CHANNEL, "log", {"by": "before"})
    second = threading.Thread(target=lambda: log.append(CHANNEL, "log", {"by": "second"}))
    with engine.connect() as connection:
        with connection.begin():
            append_within(connection, CHANNEL, [NewEvent("log", {"by": "first"})])
            second.start()
            eventually(lambda: _blocked(engine), what="the second writer waits")
            assert [event.data["by"] for event in log.read(CHANNEL)] == ["before"]
        second.join(timeout=10)
    assert [event.data["by"] for event in log.read(CHANNEL)] == ["before", "first", "second"]


def _blocked(engine: Engine) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with engine.connect() as connection:
        return connection.execute(text(waiting)).scalar_one() > 0


def test_a_rolled_back_append_leaves_no_gap(log: EventLog, engine: Engine) -> None:
    with engine.connect() as connection:
        append_within(connection, CHANNEL, [NewEvent("log", {})])
        connection.rollback()
    assert log.read(CHANNEL) == []
    assert log.append(CHANNEL, "log", {}).offset == 1


def test_writers_in_many_processes_lose_nothing(log: EventLog, database: URL) -> None:
    channels = ["runs.a", "runs.b"]
    writers = [writer(database, f"w{n}", channels, count=30, batch=1 + n % 2 * 4) for n in range(3)]
    assert [process.wait(timeout=60) for process in writers] == [0] * 3
    for channel in channels:
        events = log.read(channel, limit=10_000)
        assert [event.position.offset for event in events] == list(range(1, 2 * 30 + 150 + 1))
        for name in ("w0", "w1", "w2"):
            own = [(event.data["n"], event.data["i"]) for event in events if event.data["by"] == name]
            assert own == sorted(set(own))


async def test_followers_during_writes_see_each_event_once_and_in_order(database: URL) -> None:
    channels, total = ["runs.a", "runs.b"], 3 * 20
    async with AsyncEventReader(database) as reader:
        streams = [reader.follow(channel) for channel in channels for _ in range(5)]
        tasks = [asyncio.create_task(take(stream, total)) for stream in streams]
        writers = [await asyncio.to_thread(writer, database, f"w{n}", channels, 20) for n in range(3)]
        seen = await asyncio.gather(*tasks)
        assert [await asyncio.to_thread(process.wait, 30) for process in writers] == [0] * 3
        for events in seen:
            assert [event.position.offset for event in events] == list(range(1, total + 1))
        for stream in streams:
            await stream.aclose()
        assert reader.followers == {}


async def test_a_follower_resumes_where_another_stopped(log: EventLog, database: URL) -> None:
    await asyncio.to_thread(log.append_many, CHANNEL, [NewEvent("log", {"n": n}) for n in range(1200)])
    async with AsyncEventReader(database) as reader:
        first = reader.follow(CHANNEL)
        seen = await take(first, 700)
        await first.aclose()
        second = reader.follow(CHANNEL, seen[-1].position)
        seen += await take(second, 500)
        await asyncio.to_thread(log.append, CHANNEL, "log", {"n": 1200})
        seen += await take(second, 1)
        await second.aclose()
    assert [event.data["n"] for event in seen] == list(range(1201))


async def test_a_follower_of_another_epoch_is_told(log: EventLog, database: URL) -> None:
    position = await asyncio.to_thread(log.append, CHANNEL, "log", {})
    async with AsyncEventReader(database) as reader:
        with pytest.raises(UnrecoverablePosition):
            await take(reader.follow(CHANNEL, Position("other", position.offset)), 1)


async def test_a_cut_listener_loses_nothing(log: EventLog, database: URL) -> None:
    """The connection that listens is killed again and again while events come."""
    async with AsyncEventReader(database, poll_seconds=0.05) as reader:
        stream = reader.follow(CHANNEL)
        seen: list[Event] = []
        for number in range(5):
            await asyncio.wait_for(_cut_one(reader, database), 10)
            await asyncio.to_thread(log.append, CHANNEL, "log", {"n": number})
            seen += await take(stream, 1)
        await stream.aclose()
    assert [event.data["n"] for event in seen] == list(range(5))


async def _cut_one(reader: AsyncEventReader, database: URL) -> None:
    """Cut the connection that listens; one that was cut already may not have been noticed by the reader yet."""
    cut = 0
    while cut < 1:
        await reader.listening.wait()
        cut = await asyncio.to_thread(_cut_listeners, database)


def _cut_listeners(url: URL) -> int:
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'gpt-trader listener'"
    )
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(), autocommit=True) as connection:
        return connection.execute(cut).rowcount


async def test_every_connection_cut_loses_nothing(log: EventLog, database: URL) -> None:
    async with AsyncEventReader(database, poll_seconds=0.05) as reader:
        stream = reader.follow(CHANNEL)
        await asyncio.to_thread(log.append, CHANNEL, "log", {"n": 0})
        seen = await take(stream, 1)
        await asyncio.to_thread(_cut_everything, database)
        await asyncio.to_thread(log.append, CHANNEL, "log", {"n": 1})
        seen += await take(stream, 1)
        await stream.aclose()
    assert [event.data["n"] for event in seen] == [0, 1]


def _cut_everything(url: URL) -> None:
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(), autocommit=True) as connection:
        connection.execute(cut)


async def test_an_event_that_was_never_announced_is_found(database: URL, log: EventLog) -> None:
    """A writer killed between its commit and its announcement: the poll finds what it wrote."""
    async with AsyncEventReader(database, poll_seconds=0.05) as reader:
        await asyncio.wait_for(reader.listening.wait(), 10)
        stream = reader.follow(CHANNEL)
        pending = asyncio.create_task(take(stream, 1))
        killed = writer(database, "w", [CHANNEL], 1, crash_at="events.before_announcement")
        assert await asyncio.to_thread(killed.wait, 30) == KILLED
        assert [event.data["by"] for event in await pending] == ["w"]
        await stream.aclose()


def test_a_writer_killed_before_its_commit_leaves_nothing(database: URL, log: EventLog) -> None:
    assert writer(database, "w", [CHANNEL], 1, crash_at="events.before_commit").wait(timeout=30) == KILLED
    assert log.read(CHANNEL) == []
    assert log.append(CHANNEL, "log", {}).offset == 1


async def test_one_follower_leaving_disturbs_no_other(log: EventLog, database: URL) -> None:
    async with AsyncEventReader(database) as reader:
        leaving, staying = (asyncio.create_task(take(reader.follow(CHANNEL), 2)) for _ in range(2))
        await asyncio.to_thread(log.append, CHANNEL, "log", {"n": 0})
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await asyncio.to_thread(log.append, CHANNEL, "log", {"n": 1})
        assert [event.data["n"] for event in await staying] == [0, 1]


async def test_closing_the_reader_ends_its_streams(database: URL) -> None:
    async def all_of(stream: AsyncIterator[Event]) -> list[Event]:
        return [event async for event in stream]

    async with AsyncEventReader(database) as reader:
        ended = [asyncio.create_task(all_of(reader.follow(CHANNEL))) for _ in range(3)]
        await asyncio.wait_for(reader.listening.wait(), 10)
    assert await asyncio.wait_for(asyncio.gather(*ended), 10) == [[], [], []]


async def test_the_loop_is_never_blocked(log: EventLog, database: URL) -> None:
    """While a writer holds the channel's lock and a thousand events are read, the loop keeps its beat."""
    await asyncio.to_thread(log.append_many, CHANNEL, [NewEvent("log", {"n": n}) for n in range(1000)])
    holder = engine_for(database).connect()
    try:
        append_within(holder, CHANNEL, [NewEvent("log", {})])
        async with AsyncEventReader(database) as reader:
            streams = [reader.follow(CHANNEL) for _ in range(5)]
            seen = await asyncio.gather(*(take(stream, 1000, seconds=10) for stream in streams))
            assert all(len(events) == 1000 for events in seen)
            for stream in streams:
                await stream.aclose()
    finally:
        holder.rollback()
        holder.close()
