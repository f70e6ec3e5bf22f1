"""Bodies and connections made to hurt, against a real API process: refused, memory bounded, others served.

Row by row: a flood of requests, bodies of a gigabyte, a gzip bomb, deep and wide JSON, heads that drip in, requests
that nobody takes the answers of.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from api.patience import BODY_SECONDS, HEAD_SECONDS
from storage.cluster import Cluster
from tests.api.account_samples import NOBODY, account_settings
from tests.api.conftest import free_port
from tests.api.test_process import environment, is_live, running
from tests.waiting import eventually

MEGABYTE = b"x" * 2**20
#: Unpacks to 64 MB.
BOMB = gzip.compress(b"0" * 2**26)
PATH = "/api/v1/strategies/backtest"


@dataclass(frozen=True)
class Victim:
    """The process, and how to hurt it."""

    process: subprocess.Popen[bytes]
    url: str
    key: str
    log: Path

    def rss(self) -> float:
        """Return the process's resident megabytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096 / 2**20

    def post(self, body: bytes, path: str = PATH, **headers: str) -> httpx.Response:
        given = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json", **headers}
        return httpx.post(f"{self.url}{path}", content=body, headers=given, timeout=30, trust_env=False)

    def connect(self) -> socket.socket:
        parts = urlsplit(self.url)
        assert parts.port is not None
        return socket.create_connection(
            (str(parts.hostname), parts.port), timeout=HEAD_SECONDS + BODY_SECONDS
        )

    def pour(self, head: str, parts: Iterator[bytes]) -> tuple[bytes, int]:
        """Send a head and as much of the rest as is taken; return the answer and the bytes that were sent."""
        lines = [
            f"POST {PATH} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {self.key}",
            head,
            "",
            "",
        ]
        sent, answer = 0, b""
        with self.connect() as connection, contextlib.suppress(ConnectionError):
            try:
                connection.sendall("\r\n".join(lines).encode())
                for part in parts:
                    connection.sendall(part)
                    sent += len(part)
            finally:
                with contextlib.suppress(ConnectionError):
                    while chunk := connection.recv(65536):
                        answer += chunk
        return answer, sent

    def latencies(self, until: threading.Event | None, count: int = 10**9) -> list[float]:
        """Ask as a user with the local key would, one request after the other; return the seconds of each."""
        headers = {"Authorization": f"Bearer {self.key}"}
        found = []
        with httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False) as http:
            while len(found) < count and not (until and until.is_set()):
                began = time.perf_counter()
                assert http.get("/api/v1/strategies").status_code == 200
                found.append(time.perf_counter() - began)
        return found


@pytest.fixture(scope="module")
def victim(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with a_victim(postgres, tmp_path_factory.mktemp("victim")) as found:
        yield found


@contextlib.contextmanager
def a_victim(postgres: Cluster, folder: Path) -> Iterator[Victim]:
    port = free_port()
    variables = environment(account_settings(postgres), folder / "home", port, NOBODY)
    variables["GPT_TRADER_RATE_LIMIT_LOCAL"] = "1000000/minute"
    with running(variables, folder) as process:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=f"{url}/api/v1/system", trust_env=False) as http:
            eventually(lambda: is_live(http) or process.poll(), seconds=60, what="the API's life")
        assert process.poll() is None, (folder / "err").read_text()
        found = Victim(process, url, (folder / "home" / "key").read_text().strip(), folder / "err")
        found.latencies(None, 50)
        yield found


def send_all(connection: socket.socket, part: bytes, times: int) -> None:
    for _ in range(times):
        connection.sendall(part)


def nested(depth: int) -> bytes:
    return b'{"symbol": ' + b"[" * depth + b"]" * depth + b"}"


JSON = {
    "an array that never ends": (b"[" * 500_000, {400}),
    "100,000 arrays": (b"[" * 100_000 + b"]" * 100_000, {400, 422}),
    "a field nested 200 deep": (nested(200), {422}),
    "a field nested 990 deep": (nested(990), {422}),
    "parameters nested 990 deep": (b'{"params": ' + b'{"a":' * 990 + b"1" + b"}" * 990 + b"}", {422}),
    "70,000 fields": (b"{" + b",".join(b'"k%d":1' % n for n in range(70_000)) + b"}", {422}),
    "70,000 parameters": (
        b'{"symbol": "AAPL", "strategy": "momentum", "params": {'
        + b",".join(b'"k%d":1' % n for n in range(70_000))
        + b"}}",
        {422},
    ),
    "a number of 900,000 digits": (b'{"capital": ' + b"9" * 900_000 + b"}", {400, 422}),
    "half a character": (b'{"symbol": "\\ud800"}', {400, 422}),
    "no UTF-8": (b'{"symbol": "\xff\xfe"}', {400, 422}),
}


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("path", [PATH, "/api/v1/market/query"])
def test_json_that_is_deep_or_wide_is_refused_in_few_words(victim: Victim, name: str, path: str) -> None:
    body, statuses = JSON[name]
    began, before = time.monotonic(), victim.rss()
    answer = victim.post(body, path)
    assert answer.status_code in {*statuses, *({400, 422} if path != PATH else ())}, answer.text[:300]
    assert len(answer.content) < 30_000
    assert time.monotonic() - began < 5
    assert victim.rss() - before < 120
    assert "unexpected error" not in victim.log.read_text()


def test_a_gzip_bomb_is_not_opened(victim: Victim) -> None:
    before = victim.rss()
    answer = victim.post(BOMB, **{"Content-Encoding": "gzip"})
    assert answer.status_code == 415
    assert "leave Content-Encoding out" in answer.json()["detail"]
    assert victim.rss() - before < 20


@pytest.mark.parametrize(
    ("head", "part"),
    [
        ("Content-Length: 1073741824", MEGABYTE),
        ("Transfer-Encoding: chunked", b"100000\r\n" + MEGABYTE + b"\r\n"),
    ],
)
def test_a_body_of_a_gigabyte_is_not_taken(victim: Victim, head: str, part: bytes) -> None:
    before = victim.rss()
    answer, sent = victim.pour(head, (part for _ in range(1024)))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert sent < 32 * 2**20
    assert victim.rss() - before < 40


def test_who_sends_on_after_the_answer_is_cut(victim: Victim) -> None:
    head = b"GET /api/v1/system/health/live HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with victim.connect() as connection:
        connection.sendall(head)
        with pytest.raises(ConnectionError):
            send_all(connection, b"100000\r\n" + MEGABYTE + b"\r\n", 1024)


def test_requests_that_wait_on_one_connection_are_bounded(victim: Victim) -> None:
    request = b"GET /api/v1/system/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    before = victim.rss()
    with victim.connect() as connection, pytest.raises(ConnectionError):
        send_all(connection, request * 200, 4000)
    assert victim.rss() - before < 20
    with victim.connect() as connection:  # a few are served
        connection.sendall(request * 10)
        answers = b""
        while answers.count(b"HTTP/1.1 ") < 10:
            answers += connection.recv(65536)


@pytest.mark.slow
def test_others_are_served_beside_all_of_it(
    postgres: Cluster, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Each attack for a while, from several connections at once; a user beside asks on and on."""
    with a_victim(postgres, tmp_path) as victim:
        _campaign(victim, figure)


def _campaign(victim: Victim, figure: Callable[[str], None]) -> None:
    alone = victim.latencies(None, 400)
    for name, attack in ATTACKS.items():
        ended, told, before = threading.Event(), Counter[str](), victim.rss()
        peak = before
        with ThreadPoolExecutor(5) as crowd:
            beside = crowd.submit(victim.latencies, ended)
            attackers = [crowd.submit(attack, victim) for _ in range(4)]
            while not all(attacker.done() for attacker in attackers):
                peak = max(peak, victim.rss())
                time.sleep(0.1)
            ended.set()
            for attacker in attackers:
                told.update(attacker.result())
            seconds = beside.result()
        figure(
            f"{name}: {json.dumps(told)}; RSS {before:.0f} → at most {peak:.0f} MB; another's p99 "
            f"{p99(alone):.0f} ms alone, {p99(seconds):.0f} ms beside"
        )
        assert peak - before < 300, name
        assert p99(seconds) < 5000, name
    began = time.monotonic()
    slow = [victim.connect() for _ in range(20)]
    for connection in slow:
        connection.sendall(b"GET /api/v1/system/health/live HT")
    victim.process.send_signal(signal.SIGTERM)
    assert victim.process.wait(timeout=15) == 0
    figure(f"SIGTERM with 20 unfinished requests open: exit after {time.monotonic() - began:.1f} s")
    for connection in slow:
        connection.close()


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)] * 1e3


def _flood(victim: Victim) -> Counter[str]:
    told = Counter[str]()
    with httpx.Client(base_url=victim.url, trust_env=False, headers={"X-API-Key": "guess"}) as http:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            told[str(http.get("/api/v1/system/health/live").status_code)] += 1
    return told


def _gigabyte(victim: Victim) -> Counter[str]:
    told = Counter[str]()
    for head, part in (
        ("Content-Length: 1073741824", MEGABYTE),
        ("Transfer-Encoding: chunked", b"100000\r\n" + MEGABYTE + b"\r\n"),
    ):
        for _ in range(20):
            answer, _ = victim.pour(head, (part for _ in range(1024)))
            told[answer[9:12].decode() or "cut"] += 1
    return told


def _bombs(victim: Victim) -> Counter[str]:
    return Counter(str(victim.post(BOMB, **{"Content-Encoding": "gzip"}).status_code) for _ in range(20))


def _deep_json(victim: Victim) -> Counter[str]:
    return Counter(str(victim.post(body).status_code) for _ in range(3) for body, _ in JSON.values())


def _slow_heads(victim: Victim) -> Counter[str]:
    """A hundred heads that drip in, a byte a second."""
    told = Counter[str]()
    open_ = [victim.connect() for _ in range(100)]
    for connection in open_:
        connection.sendall(b"GET /api/v1/system/health/live HTTP/1.1\r\nX-Slow: ")
    for _ in range(int(HEAD_SECONDS) + 2):
        for connection in open_:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"a")
        time.sleep(1)
    for connection in open_:
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = connection.recv(65536)
        told[answer[9:12].decode() or "cut"] += 1
        connection.close()
    return told


ATTACKS: dict[str, Callable[[Victim], Counter[str]]] = {
    "flood without a key": _flood,
    "bodies of 1 GB": _gigabyte,
    "gzip bombs of 64 MB": _bombs,
    "deep and wide JSON": _deep_json,
    "slow heads": _slow_heads,
}
