"""What a request costs, beside a bare FastAPI app on the same machine, in one run.

    python -m benchmarks.api

Starts an engine in a temporary home (all four parts) and the bare app, asks both over kept connections, and reads the
servers' CPU time from /proc: the client's own work does not count. Ours authenticates, limits, counts, logs and frames
each request; the bare app returns a document of 2 KB through a response model. Two resources are asked for: 2 KB of
bars, and the largest of the typed documents that FastAPI serializes anew for each request (1.2 KB).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from benchmarks.lake import row

BARE = """
import sys
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
class Document(BaseModel):
    name: str
    items: list[dict[str, str | int | float]]
app = FastAPI()
KEPT = Document(name="bare", items=[{"name": f"item {n}", "value": n, "ratio": n / 7} for n in range(36)])
@app.get("/document")
async def document() -> Document:
    return KEPT
uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="warning")
"""
#: Counted as any limit is, and never reached.
UNLIMITED = "100000000/minute"
#: As many as make 2 KB of JSON.
SHOWN_BARS = 17
TICKS = os.sysconf("SC_CLK_TCK")


class Connection(asyncio.Protocol):
    """One kept connection: sends the same request again and again, and knows when an answer is whole."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end or self._answer is None:
            return
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if len(body) >= int(length or 0):
            self._buffer = b""
            answer, self._answer = self._answer, None
            if not answer.done():
                answer.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("closed"))

    async def ask(self) -> tuple[int, float]:
        """Return the status and the seconds it took."""
        self._answer = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        self._transport.write(self._request)  # type: ignore[attr-defined]
        return await self._answer, time.perf_counter() - began


async def connections(url: str, count: int, **headers: str) -> list[Connection]:
    parts = urlsplit(url)
    lines = [f"GET {parts.path}{'?' + parts.query if parts.query else ''} HTTP/1.1", f"Host: {parts.netloc}"]
    request = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()
    loop = asyncio.get_running_loop()
    found = []
    for _ in range(count):
        _, connection = await loop.create_connection(lambda: Connection(request), parts.hostname, parts.port)
        found.append(connection)
    return found


async def each(open_: list[Connection], times: int) -> list[tuple[int, float]]:
    """Ask over every connection, one request after the other on each."""

    async def repeat(connection: Connection) -> list[tuple[int, float]]:
        return [await connection.ask() for _ in range(times)]

    return [answer for answers in await asyncio.gather(*map(repeat, open_)) for answer in answers]


async def paced(open_: list[Connection], rate: int, seconds: int) -> list[tuple[int, float]]:
    """Ask `rate` times a second, over one connection after the other."""
    tasks, began = [], time.perf_counter()
    for n in range(rate * seconds):
        await asyncio.sleep(max(0.0, began + n / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(open_[n % len(open_)].ask()))
    return await asyncio.gather(*tasks)


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def p95(answers: list[tuple[int, float]]) -> float:
    assert {status for status, _ in answers} <= {200, 304}, {status for status, _ in answers}
    return statistics.quantiles([seconds for _, seconds in answers], n=100)[94] * 1e3


async def cost(url: str, pid: int, requests: int, **headers: str) -> float:
    """Return the server's CPU µs a request over 8 connections."""
    open_ = await connections(url, 8, **headers)
    await each(open_, 50)
    before = cpu_of(pid)
    answers = await each(open_, requests // 8)
    assert len(answers) == requests // 8 * 8
    p95(answers)
    return (cpu_of(pid) - before) / len(answers) * 1e6


def access_token(api: str) -> str:
    """Register, log in, and return the JWT."""
    account = {"email": "zoe@desk.example", "password": "seven blue kettles sing"}
    with httpx.Client(base_url=f"{api}/api/v1/auth", trust_env=False, timeout=30) as http:
        http.post("/register", json=account).raise_for_status()
        form = {"username": account["email"], "password": account["password"]}
        return str(http.post("/login", data=form).raise_for_status().json()["access_token"])


@contextmanager
def engine() -> Iterator[tuple[str, str, int]]:
    """Give the API's address, an account's access token and the API's pid of an engine of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "GPT_TRADER_HOME": folder,
            "GPT_TRADER_API_PORT": "0",
            "GPT_TRADER_PREFECT_PORT": "0",
            "GPT_TRADER_RATE_LIMIT": UNLIMITED,
            "GPT_TRADER_RATE_LIMITS": json.dumps({"GET /api/v1/market/bars/{symbol}": UNLIMITED}),
            "GPT_TRADER_REGISTRATION": "true",
        }
        command = [sys.executable, "-P", "-m", "gpt_trader"]
        for words in (
            ("backtest", "--symbol", "AAPL", "--strategy", "momentum", "--no-report"),
            ("data", "ingest", "--symbol", "AAPL", "--source", "sample"),
        ):
            subprocess.run([*command, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
        try:
            record = json.loads((Path(folder) / "engine.json").read_text())
            pid = record["parts"]["api"]["process"]["pid"]
            yield record["api_url"], access_token(record["api_url"]), pid
        finally:
            subprocess.run([*command, "down"], env=environment, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def bare() -> Iterator[tuple[str, int]]:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "bare.py"
        script.write_text(BARE)
        port = 18_555
        with subprocess.Popen([sys.executable, str(script), str(port)]) as process:
            try:
                url = f"http://127.0.0.1:{port}/document"
                _until(lambda: httpx.get(url, trust_env=False).status_code == 200)
                yield url, process.pid
            finally:
                process.send_signal(signal.SIGTERM)


def _until(ready: Callable[[], bool]) -> None:
    for _ in range(200):
        try:
            if ready():
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise TimeoutError


async def measure(api: str, key: str, pid: int, bare_url: str, bare_pid: int) -> None:
    auth = {"Authorization": f"Bearer {key}"}
    document = f"{api}/api/v1/market/bars/AAPL?limit={SHOWN_BARS}"
    typed = f"{api}/api/v1/strategies/breakout"
    async with httpx.AsyncClient(trust_env=False, headers=auth) as http:
        sizes = [len((await http.get(url)).content) for url in (document, bare_url, typed)]
    assert all(1_900 <= size <= 2_200 for size in sizes[:2]), sizes
    bars = f"{api}/api/v1/market/bars/AAPL?limit=500"
    async with httpx.AsyncClient(trust_env=False, headers=auth) as http:
        first = await http.get(bars)
    assert first.json()["bars"] == 500
    known_tag = auth | {"If-None-Match": first.headers["ETag"]}
    rounds = [  # interleaved: what else the machine does falls on all of them
        (
            await cost(bare_url, bare_pid, 4000),
            await cost(document, pid, 4000, **auth),
            await cost(typed, pid, 4000, **auth),
            await cost(bars, pid, 1600, **auth),
            await cost(bars, pid, 1600, **known_tag),
        )
        for _ in range(5)
    ]
    theirs, ours, made, fresh, known = map(statistics.median, zip(*rounds, strict=True))
    print("bytes: ours {:,}, bare {:,}; a typed document {:,}".format(*sizes))
    row(
        "GET of 2 KB with a JWT, CPU a request",
        f"{ours:.0f} µs",
        f"{theirs:.0f} µs",
        f"{ours / theirs:.1f}×",
        "≤ 3×",
    )
    row("GET of a typed document, CPU", f"{made:.0f} µs", f"{theirs:.0f} µs", f"{made / theirs:.1f}×", "≤ 3×")

    async def held(url: str, count: int, **headers: str) -> tuple[float, int]:
        open_ = await connections(url, count, **headers)
        found = p95(await paced(open_, 500, 8))
        return found, len(open_)

    waited, _ = await held(document, 1000, **auth)
    besides, _ = await held(bare_url, 1000)
    row("1,000 connections, 500 requests/s, p95", f"{waited:.1f} ms", f"{besides:.1f} ms", "", "< 100 ms")
    waited, count = await held(document, 2000, **auth)
    row(f"{count:,} connections held, p95 at 500/s", f"{waited:.1f} ms")

    async def burst(url: str, **headers: str) -> float:
        open_ = await connections(url, 1000, **headers)
        began = time.perf_counter()
        p95(await each(open_, 1))
        return time.perf_counter() - began

    row(
        "burst of 1,000 requests, no errors",
        f"{await burst(document, **auth) * 1e3:.0f} ms",
        f"{await burst(bare_url) * 1e3:.0f} ms",
    )
    at16 = p95(await each(await connections(bars, 16, **auth), 60))
    beside = p95(await each(await connections(bare_url, 16), 60))
    row("500 bars, 16 clients, p95", f"{at16:.1f} ms", f"{beside:.1f} ms", "", "≤ 30 ms")
    row("500 bars, CPU a request", f"{fresh:.0f} µs", f"{theirs:.0f} µs", f"{fresh / theirs:.1f}×")
    row(
        "500 bars the client has (304), CPU",
        f"{known:.0f} µs",
        f"{theirs:.0f} µs",
        f"{known / theirs:.1f}×",
        "≤ 2×",
    )


def main() -> None:
    row("", "ours", "bare FastAPI", "ratio", "bound")
    with engine() as (api, key, pid), bare() as (bare_url, bare_pid):
        asyncio.run(measure(api, key, pid, bare_url, bare_pid))


if __name__ == "__main__":
    main()
