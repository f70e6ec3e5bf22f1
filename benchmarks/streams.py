"""What the streams cost, beside a bare `websockets` broadcast on the same machine, in turns in one run.

    python -P benchmarks/streams.py [--seconds 6] [--rounds 3]

A real embedded server with fsync on, one API process, a writer in a process of its own, and clients in this one: raw
protocols that look for the time of sending and nothing else, so that their own work counts little. Ours goes
writer → commit → NOTIFY → API → client; the bare server makes its messages itself and broadcasts them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import uvloop

from benchmarks.event_log import events_a_second, served
from benchmarks.lake import row
from gpt_trader.runs import LOCAL, channel_of
from gpt_trader.settings import Home, Settings
from storage import database
from storage.cluster import locate
from storage.events import EventLog
from storage.runs import RunStore

FILLING = "momentum: 3,270 bars of AAPL, 118 trades, equity 24,301.77 after 13 years; " * 2
TICKS = os.sysconf("SC_CLK_TCK")

WRITER = """
import sys, time
from sqlalchemy import make_url
from storage.database import engine_for
from storage.events import EventLog
url, channel, rate, seconds, filling = sys.argv[1:]
log = EventLog(engine_for(make_url(url)))
log.position(channel)
begin, pause = time.monotonic(), 1 / float(rate)
for number in range(int(float(rate) * float(seconds))):
    wait = begin + number * pause - time.monotonic()
    if wait > 0:
        time.sleep(wait)
    log.append(channel, "log", {"message": filling, "sent": time.time()})
"""

BARE = """
import asyncio, json, sys, time
import uvloop
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed
port, filling = int(sys.argv[1]), sys.argv[2]
clients = set()
async def client(socket):
    clients.add(socket)
    try:
        async for message in socket:  # "rate seconds": the first client says what is to be sent
            rate, seconds = map(float, message.split())
            begin = time.monotonic()
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(begin + number / rate - time.monotonic(), 0))
                broadcast(clients, json.dumps({"message": filling, "sent": time.time(), "epoch": "3f9a01bc"}))
    except ConnectionClosed:
        pass
    finally:
        clients.discard(socket)
async def main():
    async with serve(client, "127.0.0.1", port, compression=None, ping_interval=None, backlog=2048):
        await asyncio.Future()
uvloop.run(main())
"""


class Client(asyncio.Protocol):
    """One client: says what it is given, then notes how old each message is that holds a `"sent":`."""

    def __init__(self, request: bytes, then: bytes, ready: bytes, ages: list[float]) -> None:
        self._request, self._then, self._ready = request, then, ready
        self._ages = ages
        self._kept = b""
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        data, now, at = self._kept + data, time.time(), 0
        if not self.begun.done():
            if b"\r\n\r\n" in data and self._then:
                self.transport.write(self._then)  # type: ignore[attr-defined]
                self._then = b""
            if self._ready in data:
                self.begun.set_result(None)
        while (found := data.find(b'"sent":', at)) >= 0:
            end = data.find(b"}", found)
            if end < 0:
                break
            self._ages.append(now - float(data[found + 7 : end].partition(b",")[0]))
            at = end
        self._kept = data[max(at, len(data) - 400) :] if self.begun.done() else data

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.begun.done():
            self.begun.set_exception(ConnectionError(f"closed: {self._kept[-300:]!r}"))


def handshake(port: int, path: str, key: str = "") -> bytes:
    login = f"Authorization: Bearer {key}\r\n" if key else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{login}"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def text_frame(text: str) -> bytes:
    """Return a text frame from client to server, masked with zeros."""
    content = text.encode()
    assert len(content) < 126
    return bytes([0x81, 0x80 | len(content), 0, 0, 0, 0]) + content


@dataclass
class Load:
    """So many clients of one server, and how they connect."""

    name: str
    port: int
    request: bytes
    then: bytes
    ready: bytes
    clients: int

    async def connected(self, ages: list[float]) -> list[Client]:
        loop = asyncio.get_running_loop()
        opened: list[Client] = []
        for begin in range(0, self.clients, 50):
            some = range(begin, min(begin + 50, self.clients))
            made = [
                loop.create_connection(
                    lambda: Client(self.request, self.then, self.ready, ages), "127.0.0.1", self.port
                )
                for _ in some
            ]
            opened += [client for _, client in await asyncio.gather(*made)]
            await asyncio.gather(*(client.begun for client in opened[begin:]))
        return opened


@dataclass
class Bench:
    """The servers of one run."""

    api: int
    bare: int
    api_pid: int
    bare_pid: int
    key: str
    url: str
    log: EventLog
    run_id: str

    async def ours(self, clients: int, rate: float, seconds: float) -> tuple[list[float], float]:
        """Return how old each message was, and the API's CPU seconds a delivery."""
        name = f"bench{uuid4().hex[:8]}"
        subscribing = text_frame(f'{{"type":"subscribe","id":1,"channel":"custom.{name}"}}')
        request = handshake(self.api, "/ws/v1/", self.key)
        load = Load("ours", self.api, request, subscribing, b'"subscribed"', clients)
        return await self._written(load, f"custom.{LOCAL}.{name}", rate, seconds)

    async def events(self, clients: int, rate: float, seconds: float) -> tuple[list[float], float]:
        """The same over server-sent events of one run."""
        path = f"/api/v1/workflows/runs/{self.run_id}/events"
        position = self.log.append(channel_of(self.run_id), "log", {"message": "begin"})
        request = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.api}\r\nAuthorization: Bearer {self.key}\r\n"
            f"Last-Event-ID: {position}\r\n\r\n"
        ).encode()
        load = Load("events", self.api, request, b"", b"event-stream", clients)
        return await self._written(load, channel_of(self.run_id), rate, seconds)

    async def beside(self, clients: int, rate: float, seconds: float) -> tuple[list[float], float]:
        """Return the same of the bare server."""
        ages: list[float] = []
        load = Load("bare", self.bare, handshake(self.bare, "/"), b"", b"\r\n\r\n", clients)
        opened = await load.connected(ages)
        before = cpu_seconds(self.bare_pid)
        opened[0].transport.write(text_frame(f"{rate} {seconds}"))  # type: ignore[attr-defined]
        await self._all(ages, int(rate * seconds) * clients, seconds)
        spent = cpu_seconds(self.bare_pid) - before
        await closed(opened)
        return ages, spent / max(len(ages), 1)

    async def _written(
        self, load: Load, channel: str, rate: float, seconds: float
    ) -> tuple[list[float], float]:
        ages: list[float] = []
        opened = await load.connected(ages)
        before = cpu_seconds(self.api_pid)
        arguments = (self.url, channel, str(rate), str(seconds), FILLING)
        writer = await asyncio.create_subprocess_exec(sys.executable, "-P", "-c", WRITER, *arguments)
        await self._all(ages, int(rate * seconds) * load.clients, seconds)
        await writer.wait()
        spent = cpu_seconds(self.api_pid) - before
        await closed(opened)
        return ages, spent / max(len(ages), 1)

    async def _all(self, ages: list[float], count: int, seconds: float) -> None:
        """Wait until every client has every message; say so where that takes too long."""
        end = time.monotonic() + seconds + 60
        while len(ages) < count and time.monotonic() < end:  # noqa: ASYNC110 - an event would cost each client
            await asyncio.sleep(0.05)
        if len(ages) != count:
            raise SystemExit(f"{len(ages)} messages of {count} arrived")

    async def memory(self, clients: int) -> float:
        """Return the API's resident bytes a connection that has authenticated and subscribed."""
        subscribing = text_frame('{"type":"subscribe","id":1,"channel":"custom.memory"}')
        request = handshake(self.api, "/ws/v1/", self.key)
        load = Load("memory", self.api, request, subscribing, b'"subscribed"', clients)
        before = resident(self.api_pid)
        opened = await load.connected([])
        grown = resident(self.api_pid) - before
        await closed(opened)
        return grown / clients


async def closed(opened: list[Client]) -> None:
    for client in opened:
        client.transport.abort()  # type: ignore[attr-defined]
    await asyncio.sleep(0.5)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def started(command: list[str], environment: dict[str, str] | None = None) -> Iterator[int]:
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def bench(home: Home) -> Iterator[Bench]:
    api, bare = free_port(), free_port()
    environment = {
        **os.environ,
        "GPT_TRADER_HOME": str(home.root),
        "GPT_TRADER_API_PORT": str(api),
        "GPT_TRADER_RATE_LIMIT": "1000000/minute",
        "GPT_TRADER_RATE_LIMITS": '{"GET /ws/v1/": "1000000/minute"}',
        "GPT_TRADER_LOG_LEVEL": "error",
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
    }
    with served(home):
        database.ensure_databases(Settings(), home)
        engine = database.engine(Settings(), home)
        database.migrate(engine)
        run_id = uuid4()
        RunStore(engine, home).register(run_id, "backtest", LOCAL, {"symbol": "AAPL"})
        log = EventLog(engine)
        with (
            started([sys.executable, "-P", "-m", "api.main"], environment) as api_pid,
            started([sys.executable, "-P", "-c", BARE, str(bare), FILLING]) as bare_pid,
        ):
            await_answer(f"http://127.0.0.1:{api}/api/v1/system/health/live")
            url = engine.url.render_as_string(hide_password=False)
            key = home.key.read_text().strip()
            yield Bench(api, bare, api_pid, bare_pid, key, url, log, str(run_id))
        database.dispose_engines()


def await_answer(url: str) -> None:
    for _ in range(600):
        try:
            if httpx.get(url, trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"nobody answers at {url}")


def cut(ages: list[float], percent: int) -> float:
    """Return a percentile in milliseconds."""
    return statistics.quantiles(ages, n=100)[percent - 1] * 1e3


async def side_by_side(at: Bench, clients: int, rate: float, options: argparse.Namespace, bound: str) -> None:
    """Print p50 and p95 of both, the median over the rounds, taken in turns."""
    ours, bare, costs = [], [], []
    for _ in range(options.rounds):
        ages, cost = await at.ours(clients, rate, options.seconds)
        beside, bare_cost = await at.beside(clients, rate, options.seconds)
        ours.append((cut(ages, 50), cut(ages, 95)))
        bare.append((cut(beside, 50), cut(beside, 95)))
        costs.append((cost * 1e6, bare_cost * 1e6))
    what = f"{clients:,} clients × {rate:g}/s"
    for name, at_index, limit in (("p50", 0, ""), ("p95", 1, bound)):
        mine, others = (statistics.median(each[at_index] for each in series) for series in (ours, bare))
        row(f"{what}, {name}", f"{mine:.1f} ms", f"{others:.1f} ms", f"{mine / others:.2f}", limit)
    mine, others = (statistics.median(each[index] for each in costs) for index in (0, 1))
    row("  server's CPU a delivery", f"{mine:.1f} µs", f"{others:.1f} µs", f"{mine / others:.2f}")


async def measured(at: Bench, options: argparse.Namespace) -> None:
    row("what", "ours", "bare", "ratio", "bound")
    await at.ours(10, 20, 1)  # warm
    row(
        "memory a subscribed connection", f"{await at.memory(1000) / 1024:.1f} KiB"
    )  # first: freed memory is used again
    ages, _ = await at.ours(1, 50, options.seconds)
    row("append in another process → client, p50", f"{cut(ages, 50):.1f} ms", bound="5 ms")
    row("append in another process → client, p95", f"{cut(ages, 95):.1f} ms", bound="20 ms")
    await side_by_side(at, 200, 50, options, "< 30 ms")
    await side_by_side(at, 1000, 10, options, "≤ 1.5 × bare")
    ages, cost = await at.events(500, 10, options.seconds)
    row("SSE: 500 streams × 10/s, p95", f"{cut(ages, 95):.1f} ms", bound="< 100 ms")
    row("  server's CPU a delivery", f"{cost * 1e6:.1f} µs")
    rate = events_a_second(at.log, 100)
    row("EventLog: durable events/s in batches of 100", f"{rate:,.0f}", bound="≥ 5,000")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of ours and the bare server in turns")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    folder = Path(tempfile.mkdtemp(prefix="gpt-trader-bench-"))
    home = Home(folder / "home")
    try:
        with bench(home) as at:
            uvloop.run(measured(at, options))
    finally:
        cluster = locate(home)
        if cluster is not None:
            shutil.rmtree(cluster.root)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
