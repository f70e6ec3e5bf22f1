"""The connection pool to Prefect, against a real server on loopback: callers leave it at any moment."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from api import prefect_server
from api.prefect_server import PrefectServer

#: More than the pool has places.
CALLERS = 40
#: Steps of the loop that a call takes here from its beginning to its answer, and some more.
STEPS = 30


class Loopback:
    """Answers every request with an empty list, or holds it until let go."""

    def __init__(self) -> None:
        self.answering = asyncio.Event()
        self.answering.set()
        self.asked = asyncio.Semaphore(0)
        self.answered = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.asked.release()
                await self.answering.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
                await writer.drain()
                self.answered += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    served = Loopback()
    async with await asyncio.start_server(served.serve, "127.0.0.1", 0) as server:
        served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api"
        yield served
        served.answering.set()


async def steps(count: int) -> None:
    """Let the loop run so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def left_after(prefect: PrefectServer, count: int) -> None:
    """Ask, and leave after so many steps of the loop."""
    asking = asyncio.create_task(prefect.states(uuid4()))
    await steps(count)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize("after", range(STEPS))
async def test_callers_that_leave_while_it_connects_take_no_place_along(
    loopback: Loopback, after: int
) -> None:
    """Wherever they leave, more of them than there are places: the next one is answered."""
    prefect = PrefectServer(loopback.url)
    for _ in range(CALLERS):
        await left_after(prefect, after)
    async with asyncio.timeout(5):
        assert await prefect.states(uuid4()) == []
    await prefect.close()


async def test_closing_waits_for_what_was_left_under_way(loopback: Loopback) -> None:
    prefect = PrefectServer(loopback.url)
    loopback.answering.clear()
    asking = asyncio.create_task(prefect.states(uuid4()))
    await loopback.asked.acquire()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    closing = asyncio.create_task(prefect.close())
    await steps(STEPS)
    assert not closing.done()
    loopback.answering.set()
    await asyncio.wait_for(closing, 2)
    assert loopback.answered == 1


async def test_closing_waits_no_longer_than_it_says(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_server, "_CLOSE_SECONDS", 0.01)
    prefect = PrefectServer(loopback.url)
    loopback.answering.clear()
    asking = asyncio.create_task(prefect.states(uuid4()))
    await loopback.asked.acquire()
    await asyncio.wait_for(prefect.close(), 2)
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert loopback.answered == 0


async def test_what_becomes_of_a_call_that_was_left_is_no_news(unused_tcp_port: int) -> None:
    """Its error is nobody's any more, and asyncio does not complain that nobody took it."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
    prefect = PrefectServer(f"http://127.0.0.1:{unused_tcp_port}/api")
    await left_after(prefect, 1)
    await prefect.close()
    gc.collect()
    assert complaints == []
