"""The event stream of a run: complete, resumable, ended, and told what the run cannot tell."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest

from api.streams.sse import EventStream, frame
from gpt_trader.runs import channel_of
from storage.events import Position
from tests.api.conftest import Engine, Prefect, events_of


@contextmanager
def following(engine: Engine, run_id: str, after: str | None = None) -> Iterator[Iterator[dict[str, str]]]:
    headers = {"Authorization": f"Bearer {engine.key}"}
    if after:
        headers["Last-Event-ID"] = after
    url = f"{engine.url}/api/v1/workflows/runs/{run_id}/events"
    with httpx.stream("GET", url, headers=headers, timeout=10, trust_env=False) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events_of(answer.iter_lines())


def channel(run_id: str) -> str:
    return channel_of(UUID(run_id))


def states(events: list[dict[str, str]]) -> list[str]:
    return [json.loads(each["data"])["state"] for each in events if each["event"] == "state"]


def tell(engine: Engine, run_id: str, kind: str, values: dict[str, Any], key: str | None = None) -> Position:
    return engine.events.append(channel(run_id), kind, values, key)


def test_a_stream_tells_the_whole_run_and_ends_with_it(engine_api: Engine, prefect: Prefect) -> None:
    run_id = engine_api.start()["run_id"]
    with following(engine_api, run_id) as stream:
        first = next(stream)
        assert (first["event"], json.loads(first["data"])["state"]) == ("state", "SCHEDULED")
        tell(engine_api, run_id, "progress", {"stage": "bars", "done": 0, "total": 4, "message": ""})
        progress = next(stream)
        assert json.loads(progress["data"])["stage"] == "bars"
        tell(engine_api, run_id, "result", {"result_hash": "ab"})
        prefect.set_state(run_id, "CANCELLED")
        rest = list(stream)
    events = [first, progress, *rest]
    assert [each["event"] for each in events] == ["state", "progress", "result", "state"]
    assert states(events) == ["SCHEDULED", "CANCELLED"]
    epochs = {each["id"].split(":")[0] for each in events}
    assert len(epochs) == 1
    assert [int(each["id"].split(":")[1]) for each in events] == [1, 2, 3, 4]


def test_a_cut_stream_is_resumed_without_loss_or_repetition(engine_api: Engine, prefect: Prefect) -> None:
    run_id = engine_api.start()["run_id"]
    seen: list[str] = []
    after = None
    for step in range(20):
        tell(engine_api, run_id, "progress", {"stage": "s", "done": step, "total": 20, "message": ""})
        with following(engine_api, run_id, after) as stream:
            event = next(stream)
        seen.append(event["id"])
        after = event["id"]
    prefect.set_state(run_id, "CRASHED", "killed")
    with following(engine_api, run_id, after) as stream:
        rest = list(stream)
    offsets = [int(each.split(":")[1]) for each in [*seen, *(e["id"] for e in rest)]]
    assert offsets == list(range(1, len(offsets) + 1))
    assert len(offsets) == 22  # SCHEDULED, 20 × progress, CRASHED
    assert states(rest)[-1] == "CRASHED"


@pytest.mark.parametrize("position", ["deadbeef:3", "no position", "deadbeef:99999999999999999999"])
def test_a_position_of_another_life_is_reset_explicitly(
    engine_api: Engine, prefect: Prefect, position: str
) -> None:
    run_id = engine_api.start()["run_id"]
    prefect.set_state(run_id, "CRASHED")
    with following(engine_api, run_id, position) as stream:
        events = list(stream)
    assert events[0]["event"] == "reset"
    assert json.loads(events[0]["data"])["reason"]
    assert "id" not in events[0]
    assert states(events[1:]) == ["SCHEDULED", "CRASHED"]


def test_who_has_seen_everything_is_told_not_to_come_back(engine_api: Engine, prefect: Prefect) -> None:
    run_id = engine_api.start()["run_id"]
    prefect.set_state(run_id, "CRASHED")
    with following(engine_api, run_id) as stream:
        last = list(stream)[-1]["id"]
    headers = {"Last-Event-ID": last}
    assert engine_api.http.get(f"/workflows/runs/{run_id}/events", headers=headers).status_code == 204


def test_late_lines_after_the_end_do_not_keep_a_stream_open(engine_api: Engine, prefect: Prefect) -> None:
    run_id = engine_api.start()["run_id"]
    prefect.set_state(run_id, "CRASHED")
    with following(engine_api, run_id) as stream:
        last = list(stream)[-1]["id"]
    tell(engine_api, run_id, "log", {"level": "INFO", "message": "late"})
    with following(engine_api, run_id, last) as stream:
        assert [json.loads(each["data"])["message"] for each in stream] == ["late"]


def test_a_crash_that_the_run_cannot_tell_arrives_by_itself(engine_api: Engine, prefect: Prefect) -> None:
    run_id = engine_api.start()["run_id"]
    with following(engine_api, run_id) as stream:
        next(stream)
        prefect.set_state(run_id, "PENDING")
        prefect.set_state(run_id, "RUNNING")
        prefect.set_state(run_id, "CRASHED", "killed by signal 9")
        events = list(stream)
    assert states(events)[-1] == "CRASHED"
    assert json.loads(events[-1]["data"])["message"] == "killed by signal 9"
    assert len(states(events)) == len(set(states(events)))


def test_a_state_told_by_the_run_and_by_prefect_is_one_event(engine_api: Engine, prefect: Prefect) -> None:
    run_id = engine_api.start()["run_id"]
    with following(engine_api, run_id) as one, following(engine_api, run_id) as two:
        next(one)
        next(two)
        prefect.set_state(run_id, "RUNNING")
        key = prefect.state_ids(run_id)["RUNNING"]
        tell(engine_api, run_id, "state", {"state": "RUNNING", "name": "Running", "message": ""}, key)
        prefect.set_state(run_id, "CRASHED")
        first, second = list(one), list(two)
    assert states(first) == states(second) == ["RUNNING", "CRASHED"]


def test_a_completed_run_has_the_last_word(engine_api: Engine, prefect: Prefect) -> None:
    run_id = engine_api.start()["run_id"]
    with following(engine_api, run_id) as stream:
        next(stream)
        prefect.set_state(run_id, "COMPLETED")
        # Prefect has announced the end; the run still holds its last lines, and tells the end after them.
        tell(engine_api, run_id, "progress", {"stage": "done", "done": 4, "total": 4, "message": ""})
        assert next(stream)["event"] == "progress"
        key = prefect.state_ids(run_id)["COMPLETED"]
        tell(engine_api, run_id, "state", {"state": "COMPLETED", "name": "Completed", "message": ""}, key)
        told = time.monotonic()
        rest = list(stream)
    assert states(rest) == ["COMPLETED"]
    assert time.monotonic() - told < 0.5


def test_an_end_that_the_run_never_told_is_told_for_it(engine_api: Engine, prefect: Prefect) -> None:
    run_id = engine_api.start()["run_id"]
    with following(engine_api, run_id) as stream:
        next(stream)
        prefect.set_state(run_id, "COMPLETED")
        assert states(list(stream)) == ["COMPLETED"]


def test_an_old_state_is_not_told_after_a_newer_one(engine_api: Engine, prefect: Prefect) -> None:
    run_id = engine_api.start()["run_id"]
    prefect.set_state(run_id, "PENDING")
    prefect.set_state(run_id, "RUNNING")
    key = prefect.state_ids(run_id)["RUNNING"]
    tell(engine_api, run_id, "state", {"state": "RUNNING", "name": "Running", "message": ""}, key)
    prefect.set_state(run_id, "CRASHED")
    with following(engine_api, run_id) as stream:
        assert states(list(stream)) == ["SCHEDULED", "RUNNING", "CRASHED"]


def test_a_cancelled_run_ends_its_stream(engine_api: Engine) -> None:
    run_id = engine_api.start()["run_id"]
    with following(engine_api, run_id) as stream:
        next(stream)
        assert engine_api.http.post(f"/workflows/runs/{run_id}/cancel").status_code == 202
        assert states(list(stream))[-1] == "CANCELLED"


def test_a_client_that_leaves_is_forgotten(engine_api: Engine) -> None:
    from tests.waiting import eventually

    run_id = engine_api.start()["run_id"]
    reader = engine_api.context.reader
    with following(engine_api, run_id) as stream:
        next(stream)
        assert reader.followers[channel(run_id)] == 1
    eventually(lambda: channel(run_id) not in reader.followers, what="the follower's end")
    eventually(lambda: not engine_api.context.run_states.watched_runs, what="the watch's end")


async def test_a_silence_is_filled_with_heartbeats_and_nothing_is_lost() -> None:
    release = asyncio.Event()

    async def source() -> AsyncGenerator[bytes, None]:
        yield b"first"
        await release.wait()
        yield b"second"

    got: list[bytes] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        got.append(message.get("body", b""))
        if got.count(b": heartbeat\n\n") == 3:
            release.set()

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    stream = EventStream(source(), asyncio.Event(), heartbeat=0.01)
    await stream({"type": "http", "method": "GET"}, receive, send)
    told = [piece for piece in got if piece]
    assert told[0] == b"first"
    assert [piece for piece in told if not piece.startswith(b":")] == [b"first", b"second"]
    assert told.count(b": heartbeat\n\n") >= 3


async def streamed(stream: EventStream, taken: Callable[[bytes], Awaitable[None]]) -> list[bytes]:
    """Serve a stream to a client that never leaves; return its pieces."""
    got: list[bytes] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            got.append(message["body"])
            await taken(message["body"])

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    await stream({"type": "http", "method": "GET"}, receive, send)
    return got


@pytest.mark.parametrize("by", ["the server", "its credential", "not reading"])
async def test_an_end_from_outside_ends_the_stream_and_its_source(by: str) -> None:
    closing, over, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def source() -> AsyncGenerator[bytes, None]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def reason() -> str:
        await over.wait()
        return "the credential has expired"

    async def taken(_: bytes) -> None:
        if by == "not reading":
            await asyncio.Event().wait()
        (closing if by == "the server" else over).set()

    stream = EventStream(source(), closing, heartbeat=0.01, ended=reason, send_seconds=0.02)
    got = await streamed(stream, taken)
    assert got == [b"first"] + [b": the credential has expired\n\n"] * (by == "its credential")
    assert ended.is_set()


async def test_an_error_of_the_source_is_not_swallowed() -> None:
    async def source() -> AsyncGenerator[bytes, None]:
        yield b"first"
        raise RuntimeError("broken")

    async def taken(_: bytes) -> None:
        pass

    with pytest.raises(RuntimeError, match="broken"):
        await streamed(EventStream(source(), asyncio.Event()), taken)


def test_a_frame_is_one_line_of_json_whatever_it_holds() -> None:
    told = frame("log", {"message": "two\nlines\r\nand : colon"}, "ab:1")
    assert told.count(b"\n") == 4
    assert told.startswith(b"id: ab:1\nevent: log\ndata: {")
