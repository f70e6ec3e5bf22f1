"""Two API processes behind one address, each with a home of its own: one engine to whoever asks either."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gpt_trader.settings import Home
from storage.cluster import Cluster
from tests.api.account_samples import PASSWORD, account_settings
from tests.api.conftest import Prefect, fill_lake, free_port
from tests.api.sockets import Plain
from tests.api.test_process import environment, is_live, running
from tests.waiting import eventually

EMAIL = "zoe@desk.example"


@dataclass(frozen=True)
class Api:
    url: str
    http: httpx.Client

    def ask(self, method: str, path: str, token: str, **more: object) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return self.http.request(method, f"{self.url}/api/v1{path}", headers=headers, **more)  # type: ignore[arg-type]

    def login(self, password: str = PASSWORD) -> httpx.Response:
        return self.http.post(f"{self.url}/api/v1/auth/login", data={"username": EMAIL, "password": password})


@pytest.fixture
def apis(
    postgres: Cluster, prefect: Prefect, tmp_path: Path, redis: tuple[int, subprocess.Popen[bytes]]
) -> Iterator[tuple[Api, Api]]:
    settings = account_settings(postgres)
    shared = tmp_path / "shared"
    fill_lake(Home(shared))
    with ExitStack() as stack:
        found = []
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            port = free_port()
            variables = environment(settings, folder / "home", port, prefect.url) | {
                "GPT_TRADER_SHARED": str(shared),
                "GPT_TRADER_REGISTRATION": "true",
                "GPT_TRADER_RATE_LIMIT_STORAGE": f"redis://127.0.0.1:{redis[0]}/0",
                "GPT_TRADER_RATE_LIMITS": '{"GET /api/v1/strategies": "5/minute", '
                '"POST /api/v1/auth/login": "1000/minute"}',
            }
            process = stack.enter_context(running(variables, folder))
            http = stack.enter_context(httpx.Client(timeout=20, trust_env=False))
            found.append((process, folder, Api(f"http://127.0.0.1:{port}", http)))
        for process, folder, api in found:
            probe = stack.enter_context(httpx.Client(base_url=f"{api.url}/api/v1/system", trust_env=False))
            eventually(lambda p=probe, s=process: is_live(p) or s.poll(), seconds=60, what="the API's life")
            assert process.poll() is None, (folder / "err").read_text()
        yield found[0][2], found[1][2]


def test_two_processes_are_one_engine(apis: tuple[Api, Api], tmp_path: Path) -> None:
    one, two = apis
    assert not (tmp_path / "one" / "home" / "key").exists()
    _streams_are_the_same(apis, (tmp_path / "shared" / "key").read_text().strip())
    body = {"email": EMAIL, "password": PASSWORD}
    assert one.http.post(f"{one.url}/api/v1/auth/register", json=body).status_code == 201
    tokens = one.login().json()
    access = tokens["access_token"]

    # A token of either is known by both, and so are bars, by the same entity tag.
    answers = [api.ask("GET", "/market/bars/ACME?limit=5", access) for api in apis]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].headers["ETag"] == answers[1].headers["ETag"]
    assert answers[0].content == answers[1].content

    # A limit is one for both.
    statuses = [api.ask("GET", "/strategies", access).status_code for api in (one, two) * 4]
    assert statuses == [200] * 5 + [429] * 3

    # A refresh token is used up for both.
    pair = two.http.post(
        f"{two.url}/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]}
    ).json()
    assert one.ask("GET", "/auth/me", pair["access_token"]).status_code == 200

    # A login that ends at one has ended at the other within seconds.
    assert two.ask("GET", "/auth/me", access).status_code == 200
    assert one.ask("POST", "/auth/logout", pair["access_token"]).status_code == 204
    assert one.ask("GET", "/auth/me", access).status_code == 401
    eventually(
        lambda: two.ask("GET", "/auth/me", access).status_code == 401, seconds=6, what="the end there too"
    )

    # Whoever guesses at one is slowed down at both.
    guesses = [api.login("not the password").status_code for api in (one, two) * 3]
    assert guesses[:4] == [401] * 4
    assert 429 in guesses[4:]  # a slow machine may take longer for a guess than the first pause is
    refused = two.login()
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1


def _streams_are_the_same(apis: tuple[Api, Api], key: str) -> None:
    one, two = apis
    with Plain(one.url, key) as here, Plain(two.url, key) as there:
        for client in (here, there):
            assert client.subscribe("custom.desk")["type"] == "subscribed"
        for number in range(20):
            here.ask("publish", channel="custom.desk", data={"n": number}) if number % 2 else there.ask(
                "publish", channel="custom.desk", data={"n": number}
            )
    # Answers and publications come mixed; who comes back asks either process for all of it.
    told = []
    for api in apis:
        with Plain(api.url, key) as client:
            answer = client.subscribe("custom.desk", {"epoch": None, "offset": 0})
            found = list(answer["publications"])
            while len(found) < 20:
                found.append(client.take())
            told.append([(each["offset"], each["data"]) for each in found])
    assert told[0] == told[1]
    assert [offset for offset, _ in told[0]] == list(range(1, 21))
    assert [data["n"] for _, data in told[0]] == list(range(20))
