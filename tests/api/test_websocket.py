"""The WebSocket's words: who may come in, what each message does, and what ends a connection."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import msgpack
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api.principals import Principal
from api.streams.bounds import Bounds
from gpt_trader.runs import channel_of
from gpt_trader.settings import Home, Settings
from tests.api.conftest import OTHERS, Engine, Prefect, serving
from tests.api.sockets import Plain
from tests.waiting import eventually


@pytest.fixture
def bounds(engine_api: Engine) -> Iterator[Callable[..., None]]:
    """Set other bounds for the connections of a test."""
    streams = engine_api.context.streams

    def change(**changed: Any) -> None:
        streams.bounds = replace(Bounds(), **changed)

    yield change
    streams.bounds = Bounds()


@pytest.fixture
def local(engine_api: Engine) -> Iterator[Plain]:
    with Plain(engine_api, engine_api.key) as client:
        yield client


# Coming in


def test_a_key_in_a_message_a_header_or_a_ticket_lets_in(engine_api: Engine) -> None:
    with Plain(engine_api) as client:
        answer = client.ask("auth", token=engine_api.key)
        assert (answer["type"], answer["principal"], answer["expires_at"]) == ("authenticated", "local", None)
        assert "trade" in answer["scopes"]
    for headers in ({"Authorization": "Bearer key-of-bob"}, {"X-API-Key": "key-of-bob"}):
        with Plain(engine_api, headers=headers) as client:
            assert client.take()["principal"] == "bob"
            assert client.subscribe("system.events")["type"] == "subscribed"
    ticket = engine_api.http.post("/auth/stream-tickets").json()["ticket"]
    with Plain(engine_api, query=f"?ticket={ticket}") as client:
        assert client.take()["principal"] == "local"
    with Plain(engine_api, query=f"?ticket={ticket}") as client:  # a ticket opens one stream, once
        assert client.closed()[0] == 4401


def test_a_wrong_key_closes_wherever_it_stands(engine_api: Engine) -> None:
    with Plain(engine_api) as client:
        client.say("auth", token="gtk_nobody-has-this-key")
        assert client.closed()[0] == 4401
    with Plain(engine_api, headers={"Authorization": "Bearer guess"}) as client:
        code, reason = client.closed()
        assert code == 4401
        assert "guess" not in reason


def test_who_says_nothing_is_closed_in_time(engine_api: Engine, bounds: Callable[..., None]) -> None:
    bounds(auth_seconds=0.2)
    began = time.monotonic()
    with Plain(engine_api) as client:
        answer = client.ask("subscribe", channel="system.events")
        assert (answer["code"], answer["name"]) == (101, "unauthenticated")
        assert client.closed()[0] == 4401
    assert 0.15 < time.monotonic() - began < 5


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_a_foreign_page_is_refused_at_the_handshake(engine_api: Engine, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        Plain(engine_api, engine_api.key, headers={"Origin": origin})
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["request_id"]


def test_a_name_that_is_not_this_engines_is_refused(engine_api: Engine) -> None:
    host, _, port = engine_api.url.removeprefix("http://").partition(":")
    with pytest.raises(InvalidStatus) as refused:
        Plain("http://evil.example", engine_api.key, sock=socket.create_connection((host, int(port))))
    assert refused.value.response.status_code == 421


def test_a_refusal_is_no_error_of_ours(engine_api: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """Uvicorn calls an answer before the handshake an error of the app's: whoever is refused would fill the log."""
    with pytest.raises(InvalidStatus):
        Plain(engine_api, engine_api.key, headers={"Origin": "https://evil.example"})
    with Plain(engine_api, engine_api.key) as client:  # by now the refusal's task has come to its end
        assert client.subscribe("system.events")["type"] == "subscribed"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_our_own_page_may_come_in(engine_api: Engine) -> None:
    with Plain(engine_api, engine_api.key, headers={"Origin": engine_api.url}) as client:
        assert client.subscribe("system.events")["type"] == "subscribed"


def test_handshakes_are_limited_by_address(
    prefect: Prefect, api_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    limited = Settings.model_validate(
        api_settings.model_dump() | {"rate_limits": {"GET /ws/v1/": "3/minute"}}
    )
    with serving(limited, Home(tmp_path_factory.mktemp("ws") / "home"), prefect.url) as engine:
        for _ in range(3):
            Plain(engine).socket.close()
        with pytest.raises(InvalidStatus) as refused:
            Plain(engine)
    assert refused.value.response.status_code == 429
    assert int(refused.value.response.headers["Retry-After"]) > 0


def test_the_subprotocol_is_json_unless_msgpack_is_asked_for(engine_api: Engine) -> None:
    with Plain(engine_api, engine_api.key) as client:
        assert client.socket.subprotocol is None
    with Plain(engine_api, engine_api.key, subprotocol="gt.v1.json") as client:
        assert client.socket.subprotocol == "gt.v1.json"
    with (
        Plain(engine_api, engine_api.key, subprotocol="gt.v1.msgpack") as packed,
        Plain(engine_api, engine_api.key) as plain,
    ):
        assert packed.socket.subprotocol == "gt.v1.msgpack"
        for client in (packed, plain):
            assert client.subscribe("custom.codec")["type"] == "subscribed"
        plain.say("publish", channel="custom.codec", data={"text": "é🙂", "number": 1.5, "none": None})
        seen = [client.take_until(lambda m: m["type"] == "publication")[-1] for client in (packed, plain)]
        assert seen[0] == seen[1]
        assert seen[0]["data"] == {"text": "é🙂", "number": 1.5, "none": None}


# While it lasts


def test_a_credential_that_ends_closes_unless_it_is_renewed(engine_api: Engine) -> None:
    scopes = frozenset({"read"})
    OTHERS.hand_out("short", Principal("carol", scopes, expires_at=time.time() + 1.0))  # type: ignore[arg-type]
    with Plain(engine_api, "short") as stays, Plain(engine_api, "short") as leaves:
        OTHERS.hand_out("longer", Principal("carol", scopes, expires_at=time.time() + 3600))  # type: ignore[arg-type]
        assert stays.ask("auth", token="longer")["expires_at"] > time.time() + 3000
        code, reason = leaves.closed()
        assert (code, "expired" in reason) == (4401, True)
        assert stays.subscribe("system.events")["type"] == "subscribed"
        stays.say("auth", token="key-of-bob")  # what carol was granted is not bob's
        assert stays.closed()[0] == 4401


def test_a_key_that_is_taken_back_ends_its_streams(engine_api: Engine, bounds: Callable[..., None]) -> None:
    bounds(look_seconds=0.1)
    OTHERS.hand_out("revoked", Principal("dave", frozenset({"read"})))
    with Plain(engine_api, "revoked") as client:
        OTHERS.take_back("revoked")
        code, reason = client.closed()
    assert (code, "no longer good" in reason) == (4401, True)


def test_a_dead_client_is_found_by_its_silence(engine_api: Engine, bounds: Callable[..., None]) -> None:
    bounds(ping_seconds=0.1)
    with Plain(engine_api, engine_api.key, pongs=False) as mute:
        assert [mute.take()["type"] for _ in range(2)] == ["ping", "ping"]
        code, reason = mute.closed()
        assert (code, "without an answer" in reason) == (1011, True)


def test_who_answers_pings_stays(engine_api: Engine, bounds: Callable[..., None]) -> None:
    bounds(ping_seconds=0.2)
    with Plain(engine_api, engine_api.key, pongs=False) as alive:
        for _ in range(4):  # twice what a mute one is given
            assert alive.take()["type"] == "ping"
            alive.socket.send('{"type": "pong"}')
        assert alive.ask("ping")["type"] in ("ping", "pong")


def test_more_messages_than_allowed_end_the_connection_alone(engine_api: Engine, local: Plain) -> None:
    with Plain(
        engine_api, "key-of-eve", max_queue=None
    ) as flood:  # it reads the close behind all the answers
        with suppress(ConnectionClosed):
            for _ in range(100_000):
                flood.say("ping")
        assert flood.socket.close_code == 1008
    assert local.ask("ping")["type"] == "pong"


def test_twenty_messages_a_second_are_fine(engine_api: Engine, bounds: Callable[..., None]) -> None:
    bounds(messages_a_second=200.0, burst=20)
    with Plain(engine_api, engine_api.key) as client:
        for _ in range(60):
            began = time.monotonic()
            assert client.ask("ping")["type"] == "pong"
            eventually(lambda began=began: time.monotonic() - began > 1 / 180, what="its turn")  # type: ignore[misc]


def test_a_connection_has_at_most_so_many_subscriptions(local: Plain) -> None:
    for number in range(50):
        assert local.subscribe(f"custom.c{number}")["type"] == "subscribed"
    refused = local.subscribe("custom.c50")
    assert (refused["code"], refused["name"]) == (106, "limit_exceeded")
    assert local.ask("unsubscribe", channel="custom.c0")["type"] == "unsubscribed"
    assert local.subscribe("custom.c50")["type"] == "subscribed"


# What is no message


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("{", 1008),
        ("[]", 1008),
        ("", 1008),
        ("nul\x00", 1008),
        ("[" * 30_000, 1008),
        ('{"a":' * 5000, 1008),
        (b"\x80", 1003),
        ("x" * 70_000, 1009),
    ],
    ids=["half", "list", "empty", "nul", "deep list", "deep object", "binary", "oversize"],
)
def test_what_is_no_message_closes_and_harms_nobody(
    engine_api: Engine, local: Plain, content: str | bytes, code: int
) -> None:
    with Plain(engine_api, "key-of-eve") as client:
        client.socket.send(content)
        assert client.closed()[0] == code
    assert local.ask("ping")["type"] == "pong"


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"\xc1", 1008), (b"\x91" * 5000, 1008), (msgpack.packb({1: 2}), 1008), ("{}", 1003)],
    ids=["no code", "deep", "keys that are no text", "text"],
)
def test_what_is_no_packed_message_closes(engine_api: Engine, content: str | bytes, code: int) -> None:
    with Plain(engine_api, "key-of-eve", subprotocol="gt.v1.msgpack") as client:
        client.socket.send(content)
        assert client.closed()[0] == code


def test_text_that_is_not_utf8_closes(engine_api: Engine) -> None:
    with Plain(engine_api, "key-of-eve") as client:
        client.socket.send(b"\xff\xfe", text=True)
        assert client.closed()[0] == 1007


def recovering(position: dict[str, object]) -> dict[str, object]:
    return {"type": "subscribe", "channel": "system.events", "recover": position}


@pytest.mark.parametrize(
    ("message", "field", "nearest"),
    [
        ({"type": "subscibe", "channel": "system.events"}, "type", "subscribe"),
        ({"channel": "system.events"}, "type", None),
        ({"type": "subscribe"}, "channel", None),
        ({"type": "subscribe", "channel": "system.events", "chanel": 1}, "chanel", "channel"),
        ({"type": "subscribe", "channel": "market.stream"}, "data.symbol", None),
        ({"type": "subscribe", "channel": "market.stream", "data": {"symbl": "A"}}, "data.symbl", "symbol"),
        ({"type": "subscribe", "channel": "market.stream", "data": {"symbol": "../../x"}}, "data.symbol", None),
        ({"type": "subscribe", "channel": "market.stream", "data": {"symbol": ["A"]}}, "data.symbol", None),
        ({"type": "subscribe", "channel": "market.stream", "data": {"symbol": "A", "bars": 1e9}}, "data.bars", None),
        ({"type": "subscribe", "channel": "system.events", "data": {"symbol": "A"}}, "data.symbol", None),
        ({"type": "subscribe", "channel": "custom.a b"}, "channel", None),
        ({"type": "subscribe", "channel": "custom." + "x" * 100}, "channel", None),
        (recovering({"epoch": "A'", "offset": 1}), "recover.epoch", None),
        (recovering({"epoch": "ab", "offset": -1}), "recover.offset", None),
        (recovering({"epoch": "ab", "offset": 2**63}), "recover.offset", None),
        ({"type": "publish", "channel": "custom.note"}, "data", None),
        ({"type": "publish", "channel": "custom.note", "data": {"text": "x" * 40_000}}, "data", None),
        ({"type": "publish", "channel": "system.events", "data": {}}, "channel", None),
        ({"type": "publish", "channel": "custom.note", "data": {}, "event": "No!"}, "event", None),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_message_names_its_field_and_closes_nothing(
    local: Plain, message: dict[str, object], field: str, nearest: str | None
) -> None:
    local.socket.send(json.dumps({"id": "x", **message}))
    answer = local.take()
    assert (answer["type"], answer["id"], answer["code"]) == ("error", "x", 107)
    assert (answer["errors"][0]["field"], answer["errors"][0]["nearest"]) == (field, nearest)
    assert local.ask("ping")["type"] == "pong"


def test_numbers_that_json_has_no_words_for_are_refused(engine_api: Engine) -> None:
    with Plain(engine_api, engine_api.key, subprotocol="gt.v1.msgpack") as client:
        for odd in (float("nan"), float("inf"), b"bytes"):
            answer = client.ask("publish", channel="custom.odd", data={"odd": odd})
            assert (answer["type"], answer["code"]) == ("error", 107)


# Channels and their owners


def test_another_owners_run_is_one_that_nobody_knows(engine_api: Engine) -> None:
    run_id = engine_api.start()["run_id"]
    with Plain(engine_api, "key-of-bob") as bob:
        hidden = bob.subscribe(channel_of(run_id))
        nobodys = str(uuid4())
        unknown = bob.subscribe(channel_of(nobodys))
        nonsense = bob.subscribe("runs.x")
        other = bob.subscribe("alerts.mine")
    for answer in (hidden, unknown, nonsense, other):
        assert (answer["type"], answer["code"], answer["name"]) == ("error", 102, "unknown_channel")
    assert hidden["detail"].replace(run_id, nobodys) == unknown["detail"]


def test_custom_channels_and_sessions_are_each_owners_own(engine_api: Engine, local: Plain) -> None:
    OTHERS.hand_out("key-of-tom", Principal("tom", frozenset({"read", "trade"})))
    with Plain(engine_api, "key-of-tom") as tom, Plain(engine_api, "key-of-bob") as bob:
        for client in (local, tom, bob):
            assert client.subscribe("custom.note")["type"] == "subscribed"
        assert bob.ask("publish", channel="custom.note", data={})["code"] == 103
        placed = tom.ask("publish", channel="custom.note", data={"by": "tom"})
        assert placed["type"] == "published"
        local.say("publish", channel="custom.note", data={"by": "local"})
        found = local.take_until(lambda message: message["type"] == "publication")[-1]
        assert found["data"] == {"by": "local"}
        assert bob.ask("ping")["type"] == "pong"  # and nothing before it
    OTHERS.hand_out("key-of-ned", Principal("ned", frozenset({"read"})))  # who has no sessions
    with Plain(engine_api, "key-of-ned") as ned:
        for name, state in (
            ("portfolio.updates", {"schema_version": 1, "sessions": [], "omitted": 0}),
            ("trades.live", {}),
        ):
            assert ned.subscribe(name)["offset"] == 0
            snapshot = ned.take()
            assert (snapshot["type"], snapshot["channel"], snapshot["data"]) == ("snapshot", name, state)


def test_the_rest_route_publishes_into_the_same_channels(engine_api: Engine, local: Plain) -> None:
    local.subscribe("custom.rest")
    body = {"channel": "custom.rest", "data": {"n": 1}, "event": "note"}
    answer = engine_api.http.post("/system/events", json=body)
    assert answer.status_code == 201, answer.text
    found = local.take()
    assert (found["event"], found["data"], found["offset"]) == ("note", {"n": 1}, answer.json()["offset"])
    denied = engine_api.http.post("/system/events", json=body, headers={"Authorization": "Bearer key-of-bob"})
    assert denied.status_code == 403
    assert (
        engine_api.http.post("/system/events", json={**body, "channel": "system.events"}).status_code == 422
    )


def test_a_run_is_told_with_its_state_first(engine_api: Engine, prefect: Prefect, local: Plain) -> None:
    run_id = engine_api.start()["run_id"]
    channel = channel_of(run_id)
    step = {"stage": "search", "done": 3, "total": 9, "message": "best sharpe 1.2"}
    engine_api.events.append(channel, "progress", step)
    assert local.subscribe(channel)["offset"] == 2
    snapshot = local.take()
    assert snapshot["data"]["progress"] == step
    assert snapshot["data"]["state"]["state"] == "SCHEDULED"
    engine_api.events.append(channel, "log", {"level": "INFO", "message": "lone \ud800 surrogate"})
    assert local.take()["data"]["message"] == "lone ? surrogate"
    prefect.set_state(run_id, "CRASHED", "killed")  # what a run cannot tell itself
    last = local.take()
    assert (last["event"], last["data"]["state"], last["offset"]) == ("state", "CRASHED", 4)


def test_a_channel_is_subscribed_once(local: Plain) -> None:
    local.subscribe("custom.once")
    assert local.subscribe("custom.once")["name"] == "already_subscribed"
    assert local.ask("unsubscribe", channel="custom.never")["name"] == "not_subscribed"
    local.ask("unsubscribe", channel="custom.once")
    local.ask("publish", channel="custom.once", data={})
    assert local.ask("ping")["type"] == "pong"
    assert local.subscribe("custom.once", {"epoch": None, "offset": 0})["publications"][0]["offset"] == 1


def test_the_state_of_all_streams_is_for_their_owner_and_admins(engine_api: Engine, local: Plain) -> None:
    local.subscribe("market.stream", symbol="ACME")
    with Plain(engine_api, "key-of-bob") as bob:
        bob.subscribe("system.events")
        everything = engine_api.http.get("/system/streams").json()
        own = engine_api.http.get("/system/streams", headers={"Authorization": "Bearer key-of-bob"}).json()
    assert {each["principal"] for each in everything["connections"]} == {"local", "bob"}
    assert {(each["channel"], each["key"]) for each in everything["channels"]} >= {
        ("market.stream", "ACME"),
        ("system.events", None),
    }
    assert [each["principal"] for each in own["connections"]] == ["bob"]
    assert [(each["channel"], each["subscribers"]) for each in own["channels"]] == [("system.events", 1)]


def test_nothing_is_left_of_connections_that_have_ended(engine_api: Engine) -> None:
    with Plain(engine_api, engine_api.key) as client:
        client.subscribe("custom.gone")
    with Plain(engine_api, engine_api.key) as client:
        client.subscribe("custom.gone")
        client.socket.socket.shutdown(socket.SHUT_RDWR)  # cut, not closed
    streams = engine_api.context.streams
    eventually(lambda: not streams.connections and not streams.topics.all, what="nothing is followed")


# The end


def test_a_server_that_ends_says_when_to_come_back(
    prefect: Prefect, api_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = Home(tmp_path_factory.mktemp("ws") / "home")
    running = serving(api_settings, home, prefect.url)
    with running as engine:
        clients = [Plain(engine, engine.key) for _ in range(20)]
        for client in clients:
            client.subscribe("system.events")
        stuck = Plain(engine, engine.key)
        stuck.subscribe("custom.stuck")
        began = time.monotonic()
    seconds = time.monotonic() - began
    waits = []
    for client in clients:
        notice = client.take()
        assert notice["type"] == "shutdown"
        waits.append(notice["reconnect_in_ms"])
        assert client.closed()[0] == 1012
    assert all(500 <= wait <= 4500 for wait in waits)
    assert len(set(waits)) > 10  # not all at once
    assert seconds < 6
