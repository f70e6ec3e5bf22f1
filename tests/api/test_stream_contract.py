"""What both streams promise, SSE and WebSocket, whoever writes and whichever process serves: all, in order, once."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
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
from tests.api.test_process import environment, is_live, running
from tests.waiting import eventually

WRITERS, EACH = 3, 40

_WRITER = """
import sys
import time
from sqlalchemy import make_url
from storage.database import engine_for
from storage.events import EventLog, NewEvent
url, name, channel, count, pause = sys.argv[1:]
log = EventLog(engine_for(make_url(url)))
for number in range(int(count)):
    time.sleep(float(pause))
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
            try:
                while True:
                    each = next(publications, None) or client.take(20)
                    yield f"{each['epoch']}:{each['offset']}", {"event": each["event"], **each["data"]}
            finally:
                with suppress(OSError):
                    client.socket.socket.shutdown(socket.SHUT_RDWR)  # cut, not closed

    return read


READERS = pytest.mark.parametrize(
    "read", [by_sse, by_websocket(False), by_websocket(True)], ids=["sse", "websocket", "websocket packed"]
)


def take(stream: Iterator[tuple[str, dict[str, object]]], count: int) -> list[tuple[str, dict[str, object]]]:
    return [next(stream) for _ in range(count)]


def recorded_run(engine: Engine) -> str:
    """Register a run of the local owner that Prefect knows nothing of: its channel holds what the test appends."""
    return str(engine.start()["run_id"])


def write_beside(
    engine: Engine, channel: str, count: int = EACH, pause: float = 0.0
) -> list[subprocess.Popen[bytes]]:
    url = engine.context.database.url.render_as_string(hide_password=False)
    command = [sys.executable, "-P", "-c", _WRITER, url]
    return [subprocess.Popen([*command, f"w{n}", channel, str(count), str(pause)]) for n in range(WRITERS)]


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


@READERS
@pytest.mark.parametrize("cuts", [15, pytest.param(100, marks=pytest.mark.slow)])
def test_reconnects_and_a_restart_lose_nothing(
    engine_api: Engine,
    prefect: Prefect,
    api_settings: Settings,
    tmp_path: Path,
    read: Reader,
    cuts: int,
    request: pytest.FixtureRequest,
    figure: Callable[[str], None],
) -> None:
    """Row 25: cut again and again while three processes write, the server restarted in the middle.

    A client that is cut knows only the first few of what was sent, and goes on behind the last of these.
    """
    seed = 20261127 + cuts
    chance = random.Random(seed)
    each = cuts * 2
    with restartable(prefect, api_settings, Home(tmp_path / "home")) as (engine, restart):
        run_id = recorded_run(engine_api)
        writers = write_beside(engine_api, channel_of(run_id), each, 0.01)
        seen: list[tuple[str, dict[str, object]]] = []
        for cut in range(cuts):
            if cut == cuts // 2:
                restart()
            stream = read(engine(), run_id, seen[-1][0] if seen else None)
            seen += take(stream, chance.randint(1, 5))
            stream.close()  # type: ignore[attr-defined]  # it is a generator
        assert [process.wait(timeout=60) for process in writers] == [0] * WRITERS
        rest = 1 + WRITERS * each - len(seen)
        seen += take(read(engine(), run_id, seen[-1][0]), rest)
    offsets = [int(position.split(":")[1]) for position, _ in seen]
    lost, duplicates = 1 + WRITERS * each - len(set(offsets)), len(offsets) - len(set(offsets))
    way = request.node.callspec.id
    told = f"{cuts} reconnects and a restart, {len(offsets)} events: lost {lost}, duplicate {duplicates}"
    figure(f"{way}: {told} (seed {seed})")
    assert offsets == list(range(1, 2 + WRITERS * each)), f"seed {seed}"
    for name in ("w0", "w1", "w2"):
        assert [facts["n"] for _, facts in seen if facts.get("by") == name] == list(range(each))


def test_two_real_processes_and_a_third_that_writes(
    engine_api: Engine, prefect: Prefect, api_settings: Settings, tmp_path: Path
) -> None:
    """A client on each API, events of processes that serve nobody, and what is published on one heard on the other."""
    port = free_port()
    variables = environment(api_settings, tmp_path / "home", port, prefect.url)
    run_id = recorded_run(engine_api)
    with running(variables, tmp_path) as process:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=f"{url}/api/v1/system", trust_env=False) as http:
            eventually(lambda: is_live(http) or process.poll(), seconds=60, what="the second API's life")
        other = replace(engine_api, url=url, key=(tmp_path / "home" / "key").read_text().strip())
        streams = [
            read(api, run_id, None) for read in (by_sse, by_websocket(False)) for api in (engine_api, other)
        ]
        assert len({next(stream)[0] for stream in streams}) == 1
        writers = write_beside(engine_api, channel_of(run_id))
        stories = [take(stream, WRITERS * EACH) for stream in streams]
        assert [writer.wait(timeout=60) for writer in writers] == [0] * WRITERS
        assert all(story == stories[0] for story in stories)
        assert [int(at.split(":")[1]) for at, _ in stories[0]] == list(range(2, 2 + WRITERS * EACH))
        with Plain(engine_api, engine_api.key) as here, Plain(other, other.key) as there:
            for client in (here, there):
                assert client.subscribe("custom.across")["type"] == "subscribed"
            said = here.say("publish", channel="custom.across", data={"from": "here"})
            heard = there.take()
            assert (heard["channel"], heard["data"]) == ("custom.across", {"from": "here"})
            answers = here.take_until(lambda message: message.get("id") == said)
            assert answers[-1]["offset"] == heard["offset"]
        for stream in streams:
            stream.close()  # type: ignore[attr-defined]  # they are generators


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


def test_our_client_begins_anew_where_it_must_and_says_so(engine_api: Engine) -> None:
    from sqlalchemy import text

    with LiveStream(lambda: Target(engine_api.url, engine_api.key)) as stream:
        stream.subscribe("custom.reborn", whole=True)
        told: list[tuple[str, object]] = []

        def take_one(wanted: str) -> None:
            while not told or told[-1][0] != wanted:
                message = stream.receive(10)
                assert message is not None
                told.append((message["type"], message.get("data")))

        engine_api.events.append("custom.local.reborn", "message", {"n": 0})
        take_one("publication")
        with engine_api.context.database.begin() as connection:
            connection.execute(text("DELETE FROM channels WHERE channel = 'custom.local.reborn'"))
        engine_api.events.append("custom.local.reborn", "message", {"n": 1})
        take_one("reset")
        take_one("subscribed")
        engine_api.events.append("custom.local.reborn", "message", {"n": 2})
        take_one("publication")
        assert told[-1] == ("publication", {"n": 2})
        assert stream.connections == 1


def test_events_of_a_run_that_begin_anew_are_told_anew(engine_api: Engine) -> None:
    """Server-sent events: the stream goes on in the channel's new life, after a `reset`."""
    from sqlalchemy import text

    run_id = recorded_run(engine_api)
    channel = channel_of(run_id)
    url = f"{engine_api.url}/api/v1/workflows/runs/{run_id}/events"
    headers = {"Authorization": f"Bearer {engine_api.key}"}
    with httpx.stream("GET", url, headers=headers, timeout=20, trust_env=False) as answer:
        events = events_of(answer.iter_lines())
        first = next(events)
        with engine_api.context.database.begin() as connection:
            connection.execute(text("DELETE FROM channels WHERE channel = :channel"), {"channel": channel})
        engine_api.events.append(channel, "log", {"n": 1})
        reset, told = next(events), next(events)
    assert reset["event"] == "reset"
    assert "id" not in reset
    assert (told["event"], json.loads(told["data"])) == ("log", {"n": 1})
    assert told["id"].split(":")[0] != first["id"].split(":")[0]


def test_a_page_goes_on_by_its_address(engine_api: Engine) -> None:
    """A browser's new EventSource sends no `Last-Event-ID`: `?after=` stands for it."""
    run_id = recorded_run(engine_api)
    for number in range(3):
        position = engine_api.events.append(channel_of(run_id), "log", {"n": number})
    engine_api.events.append(channel_of(run_id), "log", {"n": 3})
    ticket = engine_api.http.post("/auth/stream-tickets").json()["ticket"]
    url = f"{engine_api.url}/api/v1/workflows/runs/{run_id}/events"
    query = {"ticket": ticket, "after": str(position)}
    with httpx.stream("GET", url, params=query, timeout=20, trust_env=False) as answer:
        assert json.loads(next(events_of(answer.iter_lines()))["data"]) == {"n": 3}


def test_prometheus_is_told_of_the_streams(engine_api: Engine) -> None:
    def measured() -> dict[str, float]:
        lines = engine_api.http.get("/system/metrics").text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("gpt_trader_stream_"))
        return {name.removeprefix("gpt_trader_stream_"): float(value) for name, value in pairs}

    eventually(lambda: not engine_api.context.streams.connections, what="earlier clients are gone")
    before = measured()
    run_id = recorded_run(engine_api)
    stream = by_sse(engine_api, run_id, None)
    next(stream)
    with (
        Plain(engine_api, engine_api.key, subprotocol="gt.v1.msgpack") as packed,
        Plain(engine_api, engine_api.key) as plain,
    ):
        plain.subscribe("custom.measured")
        plain.subscribe(channel_of(run_id))
        packed.subscribe("market.stream", symbol="ACME", bars=0)
        plain.subscribe("custom.measured2", {"epoch": "aaaa", "offset": 3})
        engine_api.events.append(f"custom.{LOCAL}.measured", "message", {})
        plain.take_until(lambda message: message.get("channel") == "custom.measured")
        now = measured()
    assert now['connections{codec="json"}'] == now['connections{codec="msgpack"}'] == 1
    assert now["event_streams"] == before["event_streams"] + 1
    names = ("custom.*", "market.stream", "runs.*")
    assert [now[f'subscriptions{{channel="{name}"}}'] for name in names] == [1, 1, 1]
    assert now["unrecoverable_total"] == before["unrecoverable_total"] + 1
    assert now["lag_seconds_count"] > before["lag_seconds_count"]
    assert now["sent_total"] > before["sent_total"]
    assert now["queued_messages"] == now["queued_bytes"] == 0
    assert run_id not in engine_api.http.get("/system/metrics").text
    left, already = 'closed_total{code="0"}', before.get('closed_total{code="0"}', 0)
    eventually(lambda: measured().get(left, 0) >= already + 2, what="both are counted as gone")
    stream.close()  # type: ignore[attr-defined]  # it is a generator
