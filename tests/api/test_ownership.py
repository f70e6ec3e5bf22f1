"""User A and user B: nobody sees, follows, changes or finds what is another user's, on any route that takes an id."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from api.app import create_app
from gpt_trader.settings import Home, Settings
from storage.cluster import Cluster
from storage.sessions import SessionStore
from tests.api.account_samples import CHEAP, Person, account_settings, person, with_hasher
from tests.api.conftest import Engine, Prefect, fill_lake, serving
from tests.api.session_samples import written_down
from tests.api.test_health_and_errors import problem
from tests.api.test_runs import finish

#: Ids of things that everybody shares (the market, the strategies, the workflows) and of accounts, which are for
#: administrators whoever they are.
SHARED = {"symbol", "snapshot", "name", "user_id"}


def routes_with_an_id() -> list[str]:
    paths = create_app(Settings(), Home(Path("/nowhere"))).openapi()["paths"]
    found = []
    for path, operations in paths.items():
        names = set(re.findall(r"{(\w+)}", path))
        if names - SHARED:
            found += [f"{method.upper()} {path}" for method in operations]
    return found


ROUTES = routes_with_an_id()


@dataclass(frozen=True)
class Belongings:
    """What user A has: a finished run, a going one, a key, a session."""

    finished: str
    going: str
    key: str
    session: str


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
    key = ann.ask("POST", "/auth/api-keys", json={"name": "k"}).json()["id"]
    return Belongings(finished, going, key, session_of(engine, ann))


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


def asked(
    who: Person, route: str, *, run_id: str, key_id: str, session_id: str, **more: Any
) -> httpx.Response:
    method, _, template = route.partition(" ")
    values = {"run_id": run_id, "key_id": key_id, "session_id": session_id, "name": "equity"}
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
    theirs = asked(bob, route, run_id=run_id, key_id=anns.key, session_id=anns.session)
    detail = problem(theirs, 404, "not-found")["detail"]
    none = str(uuid4())
    nobodys = problem(asked(bob, route, run_id=none, key_id=none, session_id=none), 404, "not-found")[
        "detail"
    ]
    # The same words as for an id that nobody has.
    for each in (run_id, anns.key, anns.session):
        detail = detail.replace(each, "…")
    assert detail == nobodys.replace(none, "…")
    assert prefect.http.get(f"/flow_runs/{run_id}").json()["state"]["type"] == before


@pytest.mark.parametrize("route", [route for route in ROUTES if route.startswith("GET ")])
def test_its_owner_and_an_administrator_see_it(
    engine: Engine, anns: Belongings, ann: Person, route: str
) -> None:
    for who in (ann, person(engine, "admin")):
        answer = asked(who, route, run_id=anns.finished, key_id=anns.key, session_id=anns.session)
        if answer.status_code == 404:  # the run reproduces none
            assert route.endswith("/reproduction")
            assert "not-found" in answer.text
        else:
            assert answer.status_code in {200, 204}, answer.text


def test_lists_hold_ones_own(anns: Belongings, ann: Person, bob: Person, engine: Engine) -> None:
    mine = started(bob)

    def listed(who: Person) -> set[str]:
        items = who.ask("GET", "/workflows/runs", params={"limit": 150}).json()["items"]
        return {item["run_id"] for item in items}

    assert {anns.finished, anns.going} <= listed(ann)
    assert mine in listed(bob)
    assert not listed(bob) & {anns.finished, anns.going}
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


def test_idempotency_keys_are_each_users_own(ann: Person, bob: Person) -> None:
    headers = {"Idempotency-Key": uuid4().hex}
    runs = {
        who.ask("POST", "/strategies/backtest", json={"symbol": "ACME"}, headers=headers).json()["run_id"]
        for who in (ann, ann, bob)
    }
    assert len(runs) == 2


def test_leaks_over_all_routes(
    anns: Belongings, bob: Person, ann: Person, figure: Callable[[str], None]
) -> None:
    leaks = 0
    for route in ROUTES:
        answer = asked(bob, route, run_id=anns.finished, key_id=anns.key, session_id=anns.session)
        leaks += answer.status_code != 404
    figure(f"user B on every route of user A: leaks / routes = {leaks} / {len(ROUTES)}")
    assert leaks == 0
    assert ann.ask("GET", f"/workflows/runs/{anns.finished}").json()["owner"] == ann.principal
    assert UUID(anns.finished)
