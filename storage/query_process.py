"""A user's SQL in a process of its own: whatever it does, it ends in time, and nothing but itself is lost.

The process gets no environment, may write no file, and has bounds of its own for memory and time (set by the kernel);
it knows the files of one snapshot by a `Lens` that is sent to it. It is started anew for each query, never forked from
a thread: measured 0.17 s to start (Python 0.01, DuckDB and Arrow 0.15), beside 0.01 to 0.05 s for a query itself.

On its stdin: one line of JSON, then the lens's tables as Arrow streams; on its stdout: one line of JSON, then
the answer as an Arrow stream. Nothing that comes back is trusted to be small or well-formed.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final

import pyarrow as pa

from gpt_trader.errors import GptTraderError, Problem, Refused
from storage.lens import MAX_SQL, Files, Lens, answer, too_large, too_long

#: Bytes an answer may have, in this process and on the pipe.
MAX_BYTES: Final = 64 * 2**20
MAX_LIMIT: Final = 100_000
MAX_TIMEOUT: Final = 300.0
#: Seconds that the process may take to say by itself that it was too slow.
_GRACE: Final = 2.0
#: Memory of the whole process; DuckDB's own limit of 1 GB is met first, except by what it does not count.
_MEMORY: Final = 2 * 2**30
_CHUNK: Final = 2**16
_TOO_MUCH: Final = f"wants more memory than {_MEMORY >> 30} GiB: ask for less at once"


class TooManyQueries(GptTraderError):
    """Every place for a query is taken, and was for as long as it was worth waiting."""

    type: ClassVar[str] = "too-many-queries"
    title: ClassVar[str] = "Too many queries at once"
    exit_code: ClassVar[int] = 4
    http_status: ClassVar[int] = 429


@dataclass(frozen=True)
class Question:
    """One SELECT and its bounds: rows of the answer, seconds, bytes of the answer."""

    sql: str
    limit: int
    timeout: float
    max_bytes: int = MAX_BYTES

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.limit <= MAX_LIMIT:
            problems.append(Problem("limit", self.limit, "is out of range", allowed=f"1 to {MAX_LIMIT}"))
        if not 0 < self.timeout <= MAX_TIMEOUT:
            problems.append(
                Problem("timeout", self.timeout, "is out of range", allowed=f"up to {MAX_TIMEOUT:g} seconds")
            )
        if len(self.sql) > MAX_SQL:
            problems.append(Problem("sql", self.sql, f"has {len(self.sql)} characters, more than {MAX_SQL}"))
        if problems:
            raise Refused.of(*problems)


class QueryProcesses:
    """Runs queries, each in a process, at most `at_once` of them; others wait `patience` seconds for a place.

    Belongs to one event loop. Whoever gives up waiting for an answer (a cancelled task) ends its process.
    """

    def __init__(self, *, at_once: int = 2, patience: float = 5.0) -> None:
        self._at_once = at_once
        self._patience = patience
        self._places = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one of the places until the end of the block; raise TooManyQueries if none gets free."""
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
        except TimeoutError:
            raise TooManyQueries(
                f"{self._at_once} queries are running and none has ended within {self._patience:g} s: "
                "try again in a few seconds"
            ) from None
        try:
            yield
        finally:
            self._places.release()

    async def answer(self, lens: Lens, question: Question) -> pa.Table:
        """Return the answer as `storage.lens.answer` does; call it with a place held.

        Raises Refused for whatever that refuses, and for a query that broke its process (out of memory).
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            "storage.query_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # what a query makes DuckDB say belongs in no log of ours
            env={},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(question.timeout + _GRACE):
                content = await _exchanged(process, _request(lens, question), question)
                code = await process.wait()
        except TimeoutError:
            raise too_long(question.sql, question.timeout) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return _table(content, code, question)


async def _exchanged(process: asyncio.subprocess.Process, request: bytes, question: Question) -> bytes:
    """Send the request and return what comes back; raise Refused once that is more than was agreed."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(ConnectionError):  # it has ended already: its return code will tell
        process.stdin.write(request)
        await process.stdin.drain()
    process.stdin.close()
    content = bytearray()
    while chunk := await process.stdout.read(_CHUNK):
        content += chunk
        if len(content) > question.max_bytes + 2**20:
            raise too_large(question.sql, question.max_bytes)
    return bytes(content)


def _request(lens: Lens, question: Question) -> bytes:
    tables = [(name, _stream(table)) for name, table in lens.tables.items()]
    header = {
        "question": asdict(question),
        "snapshot_id": lens.snapshot_id,
        "stored": lens.stored,
        "files": {timeframe: asdict(files) for timeframe, files in lens.files.items()},
        "tables": [(name, len(content)) for name, content in tables],
    }
    return b"".join([json.dumps(header).encode(), b"\n", *(content for _, content in tables)])


def _table(content: bytes, code: int, question: Question) -> pa.Table:
    """Return the table that came back; raise the refusal that came back, or one for what is neither."""
    line, _, stream = content.partition(b"\n")
    try:
        refused: list[dict[str, Any]] = json.loads(line)["refused"]
        if refused:
            raise Refused.of(*(Problem(**problem) for problem in refused))
        table = pa.ipc.open_stream(stream).read_all()
    except (ValueError, KeyError, TypeError, pa.ArrowException):
        raise Refused.of(
            Problem(
                "sql",
                question.sql,
                f"ended its process (code {code}): it most likely {_TOO_MUCH}",
            )
        ) from None
    try:
        table.validate(full=True)
    except pa.ArrowException as error:
        reason = f"has a value that its type does not allow ({error}): cast it to VARCHAR"
        raise Refused.of(Problem("sql", question.sql, reason)) from None
    return table


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def main() -> None:
    """Answer the one question on stdin; this is the process."""
    _bound(memory=_MEMORY)
    header = json.loads(sys.stdin.buffer.readline())
    question = Question(**header["question"])
    _bound(seconds=math.ceil(question.timeout + _GRACE))
    lens = Lens(
        header["snapshot_id"],
        tuple(header["stored"]),
        {timeframe: Files(**{k: tuple(v) for k, v in f.items()}) for timeframe, f in header["files"].items()},
        {name: pa.ipc.open_stream(sys.stdin.buffer.read(size)).read_all() for name, size in header["tables"]},
    )
    refused: list[dict[str, Any]] = []
    content = b""
    try:
        found = answer(
            lens, question.sql, limit=question.limit, timeout=question.timeout, max_bytes=question.max_bytes
        )
        content = _stream(found)
    except Refused as error:
        refused = [problem.as_dict() for problem in error.problems]
    except MemoryError:
        refused = [Problem("sql", question.sql, _TOO_MUCH).as_dict()]
    sys.stdout.buffer.write(json.dumps({"refused": refused}).encode() + b"\n" + content)
    sys.stdout.buffer.flush()
    os._exit(0)  # the answer is out: nothing is worth taking down in order


def _bound(*, memory: int | None = None, seconds: int | None = None) -> None:
    """Set what the kernel enforces: no file is written, no core is dumped, memory and CPU time end."""
    import resource

    if memory is not None:
        os.nice(5)  # beside an API that shall go on answering
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    if seconds is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


if __name__ == "__main__":
    main()
