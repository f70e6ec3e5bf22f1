"""The check of a strategy in a process of its own: it is code, and code is not run in the API.

A process and not a run: a check leaves nothing behind that would have to be kept, and is asked for between two edits of
a file. Like a user's SQL (`storage.query_process`), it is started anew each time, gets no environment, may write no
file, and has bounds of its own for memory and time. That bounds mistakes; it is no prison: whoever may store a strategy
runs code as the engine's user, as the worker does it.

On its stdin: one line of JSON, the strategy's file, then the bars' arrays; on its stdout: one line of JSON. Nothing
that comes back is trusted to be small or well-formed.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from pydantic import ValidationError

from gpt_trader.backtesting.findings import StrategyCheck
from gpt_trader.bars import Bars
from gpt_trader.errors import GptTraderError, Problem, Refused
from gpt_trader.instruments import Instrument
from gpt_trader.strategies.base import Direction

#: Seconds that a check may take, and bytes that its answer may have.
SECONDS: Final = 60.0
_MAX_BYTES: Final = 2**20
_MEMORY: Final = 2 * 2**30
_CHUNK: Final = 2**16
_COLUMNS: Final = ("open", "high", "low", "close", "volume")


class TooManyChecks(GptTraderError):
    """Every place for a check is taken, and was for as long as it was worth waiting."""

    type: ClassVar[str] = "too-many-checks"
    title: ClassVar[str] = "Too many checks at once"
    exit_code: ClassVar[int] = 4
    http_status: ClassVar[int] = 429


@dataclass(frozen=True)
class Task:
    """What is to be checked: a registered name, or the class of a file; and the bars of the range, from `first` on."""

    name: str
    source: bytes | None
    class_name: str
    params: dict[str, Any]
    direction: Direction
    bars: Bars
    first: int
    snapshot_id: str | None


class CheckProcesses:
    """Runs checks, each in a process, at most `at_once` of them; others wait `patience` seconds for a place.

    Belongs to one event loop. Whoever gives up waiting for an answer (a cancelled task) ends its process.
    """

    def __init__(self, *, at_once: int = 2, patience: float = 5.0, seconds: float = SECONDS) -> None:
        self._at_once = at_once
        self._patience = patience
        self._seconds = seconds
        self._places = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one of the places until the end of the block; raise TooManyChecks if none gets free."""
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
        except TimeoutError:
            raise TooManyChecks(
                f"{self._at_once} checks are running and none has ended within {self._patience:g} s"
            ) from None
        try:
            yield
        finally:
            self._places.release()

    async def checked(self, task: Task) -> StrategyCheck:
        """Return what the check found; call it with a place held.

        Raises Refused for a strategy that cannot be loaded or built, or that broke its process or took too long.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            "api.check_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # what a strategy prints belongs in no log of ours
            env={"OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._seconds):
                content = await _exchanged(process, await asyncio.to_thread(_request, task, self._seconds))
                code = await process.wait()
        except TimeoutError:
            message = f"was not checked within {self._seconds:g} s: give a shorter range by start and end"
            raise Refused.of(Problem("strategy", task.name, message)) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return _answer(content, code, task.name)


async def _exchanged(process: asyncio.subprocess.Process, request: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(ConnectionError):  # it has ended already: its return code will tell
        process.stdin.write(request)
        await process.stdin.drain()
    process.stdin.close()
    content = bytearray()
    while chunk := await process.stdout.read(_CHUNK):
        if len(content) <= _MAX_BYTES:
            content += chunk
        elif process.returncode is None:
            process.kill()  # and read on to the end of what is there already
    return bytes(content)


def _request(task: Task, seconds: float) -> bytes:
    header = {
        "name": task.name,
        "source": None if task.source is None else len(task.source),
        "class_name": task.class_name,
        "params": task.params,
        "direction": task.direction,
        "instrument": task.bars.instrument.model_dump(mode="json"),
        "timeframe": task.bars.timeframe,
        "bars": len(task.bars),
        "first": task.first,
        "snapshot_id": task.snapshot_id,
        "seconds": seconds,
    }
    time = task.bars.time.astype("<M8[us]").tobytes()
    arrays = [getattr(task.bars, column).astype("<f8").tobytes() for column in _COLUMNS]
    return b"".join([json.dumps(header).encode(), b"\n", task.source or b"", time, *arrays])


def _answer(content: bytes, code: int, name: str) -> StrategyCheck:
    """Return the outcome that came back; raise the refusal that came back, or one for what is neither."""
    try:
        found: dict[str, Any] = json.loads(content)
        if found["refused"]:
            problems = [Problem(**problem) for problem in found["refused"]["problems"]]
            raise Refused(str(found["refused"]["detail"]), problems=problems)
        return StrategyCheck.model_validate(found["check"])
    except (ValueError, KeyError, TypeError, ValidationError):
        message = f"ended the process of its check (code {code}): it ends itself, or wants more than 2 GiB of memory"
        raise Refused.of(Problem("strategy", name, message)) from None


def main() -> None:
    """Do the one check on stdin; this is the process."""
    out = os.dup(1)
    os.dup2(2, 1)  # what the strategy prints goes nowhere
    header = json.loads(sys.stdin.buffer.readline())
    source = None if header["source"] is None else sys.stdin.buffer.read(header["source"])
    bars = _bars(header)
    _bound(math.ceil(header["seconds"]))
    found: dict[str, Any] = {"refused": None, "check": None}
    try:
        found["check"] = _checked(header, source, bars)
    except GptTraderError as error:
        problems = [problem.as_dict() for problem in error.problems]
        found["refused"] = {"detail": error.detail, "problems": problems}
    with os.fdopen(out, "wb") as answer:
        answer.write(json.dumps(found).encode())
    os._exit(0)  # the answer is out: nothing is worth taking down in order


def _checked(header: dict[str, Any], source: bytes | None, bars: Bars) -> dict[str, Any]:
    from gpt_trader.backtesting.strategy_check import check_strategy
    from gpt_trader.strategies import registry, user

    if source is None:
        strategy = registry.strategy_type(header["name"])
    else:
        strategy = user.load_source(source, header["class_name"], shown_as=f"{header['class_name']}'s file")
    instance = registry.build(strategy, header["params"], header["direction"])
    found = check_strategy(
        instance, bars, header["first"], shown_as=header["name"], snapshot_id=header["snapshot_id"]
    )
    return found.model_dump(mode="json")


def _bars(header: dict[str, Any]) -> Bars:
    size = 8 * header["bars"]
    time = np.frombuffer(sys.stdin.buffer.read(size), "<M8[us]")
    open_, high, low, close, volume = (np.frombuffer(sys.stdin.buffer.read(size), "<f8") for _ in _COLUMNS)
    instrument = Instrument(**header["instrument"])
    return Bars(instrument, header["timeframe"], time, open_, high, low, close, volume)


def _bound(seconds: int) -> None:
    """Set what the kernel enforces: no file is written, no core is dumped, memory and CPU time end."""
    import resource

    os.nice(5)  # beside an API that shall go on answering
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


if __name__ == "__main__":
    main()
