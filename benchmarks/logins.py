"""What logins cost, and what they do to everybody else's requests.

    python -m benchmarks.logins

Starts an engine in a temporary home with its limits as they are by default. Each honest login comes from a loopback
address of its own, as logins from a network do. Others ask `GET /auth/me` a hundred times a second over as many
connections; alone and beside are interleaved in one run. The guesser is a process of its own with one address.

Bounds: three logins a second add at most 20 ms to others' p95; of 1,000 guesses a second no more than 5 a minute reach
a password.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode, urlsplit

import httpx

from benchmarks.api import Connection, connections, cpu_of, engine, p95
from benchmarks.lake import row

PASSWORD = "correct horse battery"
RATE, SECONDS, ROUNDS = 100, 5, 3
GUESSES_A_SECOND = 1000

_addresses = (f"127.{a}.{b}.{c}" for a in range(1, 200) for b in range(1, 200) for c in range(1, 200))


def login_request(url: str, email: str, password: str) -> bytes:
    """Return the bytes of a login."""
    body = urlencode({"username": email, "password": password}).encode()
    head = f"POST /api/v1/auth/login HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
    head += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def opened(url: str, request: bytes, address: str) -> Connection:
    """Return a connection from an address of this machine."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: Connection(request), parts.hostname, parts.port, local_addr=(address, 0)
    )
    return connection


async def log_in(url: str, email: str) -> tuple[int, float]:
    """Log in from an address that nobody has used."""
    connection = await opened(url, login_request(url, email, PASSWORD), next(_addresses))
    try:
        return await connection.ask()
    finally:
        connection._transport.close()


async def evenly(
    ask: Callable[[], Awaitable[tuple[int, float]]], rate: float, seconds: float
) -> list[tuple[int, float]]:
    """Ask so often a second, whether earlier answers have come or not."""
    began, tasks = time.perf_counter(), []
    for n in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + n / rate - time.perf_counter()))
        tasks.append(asyncio.ensure_future(ask()))
    return await asyncio.gather(*tasks)


async def flood(url: str, email: str, rate: int, seconds: float) -> None:
    """Guess passwords from one address, and print how the server answered."""
    open_ = [await opened(url, login_request(url, email, f"guess {n}"), "127.0.0.9") for n in range(64)]
    free = asyncio.Queue[Connection]()
    for connection in open_:
        free.put_nowait(connection)
    codes: Counter[int] = Counter()

    async def guess(connection: Connection) -> None:
        codes[(await connection.ask())[0]] += 1
        free.put_nowait(connection)

    began, tasks = time.perf_counter(), set()
    for n in itertools.count():
        if time.perf_counter() - began > seconds:
            break
        await asyncio.sleep(max(0.0, began + n / rate - time.perf_counter()))
        task = asyncio.create_task(guess(await free.get()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    elapsed = time.perf_counter() - began
    await asyncio.gather(*tasks)
    print(json.dumps({"codes": codes, "a_second": sum(codes.values()) / elapsed}))


async def measure(url: str, key: str, pid: int) -> None:
    email = "ann@example.com"
    async with httpx.AsyncClient(trust_env=False) as http:
        body = {"email": email, "password": PASSWORD}
        (await http.post(f"{url}/api/v1/auth/register", json=body)).raise_for_status()

    async def others() -> float:
        """Ask as others do for some seconds, and return their p95 in ms, from when each wanted to ask."""
        free = asyncio.Queue[Connection]()
        asking = await connections(f"{url}/api/v1/auth/me", RATE, Authorization=f"Bearer {key}")
        for connection in asking:
            free.put_nowait(connection)

        async def ask() -> tuple[int, float]:
            wanted = time.perf_counter()
            connection = await free.get()
            status, _ = await connection.ask()
            free.put_nowait(connection)
            return status, time.perf_counter() - wanted

        found = p95(await evenly(ask, RATE, SECONDS))
        for connection in asking:
            connection._transport.close()
        return found

    before, began = cpu_of(pid), time.perf_counter()
    done = [await log_in(url, email) for _ in range(30)]
    elapsed = time.perf_counter() - began
    assert {status for status, _ in done} == {200}
    row(
        "logins, one after the other",
        f"{30 / elapsed:.1f}/s",
        f"{(cpu_of(pid) - before) / 30 * 1e3:.0f} ms CPU each",
    )

    alone, beside, slow = [], [], []
    for _ in range(ROUNDS):
        alone.append(await others())
        waited, logins = await asyncio.gather(others(), evenly(lambda: log_in(url, email), 3, SECONDS))
        assert {status for status, _ in logins} == {200}, Counter(status for status, _ in logins)
        beside.append(waited)
        slow += [seconds for _, seconds in logins]
    added = statistics.median(beside) - statistics.median(alone)
    told = f"{statistics.median(alone):.1f} → {statistics.median(beside):.1f} ms"
    row("others' p95, alone → beside 3 logins/s", told, f"{added:+.1f} ms", "", "≤ +20 ms")
    row("a login at 3/s, median", f"{statistics.median(slow) * 1e3:.0f} ms")

    command = [sys.executable, "-m", "benchmarks.logins", "flood", url, email]
    quiet = await others()
    guesser = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    await asyncio.sleep(1)
    busy = await others()
    owner = await log_in(url, email)
    out, _ = await guesser.communicate()
    told = json.loads(out)
    reached = sum(count for code, count in told["codes"].items() if code != "429")
    row(
        "guesses from one address",
        f"{told['a_second']:.0f}/s",
        f"{reached} reached a password",
        "",
        "≤ 5 a minute",
    )
    row("others' p95, alone → beside them", f"{quiet:.1f} → {busy:.1f} ms", f"{busy - quiet:+.1f} ms")
    row("the owner logs in meanwhile, from elsewhere", f"{owner[0]}", f"{owner[1] * 1e3:.0f} ms")
    assert reached <= 5
    assert owner[0] == 200


def main() -> None:
    if sys.argv[1:2] == ["flood"]:
        asyncio.run(flood(sys.argv[2], sys.argv[3], GUESSES_A_SECOND, SECONDS + 4))
        return
    with engine() as (url, key, pid):
        asyncio.run(measure(url, key, pid))


if __name__ == "__main__":
    main()
