"""What both streams promise, SSE and WebSocket, whoever writes and whichever process serves: all, in order, once."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from cli.client.stream import LiveStream
from cli.client.wire import Target
from gpt_trader.runs import LOCAL, channel_of
from gpt_trader.settings import Home, Settings
from storage.events import NewEvent
from tests.api.conftest import Engine, Prefect, events_of, free_port, serving
from tests.api.sockets import Plain
from tests.waiting import eventually

WRITERS, EACH = 3, 40

_WRITER = """
import sys
from sqlalchemy import make_url
from storage.database import engine_for
from storage.events import EventLog, NewEvent
url, name, channel, count = sys.argv[1:]
log = EventLog(engine_for(make_url(url)))
for number in range(int(count)):
    log.append_many(channel, [NewEvent("log", {"by": name, "n": number})])
"""


class Reader(Protocol):
    """One way to read a run's stream: from behind a position (None: from its first event), `epoch:offset` each."""

    def __call__(
        self, engine: Engine, run_id: str, after: str | None
    ) -> Iterator[tuple[str, dict[str, object]]]: ...


def by_sse(engine: Engine, run_id: str, after: str | None) -> Iterator[tuple[str, dict[str, object]]]:
    headers = {"Authorization": f"Bearer {engine.key}"} | ({"Last-Event-ID": after} if after else {})
    url = f"{engine.url}/api/v1/workflows/runs/{run_id}/events"
    with httpx.stream("GET", url, headers=headers, timeout=20, trust_env=False) as answer:
        assert answer.status_code == 200, answer.read()
        for event in events_of(answer.iter_lines()):
            if "id" in event:
                yield event["id"], {"event": event["event"], **json.loads(event["data"])}


def by_websocket(packed: bool) -> Reader:
    def read(engine: Engine, run_id: str, after: str | None) -> Iterator[tuple[str, dict[str, object]]]:
        epoch, _, offset = (after or ":0").partition(":")
        subprotocol = "gt.v1.msgpack" if packed else "gt.v1.json"
        with Plain(engine, engine.key, subprotocol=subprotocol) as client:
            answer = client.subscribe(channel_of(run_id), {"epoch": epoch or None, "offset": int(offset)})
            assert answer["recovered"], answer
            publications = iter(answer["publications"])
            while True:
                each = next(publications, None) or client.take(20)
                yield f"{each['epoch']}:{each['offset']}", {"event": each["event"], **each["data"]}

    return read


READERS = pytest.mark.parametrize(
    "read", [by_sse, by_websocket(False), by_websocket(True)], ids=["sse", "websocket", "websocket packed"]
)


def take(stream: Iterator[tuple[str, dict[str, object]]], count: int) -> list[tuple[str, dict[str, object]]]:
    return [next(stream) for _ in range(count)]


def recorded_run(engine: Engine) -> str:
    """Register a run of the local owner that Prefect knows nothing of: its channel holds what the test appends."""
    return str(engine.start()["run_id"])


def write_beside(engine: Engine, channel: str, count: int = EACH) -> list[subprocess.Popen[bytes]]:
    url = engine.context.database.url.render_as_string(hide_password=False)
    command = [sys.executable, "-P", "-c", _WRITER, url]
    return [subprocess.Popen([*command, f"w{n}", channel, str(count)]) for n in range(WRITERS)]


@READERS
def test_many_writers_and_readers_see_one_story(engine_api: Engine, read: Reader) -> None:
    run_id = recorded_run(engine_api)
    total = 1 + WRITERS * EACH
    seen: list[list[tuple[str, dict[str, object]]]] = [[] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda kept=kept: kept.extend(take(read(engine_api, run_id, None), total)))  # type: ignore[misc]
        for kept in seen
    ]
    for thread in threads[:2]:
        thread.start()
    writers = write_beside(engine_api, channel_of(run_id))
    for thread in threads[2:]:  # these come in the middle of it
        thread.start()
    assert [process.wait(timeout=60) for process in writers] == [0] * WRITERS
    for thread in threads:
        thread.join(timeout=30)
    for story in seen:
        assert [int(at.split(":")[1]) for at, _ in story] == list(range(1, total + 1))
        assert story == seen[0]
        for name in ("w0", "w1", "w2"):
            assert [facts["n"] for _, facts in story if facts.get("by") == name] == list(range(EACH))


@READERS
def test_a_reader_goes_on_behind_any_position(engine_api: Engine, read: Reader) -> None:
    run_id = recorded_run(engine_api)
    events = [NewEvent("progress", {"n": number}) for number in range(250)]
    engine_api.events.append_many(channel_of(run_id), events)
    whole = take(read(engine_api, run_id, None), 251)
    for cut in (1, 99, 100, 101, 200, 250):
        rest = take(read(engine_api, run_id, whole[cut - 1][0]), 251 - cut)
        assert rest == whole[cut:]


@READERS
def test_two_processes_tell_the_same(
    engine_api: Engine, prefect: Prefect, api_settings: Settings, tmp_path: Path, read: Reader
) -> None:
    run_id = recorded_run(engine_api)
    channel = channel_of(run_id)
    with serving(api_settings, Home(tmp_path / "second"), prefect.url) as second:
        streams = [read(each, run_id, None) for each in (engine_api, second)]
        assert len({next(stream)[0] for stream in streams}) == 1
        for number in range(20):
            (engine_api, second)[number % 2].events.append(channel, "log", {"n": number})
        told = [take(stream, 20) for stream in streams]
    assert told[0] == told[1]
    assert [facts["n"] for _, facts in told[0]] == list(range(20))


def test_a_position_that_is_gone_is_said_to_be(engine_api: Engine) -> None:
    run_id = recorded_run(engine_api)
    with Plain(engine_api, engine_api.key) as client:
        for wrong in ({"epoch": "ffffffff0", "offset": 1}, {"epoch": None, "offset": 3}):
            answer = client.subscribe(channel_of(run_id), wrong)
            assert (answer["code"], answer["name"]) == (112, "unrecoverable_position")
            assert answer["channel"] == channel_of(run_id)
        assert client.subscribe(channel_of(run_id))["offset"] == 1  # and it can be had anew


def test_a_channel_that_begins_anew_tells_its_subscribers(engine_api: Engine) -> None:
    from sqlalchemy import text

    with Plain(engine_api, engine_api.key) as client:
        client.subscribe("custom.anew", {"epoch": None, "offset": 0})
        engine_api.events.append("custom.local.anew", "message", {"n": 0})
        assert client.take()["data"] == {"n": 0}  # else it would not know that there was another life
        with engine_api.context.database.begin() as connection:
            removing = "DELETE FROM channels WHERE channel = 'custom.local.anew'"
            assert connection.execute(text(removing)).rowcount == 1
        engine_api.events.append("custom.local.anew", "message", {"n": 1})
        answer = client.take_until(lambda message: message["type"] == "error")[-1]
        assert (answer["code"], answer["channel"]) == (112, "custom.anew")
        eventually(lambda: not engine_api.context.streams.topics.all, what="the old life is followed no more")
        again = client.subscribe("custom.anew", {"epoch": None, "offset": 0})
        assert [each["data"]["n"] for each in again["publications"]] == [1]


@contextmanager
def restartable(
    prefect: Prefect, settings: Settings, home: Home
) -> Iterator[tuple[Callable[[], Engine], Callable[[], None]]]:
    """Serve at one port; yield what gives the engine and what restarts it."""
    port = free_port()
    running = serving(settings, home, prefect.url, port=port)
    engine = running.__enter__()

    def restart() -> None:
        nonlocal running, engine
        running.__exit__()
        running = serving(settings, home, prefect.url, port=port)
        engine = running.__enter__()

    try:
        yield lambda: engine, restart
    finally:
        running.__exit__()


def test_a_hundred_reconnects_and_a_restart_lose_nothing(
    prefect: Prefect, api_settings: Settings, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Cut a hundred times while three processes write, the server restarted in the middle: lost = 0, duplicate = 0."""
    cuts, each = 100, 200
    with restartable(prefect, api_settings, Home(tmp_path / "home")) as (engine, restart):
        channel = f"custom.{LOCAL}.cut"
        writers = write_beside(engine(), channel, each)
        key = engine().key
        seen: list[tuple[int, str, int]] = []
        position: dict[str, object] = {"epoch": None, "offset": 0}
        cut_within = 0
        for cut in range(cuts):
            if cut == cuts // 2:
                restart()
            with Plain(engine(), key) as client:
                answer = client.subscribe("custom.cut", position)
                assert answer["recovered"], answer
                told = list(answer["publications"]) or [client.take()]
                client.socket.socket.shutdown(2)
            # What the cut took away: the client knows only a few of them, and goes on behind the last of these.
            kept = told[: 1 + cut % 9]
            cut_within += len(kept) < len(told)
            seen += [(one["offset"], one["data"]["by"], one["data"]["n"]) for one in kept]
            position = {"epoch": kept[-1]["epoch"], "offset": kept[-1]["offset"]}
        assert cut_within > cuts // 2  # most cuts fell between events that had been sent
        assert [process.wait(timeout=60) for process in writers] == [0] * WRITERS
        with Plain(engine(), key) as client:
            answer = client.subscribe("custom.cut", position)
            told = list(answer["publications"])
            while len(seen) + len(told) < WRITERS * each:
                told.append(client.take())
            seen += [(one["offset"], one["data"]["by"], one["data"]["n"]) for one in told]
    offsets = [offset for offset, _, _ in seen]
    lost = WRITERS * each - len(set(offsets))
    duplicates = len(offsets) - len(set(offsets))
    figure(
        f"stream: {cuts} reconnects, one restart, {len(offsets)} events: lost {lost}, duplicate {duplicates}"
    )
    assert offsets == list(range(1, WRITERS * each + 1))
    for name in ("w0", "w1", "w2"):
        assert [n for _, by, n in seen if by == name] == list(range(each))


def test_our_client_comes_back_by_itself(prefect: Prefect, api_settings: Settings, tmp_path: Path) -> None:
    with restartable(prefect, api_settings, Home(tmp_path / "home")) as (engine, restart):
        numbers: list[int] = []
        with LiveStream(lambda: Target(engine().url, engine().key)) as stream:
            stream.subscribe("custom.client", whole=True)
            for number in range(6):
                if number == 3:
                    restart()
                engine().events.append(f"custom.{LOCAL}.client", "message", {"n": number})
                while len(numbers) <= number:
                    message = stream.receive(10)
                    assert message is not None
                    if message["type"] == "publication":
                        numbers.append(message["data"]["n"])
            assert stream.connections == 2
    assert numbers == list(range(6))
