"""A stream outlives the look at its credential: what ends that ends the stream, however it was opened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest

from api.accounts.remembered import SECONDS as REMEMBERED
from api.accounts.tokens import AUDIENCE
from api.streams.bounds import Bounds
from gpt_trader.runs import channel_of
from gpt_trader.settings import Home
from storage.cluster import Cluster
from tests.api.account_samples import NOBODY, Person, account_settings, person, serving_accounts
from tests.api.conftest import Engine, serving
from tests.api.sockets import Plain

LOOK = 0.2


@pytest.fixture(scope="module")
def engine(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with serving_accounts(postgres, tmp_path_factory.mktemp("streams")) as served:
        served.context.streams.bounds = replace(Bounds(), look_seconds=LOOK)
        yield served


class Opened:
    """Streams of a person's run, opened in every way there is; each says that it is open before the test goes on."""

    def __init__(
        self, engine: Engine, who: Person, key: str, stack: ExitStack, token: str | None = None
    ) -> None:
        run_id = uuid4()
        engine.context.runs.register(run_id, "backtest", who.principal, {"symbol": "ACME"})
        engine.events.append(channel_of(run_id), "log", {"n": 0})
        url = f"{engine.url}/api/v1/workflows/runs/{run_id}/events"
        self.sockets: dict[str, Plain] = {}
        self.events: dict[str, Iterator[str]] = {}
        for name, credential in (("token", token or who.access), ("key", key)):
            bearer = {"Authorization": f"Bearer {credential}"}
            for way in ("header", "ticket"):
                query, headers = "", bearer
                if way == "ticket":
                    ticket = who.ask("POST", "/auth/stream-tickets", credential).json()["ticket"]
                    query, headers = f"?ticket={ticket}", {}
                client = stack.enter_context(Plain(engine, headers=headers, query=query))
                assert client.take()["principal"] == who.principal
                assert client.subscribe(channel_of(run_id))["type"] == "subscribed"
                self.sockets[f"{name} {way}"] = client
                if way == "ticket":
                    ticket = who.ask("POST", "/auth/stream-tickets", credential).json()["ticket"]
                    query = f"?ticket={ticket}"
                answer = stack.enter_context(httpx.stream("GET", url + query, headers=headers, timeout=20))
                assert answer.status_code == 200
                lines = answer.iter_lines()
                assert next(lines).startswith("id: ")
                self.events[f"{name} {way}"] = lines
        self._engine, self._run_id = engine, run_id

    def end(self, name: str) -> tuple[int, str]:
        """Wait until both streams of a kind end; return the WebSocket's code and SSE's last line."""
        said = [line for line in self.events[name] if line.startswith(":")]
        return self.sockets[name].closed()[0], said[-1] if said else ""

    def go_on(self, name: str) -> None:
        """Demand that both streams of a kind still tell what happens."""
        self._engine.events.append(channel_of(self._run_id), "log", {"n": name})
        self.sockets[name].take_until(lambda message: message.get("data") == {"n": name})
        assert next(line for line in self.events[name] if name in line).startswith("data: ")


def key_of(who: Person) -> dict[str, Any]:
    made = who.ask("POST", "/auth/api-keys", json={"name": "streams", "scopes": ["read"]})
    assert made.status_code == 201, made.text
    answer: dict[str, Any] = made.json()
    return answer


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


ALL = ("token header", "token ticket", "key header", "key ticket")


def switch_off(engine: Engine, who: Person, _: str) -> None:
    assert engine.http.patch(f"/auth/users/{who.id}", json={"is_active": False}).status_code == 200


def log_out(_: Engine, who: Person, __: str) -> None:
    assert who.ask("POST", "/auth/logout").status_code == 204


def remove_key(_: Engine, who: Person, key_id: str) -> None:
    assert who.ask("DELETE", f"/auth/api-keys/{key_id}").status_code == 204


@pytest.mark.parametrize(
    ("act", "ending"),
    [(switch_off, ALL), (log_out, ALL[:2]), (remove_key, ALL[2:])],
    ids=["account switched off", "logged out", "key removed"],
)
def test_what_ends_a_credential_ends_its_streams(
    engine: Engine, stack: ExitStack, act: Callable[[Engine, Person, str], None], ending: tuple[str, ...]
) -> None:
    who, other = person(engine), person(engine)
    key, others_key = key_of(who), key_of(other)
    opened = Opened(engine, who, key["key"], stack)
    others = Opened(engine, other, others_key["key"], stack)
    began = time.monotonic()
    act(engine, who, key["id"])
    for name in ending:
        code, said = opened.end(name)
        assert (code, said) == (4401, ": the credential is no longer good"), name
    assert time.monotonic() - began < LOOK + 5
    for name in ALL:
        if name not in ending:
            opened.go_on(name)
        others.go_on(name)


def test_a_role_that_shrinks_ends_streams_that_may_come_back(engine: Engine, stack: ExitStack) -> None:
    """What an administrator saw of others' is not theirs to go on with."""
    admin, owner = person(engine, "admin"), person(engine)
    person(engine, "admin")  # the last one could not be made anything else
    run_id = uuid4()
    engine.context.runs.register(run_id, "backtest", owner.principal, {"symbol": "ACME"})
    client = stack.enter_context(Plain(engine, admin.access))
    assert client.subscribe(channel_of(run_id))["type"] == "subscribed"
    assert engine.http.patch(f"/auth/users/{admin.id}", json={"role": "viewer"}).status_code == 200
    assert client.closed()[0] == 1013
    again = stack.enter_context(Plain(engine, admin.access))
    assert again.subscribe(channel_of(run_id))["name"] == "unknown_channel"


def test_a_token_that_expires_ends_its_streams_to_the_second(engine: Engine, stack: ExitStack) -> None:
    """Row 24: in the middle of a stream; also one that its ticket opened, which ends when the token does."""
    who = person(engine)
    claims = jwt.decode(who.access, options={"verify_signature": False}, audience=AUDIENCE)
    signing = engine.context.accounts.keys.current()
    ends = int(time.time()) + 3
    token = jwt.encode({**claims, "exp": ends}, signing.secret, "HS256", headers={"kid": signing.kid})
    opened = Opened(engine, who, key_of(who)["key"], stack, token)
    opened.go_on("token header")
    for name in ALL[:2]:
        code, said = opened.end(name)
        assert (code, said) == (4401, ": the credential has expired")
    assert 0 <= time.time() - ends < 2
    opened.go_on("key ticket")


@pytest.mark.slow
def test_another_process_ends_them_within_the_stated_bound(
    postgres: Cluster, tmp_path: Path, stack: ExitStack, figure: Callable[[str], None]
) -> None:
    """Two APIs over one database, with the bounds as they ship: switched off on one, ended on the other."""
    settings = account_settings(postgres)
    first = stack.enter_context(serving(settings, Home(tmp_path / "home"), NOBODY))
    second = stack.enter_context(serving(settings, Home(tmp_path / "home"), NOBODY))
    who = person(first)
    opened = Opened(second, who, key_of(who)["key"], stack)
    switch_off(first, who, "")
    began = time.monotonic()
    for name in ALL:
        assert opened.end(name)[0] == 4401
    seconds = time.monotonic() - began
    figure(f"switched off on another process: four WebSockets and four SSE streams ended in {seconds:.1f} s")
    assert seconds < Bounds().look_seconds + REMEMBERED + 1


def test_a_ticket_of_an_ended_login_opens_nothing(engine: Engine) -> None:
    who = person(engine)
    ticket = who.ask("POST", "/auth/stream-tickets").json()["ticket"]
    log_out(engine, who, "")
    with Plain(engine, query=f"?ticket={ticket}") as client:
        assert client.closed()[0] == 4401


def test_who_is_somebody_else_or_can_do_less_cannot_take_a_connection_over(engine: Engine) -> None:
    who = person(engine)
    for wrong in (person(engine).access, key_of(who)["key"]):  # the key may only read
        with Plain(engine, who.access) as client:
            client.say("auth", token=wrong)
            assert client.closed()[0] == 4401
    with Plain(engine, who.access) as client:
        assert client.ask("auth", token=who.access)["type"] == "authenticated"


def test_user_b_gets_nothing_of_user_as(engine: Engine, stack: ExitStack) -> None:
    """Row 23, on the streams: every channel of A's, asked for by B in every way; what A's streams carry stays A's."""
    ann, bob = person(engine, "trader"), person(engine, "trader")
    run_id = uuid4()
    engine.context.runs.register(run_id, "backtest", ann.principal, {"symbol": "ACME"})
    theirs = stack.enter_context(Plain(engine, ann.access))
    mine = stack.enter_context(Plain(engine, bob.access))
    assert theirs.subscribe(channel_of(run_id))["type"] == "subscribed"
    hidden = [channel_of(run_id), f"custom.{ann.principal}.note", f"portfolio.updates.{ann.principal}"]
    hidden += [f"trades.live.{ann.principal}", f"runs.{run_id}.x", f"runs.{str(run_id).upper()}"]
    hidden += [
        f"custom.user:{UUID(ann.id)}.note",
        "custom..note",
        "custom.%2e%2e.note",
        "runs.*",
        "*",
        "custom.*",
    ]
    for name in hidden:
        for recover in (None, {"epoch": None, "offset": 0}):
            assert mine.subscribe(name, recover)["type"] == "error", name
    shared = ("custom.note", "portfolio.updates", "trades.live")
    for name in shared:
        for client in (theirs, mine):
            assert client.subscribe(name)["type"] == "subscribed"
    log = engine.events
    escaped = ann.principal  # a colon is a letter of a log channel's name
    for number in range(3):
        assert theirs.ask("publish", channel="custom.note", data={"n": number})["type"] == "published"
        log.append(f"portfolio.updates.{escaped}", "portfolio", {"n": number})
        log.append(f"trades.live.{escaped}", "fill", {"n": number})
        log.append(channel_of(run_id), "log", {"n": number})
    told: set[tuple[str, int]] = set()
    while not {("portfolio.updates", 2), ("trades.live", 2), (channel_of(run_id), 2)} <= told:
        message = theirs.take()
        if message["type"] == "publication":
            told.add((message["channel"], message["data"]["n"]))
    leaked = mine.take_until(lambda message: message["type"] == "pong") if mine.say("ping") else []
    assert [each for each in leaked if each["type"] == "publication"] == []
    url = f"{engine.url}/api/v1/workflows/runs/{run_id}/events"
    ticket = bob.ask("POST", "/auth/stream-tickets").json()["ticket"]
    assert bob.ask("GET", f"/workflows/runs/{run_id}/events").status_code == 404
    assert httpx.get(url, params={"ticket": ticket}).status_code == 404
