"""User A and user B: nobody sees, follows, changes or finds what is another user's, on any route or channel.

Every operation of the OpenAPI document is asked, whatever is added to it: those that take an id of something owned must
answer 404 in the words for an id that nobody has; of all others no answer may hold anything of A's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from api.app import create_app
from api.streams.protocol import Code
from gpt_trader.settings import Home, Settings
from storage.cluster import Cluster
from storage.sessions import SessionStore
from tests.api.account_samples import CHEAP, Person, account_settings, person, with_hasher
from tests.api.conftest import Engine, Prefect, fill_lake, serving
from tests.api.session_samples import written_down
from tests.api.sockets import Plain
from tests.api.test_health_and_errors import problem
from tests.api.test_runs import finish

#: Ids of things that everybody shares (the market, the strategies, the workflows with the schedules that administrators
#: made) and of accounts, which are for administrators whoever they are.
SHARED = {"symbol", "snapshot", "name", "user_id"}

#: The ids in queries and bodies that belong to somebody; a test of its own is behind each.
OWNED_ELSEWHERE = {
    "GET /api/v1/strategies/compare runs",
    "POST /api/v1/paper-trade/sessions session",
    "POST /api/v1/paper-trade/certificates session",
    "POST /api/v1/paper-trade/daily sessions",
    "POST /api/v1/workflows/{name}/runs session",
    "POST /api/v1/workflows/{name}/runs sessions",
    "GET /api/v1/portfolio/trades session",
}

DOCUMENT = create_app(Settings(), Home(Path("/nowhere"))).openapi()
ALL = [f"{method.upper()} {path}" for path, methods in DOCUMENT["paths"].items() for method in methods]
ROUTES = [route for route in ALL if set(re.findall(r"{(\w+)}", route)) - SHARED]
OTHERS = [route for route in ALL if route not in ROUTES]


@dataclass(frozen=True)
class Belongings:
    """What user A has: a finished run, a going one, a key, a session, an alert."""

    finished: str
    going: str
    key: str
    session: str
    alert: str
    marks: tuple[str, ...]

    def seen_in(self, text: str) -> list[str]:
        """Return what of it stands in an answer."""
        return [mark for mark in self.marks if mark in text]


@pytest.fixture(scope="module")
def engine(prefect: Prefect, postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    home = Home(tmp_path_factory.mktemp("ownership") / "home")
    fill_lake(home)
    with serving(account_settings(postgres), home, prefect.url) as served:
        yield with_hasher(served, CHEAP)


@pytest.fixture(scope="module")
def ann(engine: Engine) -> Person:
    return person(engine, "trader", "ann")


@pytest.fixture(scope="module")
def bob(engine: Engine) -> Person:
    return person(engine, "trader", "bob")


@pytest.fixture(scope="module")
def anns(engine: Engine, prefect: Prefect, ann: Person) -> Belongings:
    finished, going = (started(ann) for _ in range(2))
    finish(engine, prefect, finished)
    prefect.set_state(going, "RUNNING")
    key = ann.ask("POST", "/auth/api-keys", json={"name": "the key of ann"}).json()["id"]
    secret = "known to ann alone"
    session = session_of(engine, ann)
    alert = str(ann.ask("POST", "/system/alerts", json={"message": secret}).json()["id"])
    marks = (
        finished,
        going,
        key,
        session,
        "the key of ann",
        ann.id,
        ann.email,
        ann.access,
        ann.refresh,
        secret,
    )
    return Belongings(finished, going, key, session, alert, marks)


def session_of(engine: Engine, who: Person) -> str:
    """Return an open session with a certificate."""
    session = written_down(engine, who.principal)
    SessionStore(engine.context.database).certify(
        session.session_id, {"verdict": "equal", "bars": 0}, session.seq
    )
    return str(session.session_id)


def started(who: Person) -> str:
    answer = who.ask("POST", "/strategies/backtest", json={"symbol": "ACME"})
    assert answer.status_code == 202, answer.text
    run_id: str = answer.json()["run_id"]
    return run_id


def asked(who: Person, route: str, things: Belongings, run_id: str, **more: Any) -> httpx.Response:
    """Ask a route for a run, and for the other things that somebody has."""
    method, _, template = route.partition(" ")
    values = {
        "run_id": run_id,
        "key_id": things.key,
        "session_id": things.session,
        "alert_id": things.alert,
        "name": "equity",
    }
    path = re.sub(r"{(\w+)}", lambda match: values[match.group(1)], template).removeprefix("/api/v1")
    body = {"input": {}} if path.endswith("/approve") else None
    headers = {"Accept": "*/*"}
    url = f"{who.engine.url}/api/v1{path}"
    headers["Authorization"] = f"Bearer {who.access}"
    with httpx.stream(method, url, headers=headers, json=body, timeout=20, **more) as answer:
        if answer.status_code >= 400:  # a stream of events would not end
            answer.read()
        return answer


def test_the_routes_that_take_an_id_are_known() -> None:
    """A new kind of id gets its owner's things above, or a place in SHARED with a reason."""
    assert {name for route in ROUTES for name in re.findall(r"{(\w+)}", route)} <= {
        "run_id",
        "key_id",
        "session_id",
        "alert_id",
        "name",
    }
    assert len(ROUTES) >= 14


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("which", ["finished", "going"])
def test_another_users_thing_is_not_there(
    anns: Belongings, bob: Person, prefect: Prefect, route: str, which: str
) -> None:
    run_id = getattr(anns, which)
    before = prefect.http.get(f"/flow_runs/{run_id}").json()["state"]["type"]
    detail = problem(asked(bob, route, anns, run_id), 404, "not-found")["detail"]
    none = str(uuid4())
    nobodys_things = replace(anns, key=none, session=none, alert="987654321")
    nobodys = problem(asked(bob, route, nobodys_things, none), 404, "not-found")["detail"]
    # The same words as for an id that nobody has.
    for each in (run_id, anns.key, anns.session, f"alert {anns.alert}"):
        detail = detail.replace(each, "…")
    assert detail == nobodys.replace(none, "…").replace("alert 987654321", "…")
    assert prefect.http.get(f"/flow_runs/{run_id}").json()["state"]["type"] == before


@pytest.mark.parametrize("route", [route for route in ROUTES if route.startswith("GET ")])
def test_its_owner_and_an_administrator_see_it(
    engine: Engine, anns: Belongings, ann: Person, route: str
) -> None:
    for who in (ann, person(engine, "admin")):
        answer = asked(who, route, anns, anns.finished)
        if answer.status_code == 404:  # the run reproduces none
            assert route.endswith("/reproduction")
            assert "not-found" in answer.text
        else:
            assert answer.status_code in {200, 204}, answer.text


def test_lists_hold_ones_own(anns: Belongings, ann: Person, engine: Engine) -> None:
    bob = person(engine, "trader", "bob")  # who has started nothing in another test
    mine = started(bob)

    def listed(who: Person) -> set[str]:
        items = who.ask("GET", "/workflows/runs", params={"limit": 150}).json()["items"]
        return {item["run_id"] for item in items}

    assert {anns.finished, anns.going} <= listed(ann)
    assert listed(bob) == {mine}
    assert {anns.finished, anns.going, mine} <= listed(person(engine, "admin"))
    assert bob.ask("GET", "/auth/api-keys").json()["items"] == []
    (key,) = ann.ask("GET", "/auth/api-keys").json()["items"]
    assert key["id"] == anns.key


def test_another_users_runs_cannot_be_compared_or_followed_by_ticket(anns: Belongings, bob: Person) -> None:
    for runs in ([anns.finished, anns.going], [anns.going, anns.finished]):
        problem(bob.ask("GET", "/strategies/compare", params={"runs": runs}), 404, "not-found")
    ticket = bob.ask("POST", "/auth/stream-tickets").json()["ticket"]
    url = f"{bob.engine.url}/api/v1/workflows/runs/{anns.going}/events"
    problem(httpx.get(url, params={"ticket": ticket}), 404, "not-found")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/paper-trade/sessions", "session"),
        ("/paper-trade/certificates", "session"),
        ("/paper-trade/daily", "sessions"),
        ("/workflows/paper_trade/runs", "session"),
        ("/workflows/paper_daily/runs", "sessions"),
    ],
)
def test_another_users_session_is_not_gone_on_with(
    anns: Belongings, bob: Person, path: str, field: str
) -> None:
    value = [anns.session] if field == "sessions" else anns.session
    problem(bob.ask("POST", path, json={field: value}), 404, "not-found")


def test_another_users_trades_are_not_listed(anns: Belongings, bob: Person) -> None:
    problem(bob.ask("GET", "/portfolio/trades", params={"session": anns.session}), 404, "not-found")


def test_idempotency_keys_are_each_users_own(ann: Person, bob: Person) -> None:
    headers = {"Idempotency-Key": uuid4().hex}
    runs = {
        who.ask("POST", "/strategies/backtest", json={"symbol": "ACME"}, headers=headers).json()["run_id"]
        for who in (ann, ann, bob)
    }
    assert len(runs) == 2


def test_ids_of_something_owned_stand_in_paths_or_are_known() -> None:
    """A new parameter or field that takes a run's id needs a test beside those below, and its place in the list."""
    schemas, found = DOCUMENT["components"]["schemas"], set()
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            fields = {each["name"]: each for each in operation.get("parameters", []) if each["in"] == "query"}
            for name in re.findall(r"#/components/schemas/(\w+)", str(operation.get("requestBody", ""))):
                fields |= schemas[name].get("properties", {})
            owned = [
                name for name in fields if "'uuid'" in str(fields[name]) or re.search(r"\brun|study", name)
            ]
            found |= {f"{method.upper()} {path} {name}" for name in owned}
    assert found == OWNED_ELSEWHERE


def test_nothing_of_another_user_is_in_any_answer(
    engine: Engine, anns: Belongings, ann: Person, figure: Callable[[str], None]
) -> None:
    leaks: dict[str, list[str]] = {}
    with Plain(engine, ann.access) as open_stream:  # a connection that an overview might show
        open_stream.subscribe("custom.note")
        for route in (*OTHERS, *ROUTES):
            bob = person(engine, "trader", "bob")  # anew, as some routes log him out
            method, _, template = route.partition(" ")
            values = {
                "run_id": anns.finished,
                "key_id": anns.key,
                "session_id": anns.session,
                "alert_id": anns.alert,
                "user_id": ann.id,
                "symbol": "ACME",
                "snapshot": "head",
                "name": "equity",
            }
            if "/strategies/" in template or "/workflows/{name}" in template:
                values["name"] = "momentum" if "/strategies/" in template else "backtest"
            path = re.sub(r"{(\w+)}", lambda match, known=values: known[match.group(1)], template)
            body = {"json": {}} if method in {"POST", "PUT", "PATCH"} else {}
            answer = bob.ask(method, path.removeprefix("/api/v1"), **body)
            assert answer.status_code < 500, route
            # The id that he asked for himself stands in the 404 that he gets.
            given = (
                {value for value in values.values() if value in path} if answer.status_code == 404 else set()
            )
            seen = [mark for mark in anns.seen_in(answer.text + str(answer.headers)) if mark not in given]
            if seen or (route in ROUTES and answer.status_code != 404):
                leaks[route] = [str(answer.status_code), *seen]
    figure(f"user B on every route: leaks / routes = {len(leaks)} / {len(OTHERS) + len(ROUTES)}")
    assert leaks == {}
    assert len(ROUTES) >= 14
    assert ann.ask("GET", f"/workflows/runs/{anns.finished}").json()["owner"] == ann.principal
    assert ann.ask("GET", "/auth/api-keys").json()["items"] != []


def names_of_anns_channels(anns: Belongings, ann: Person) -> list[str]:
    """Return every way to name a channel of hers that somebody might try."""
    one = UUID(anns.going)
    return [
        *(
            f"runs.{run}"
            for run in (anns.finished, anns.going, one.hex, one.urn, f"{{{one}}}", str(one).upper())
        ),
        f"portfolio.updates.{ann.principal}",
        f"trades.live.{ann.principal}",
        f"custom.{ann.principal}.note",
        f"custom.{ann.id}..note",
        f"custom.../{ann.principal}/note",
        "custom.*",
        "runs.*",
        "*",
    ]


def test_no_channel_of_another_user_can_be_had(
    engine: Engine, anns: Belongings, ann: Person, bob: Person, figure: Callable[[str], None]
) -> None:
    leaks = 0
    names = names_of_anns_channels(anns, ann)
    with Plain(engine, bob.access) as his:
        for name in names:
            answer = his.subscribe(name)
            leaks += answer["type"] != "error"
            assert answer["type"] == "error", name
            assert answer["code"] in {Code.UNKNOWN_CHANNEL, Code.BAD_REQUEST}, answer
        # In the words for a run that nobody has.
        detail = his.subscribe(f"runs.{anns.going}")["detail"]
        nobodys = his.subscribe(f"runs.{(none := str(uuid4()))}")["detail"]
        assert detail.replace(anns.going, "…") == nobodys.replace(none, "…")
        # The names that both have are each one's own: what she publishes does not reach him.
        shared = ["custom.note", "portfolio.updates", "trades.live", "system.events"]
        for name in shared:
            assert his.subscribe(name)["type"] == "subscribed", name
        with Plain(engine, ann.access) as hers:
            for name in shared:
                hers.subscribe(name)
            sent = hers.ask("publish", channel="custom.note", data={"text": "known to ann alone"})
            assert sent["type"] == "published"
            for log in ("portfolio.updates", "trades.live"):
                engine.events.append(f"{log}.{ann.principal}", "note", {"text": "known to ann alone"})
            engine.events.append(f"runs.{anns.going}", "progress", {"text": "known to ann alone"})
            heard = [hers.take() for _ in range(3)]
            assert {message["channel"] for message in heard if message["type"] == "publication"} == set(
                shared[:3]
            )
        his.say("publish", channel="custom.note", data={"text": "bob's own"})
        taken = his.take_until(lambda message: "bob's own" in str(message))
        leaks += len(anns.seen_in(str(taken)))
        assert [m for m in taken if m["type"] == "publication" and m["channel"] != "custom.note"] == []
    figure(f"user B on every channel of user A: leaks / channels = {leaks} / {len(names) + len(shared)}")
    assert leaks == 0
