"""Guessing passwords is slowed down, nobody is locked out, and nobody else waits for the hashing."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi_users.password import PasswordHelper

from api.accounts.passwords import WAITING
from api.accounts.throttle import ACCOUNT, ADDRESS, FORGET_SECONDS, Throttle, network_of
from storage.cluster import Cluster
from tests.api.account_samples import CHEAP, login, person, serving_accounts, with_hasher
from tests.api.test_health_and_errors import problem


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(clock, places=1000)


def guesses(throttle: Throttle, clock: Clock, seconds: float, email: str, address: str) -> int:
    """Return how many guesses somebody gets in who tries again as soon as it is allowed."""
    until, done = clock.now + seconds, 0
    while clock.now < until:
        wait = throttle.begin(email, address)
        done += wait == 0
        clock.now += wait
    return done


def test_pauses_double_after_the_free_ones_up_to_a_longest(throttle: Throttle, clock: Clock) -> None:
    pauses = []
    while len(pauses) < 12:
        if wait := throttle.begin("ann@example.com", "1.1.1.1"):
            pauses.append(wait)
            clock.now += wait
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


def test_a_day_of_guessing_is_a_hundred_guesses(
    throttle: Throttle, clock: Clock, figure: Callable[[str], None]
) -> None:
    done = guesses(throttle, clock, 86_400, "ann@example.com", "1.1.1.1")
    figure(f"guesses of one account's password from one address in a day: {done}")
    assert 50 < done < 120


def test_the_owner_logs_in_from_elsewhere_while_somebody_guesses(throttle: Throttle, clock: Clock) -> None:
    for address in range(200):
        guesses(throttle, clock, 60, "ann@example.com", f"9.9.{address}.9")
    assert throttle.begin("ann@example.com", "1.1.1.1") == 0
    assert throttle.begin("bob@example.com", "9.9.1.9") == 0  # and others do from there, for a while


def test_one_address_does_not_try_one_password_on_everybody(throttle: Throttle) -> None:
    waits = [throttle.begin(f"user{n}@example.com", "1.1.1.1") for n in range(100)]
    assert waits.count(0) == ADDRESS.free + 1
    assert throttle.begin("user1@example.com", "2.2.2.2") == 0


def test_attempts_at_the_same_moment_are_all_counted(throttle: Throttle) -> None:
    """None has failed yet: each is counted when it begins."""
    assert [throttle.begin("ann@example.com", "1.1.1.1") for _ in range(10)].count(0) == ACCOUNT.free + 1


def test_a_success_forgets_the_failures_of_the_account_and_none_of_the_address(
    throttle: Throttle, clock: Clock
) -> None:
    for _ in range(
        50
    ):  # an attacker with an account of their own does not get free guesses by logging into it
        throttle.begin("victim@example.com", "1.1.1.1")
        if throttle.begin("mine@example.com", "1.1.1.1") == 0:
            throttle.succeeded("mine@example.com", "1.1.1.1")
        clock.now += 1
    assert throttle.begin("victim@example.com", "1.1.1.1") > 0
    for _ in range(40):
        assert throttle.begin("ann@example.com", "2.2.2.2") == 0
        throttle.succeeded("ann@example.com", "2.2.2.2")


def test_failures_are_forgotten_after_an_hour(throttle: Throttle, clock: Clock) -> None:
    guesses(throttle, clock, 600, "ann@example.com", "1.1.1.1")
    assert (
        throttle.begin("ann@example.com", "1.1.1.1") > 0 or throttle.begin("ann@example.com", "1.1.1.1") > 0
    )
    clock.now += FORGET_SECONDS + 1
    assert [throttle.begin("ann@example.com", "1.1.1.1") for _ in range(3)] == [0, 0, 0]


def test_memory_is_bounded(throttle: Throttle) -> None:
    for n in range(5000):
        throttle.begin(f"user{n}@example.com", f"10.0.{n % 250}.{n // 250}")
    assert len(throttle) <= 1000


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:1.2.3.4", "1.2.3.4", True),
        ("1.2.3.4", "1.2.3.5", False),
        ("nowhere", "nowhere", True),
    ],
)
def test_an_ipv6_customer_is_one_address(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


def test_the_api_answers_429_and_the_right_password_works_from_another_address(
    postgres: Cluster, tmp_path: Path
) -> None:
    with serving_accounts(postgres, tmp_path) as engine:
        ann = person(engine)
        answers = [login(engine, ann.email, f"wrong password {n}") for n in range(ACCOUNT.free + 2)]
        assert [answer.status_code for answer in answers] == [401] * (ACCOUNT.free + 1) + [429]
        refused = problem(answers[-1], 429, "too-many-requests")
        assert "other addresses are not affected" in refused["detail"]
        assert 0 < int(answers[-1].headers["Retry-After"]) <= 2
        problem(login(engine, ann.email), 429, "too-many-requests")  # from here, even the right one waits
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as elsewhere:
            form = {"username": ann.email, "password": "correct horse battery"}
            url = f"{engine.url}/api/v1/auth/login"
            assert elsewhere.post(url, data=form).status_code == 200
        assert ann.ask("GET", "/auth/me").status_code == 200


class Gate(PasswordHelper):
    """Hashes when it is told to, and remembers in which threads."""

    def __init__(self) -> None:
        super().__init__(CHEAP.password_hash)
        self.begun, self.open = threading.Semaphore(0), threading.Event()
        self.threads: set[int] = set()

    def verify_and_update(self, plain_password: str, hashed_password: str) -> tuple[bool, str | None]:
        self._wait()
        return super().verify_and_update(plain_password, hashed_password)

    def hash(self, password: str) -> str:
        self._wait()
        return super().hash(password)

    def _wait(self) -> None:
        self.threads.add(threading.get_ident())
        self.begun.release()
        assert self.open.wait(30)


def test_while_a_password_is_hashed_everybody_else_is_served_and_a_bounded_number_waits(
    postgres: Cluster, tmp_path: Path
) -> None:
    gate = Gate()
    with serving_accounts(postgres, tmp_path) as plain:
        ann = person(plain)
        engine = with_hasher(plain, gate)
        with ThreadPoolExecutor(WAITING + 2) as pool:
            # Different accounts, so that the throttle (20 free an address) lets them all begin.
            emails = [ann.email, *(f"nobody{n}@example.com" for n in range(WAITING - 1))]
            waiting = [pool.submit(login, engine, email) for email in emails]
            try:
                assert gate.begun.acquire(timeout=30)
                # The hash is under way, and stays so: answers come from an event loop that is free.
                for path in ("/system/health/live", "/auth/me", "/strategies"):
                    for _ in range(5):
                        assert ann.ask("GET", path).status_code == 200
                turned_away = login_until_full(engine)
                assert turned_away.headers["Retry-After"]
            finally:
                gate.open.set()
            codes = [future.result().status_code for future in waiting]
        assert sorted(codes)[0] == 200
        assert set(codes) <= {200, 401, 429}
        assert len(gate.threads) == 1
        assert not gate.threads & {thread.ident for thread in threading.enumerate() if thread.name == "api"}


def login_until_full(engine: object) -> httpx.Response:
    """Log in until nobody more may wait; the ones that got a place before that go on in the background."""
    with httpx.Client(timeout=0.5) as client:
        for n in range(100):
            form = {"username": f"more{n}@example.com", "password": "any password at all"}
            try:
                answer = client.post(f"{engine.url}/api/v1/auth/login", data=form)  # type: ignore[attr-defined]
            except httpx.ReadTimeout:
                continue
            assert answer.status_code == 429
            return answer
    raise AssertionError("everybody may wait")


#: Logs in with guesses from 8 connections until its standard input ends; tells how often, and how often it got through.
FLOOD = """
import http.client, json, sys, threading, urllib.parse
host, email = sys.argv[1:]
stop, counts = threading.Event(), [[0, 0] for _ in range(8)]

def flood(number):
    connection = http.client.HTTPConnection(host, timeout=20)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    while not stop.is_set():
        form = {"username": email, "password": f"guess {number} {counts[number][0]}"}
        connection.request("POST", "/api/v1/auth/login", urllib.parse.urlencode(form), headers)
        answer = connection.getresponse()
        answer.read()
        counts[number][0] += 1
        counts[number][1] += answer.status != 429

threads = [threading.Thread(target=flood, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
print("begun", flush=True)
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(json.dumps([sum(each) for each in zip(*counts)]))
"""


@pytest.mark.slow
def test_a_flood_of_logins_is_turned_away_and_others_are_served(
    postgres: Cluster, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Fault 20, with the limits as they are by default and Argon2 as it costs."""
    with serving_accounts(postgres, tmp_path, rate_limits={}) as served:
        ann = person(served)
        engine = with_hasher(served, PasswordHelper())

        def measured() -> list[float]:
            seconds = []
            with httpx.Client(headers={"Authorization": f"Bearer {ann.access}"}) as client:
                for _ in range(500):
                    begun = time.perf_counter()
                    assert client.get(f"{engine.url}/api/v1/auth/me").status_code == 200
                    seconds.append(time.perf_counter() - begun)
            return sorted(seconds)

        quiet = measured()
        command = [sys.executable, "-c", FLOOD, engine.url.removeprefix("http://"), ann.email]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as flood:
            assert flood.stdout is not None
            assert flood.stdout.readline() == "begun\n"
            begun = time.perf_counter()
            busy = measured()
            seconds = time.perf_counter() - begun
            told, _ = flood.communicate(timeout=60)
        tried, let_in = json.loads(told)
        figure(
            f"{tried} logins, about {tried / seconds:.0f}/s: {let_in} reached a password; "
            f"others' p95 {quiet[475] * 1e3:.1f} ms alone, {busy[475] * 1e3:.1f} ms beside"
        )
        assert tried > 100
        assert let_in <= 5
