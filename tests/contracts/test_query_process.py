"""A user's SQL in a process of its own: its bounds, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pyarrow as pa
import pytest

from gpt_trader.errors import Refused
from storage.lake import Lake
from storage.query import query, shown
from storage.query_process import QueryProcesses, Question, TooManyQueries
from tests.lake_samples import AAPL, some_bars

ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000000) b"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "it's a lake")
    lake.upsert(AAPL, "1d", some_bars(100), source="sample")
    return lake


async def asked(
    lake: Lake,
    sql: str,
    processes: QueryProcesses | None = None,
    *,
    limit: int = 1000,
    seconds: float = 20,
    max_bytes: int = 2**20,
) -> pa.Table:
    processes = processes or QueryProcesses()
    with shown(lake, None, sql) as lens:
        async with processes.place():
            return await processes.answer(lens, Question(sql, limit, seconds, max_bytes))


def children() -> set[int]:
    """Return the processes that run SQL for this one."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = stat.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if parent == os.getpid() and b"storage.query_process" in command:
            found.add(int(stat.parent.name))
    return found


def limits(pid: int) -> dict[str, str]:
    """Return what the kernel enforces on a process: each hard limit by its name."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:].split()[1] for line in lines}


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def child() -> int:
    """Return the process once it works on its query: its CPU time is bounded then."""
    while True:
        for pid in children():
            if limits(pid).get("Max cpu time", "unlimited") != "unlimited":
                return pid
        await asyncio.sleep(0.01)


async def test_the_answer_is_that_of_this_process(lake: Lake) -> None:
    for sql in (
        "FROM bars_1d",
        "SELECT symbol, first FROM series",
        "SELECT * FROM instruments",
        "FROM actions",
    ):
        here = query(lake, sql, limit=10)
        assert (await asked(lake, sql, limit=10)).equals(here, check_metadata=True)


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        ("SELECT * FROM read_text('/etc/passwd')", "Permission Error"),
        ("SELECT * FROM read_text('/proc/self/environ')", "Permission Error"),
        ("COPY (SELECT 1) TO '/tmp/x'", "COPY is not a query"),
        ("SELECT list(range) FROM range(300000000)", "Out of Memory Error|wants more memory|longer than"),
        (
            "SELECT repeat('x', 1000000000), repeat('y', 1000000000)",
            "Out of Memory Error|wants more memory|longer than",
        ),
        (
            "SELECT repeat('x', 400000000) FROM range(9)",
            "more memory|more than 1 MiB|Out of Memory|longer than",
        ),
        ("SELECT repeat('x', 100000) FROM range(100)", "has an answer of more than 1 MiB"),
        (
            "WITH RECURSIVE t(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM t) SELECT count(*) FROM t",
            "emory|longer than",
        ),
        (
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n FROM t) SELECT count(*) FROM t",
            r"longer than 1\.5 s",
        ),
        ("SELECT " + "[" * 30_000 + "1" + "]" * 30_000, "expression depth limit"),
        ("SELECT * FROM (" * 6000 + "SELECT 1" + ")" * 6000, "depth|ended its process|longer than"),
        ("SELECT TIME '24:00:00'", "cast it to VARCHAR"),
        (ENDLESS, r"took longer than 1\.5 s: narrow it down"),
    ],
)
async def test_hostile_sql_is_refused_and_the_next_query_works(lake: Lake, sql: str, complaint: str) -> None:
    processes = QueryProcesses()
    started = time.monotonic()
    with pytest.raises(Refused, match=complaint) as refusal:
        await asked(lake, sql, processes, seconds=1.5)
    assert time.monotonic() - started < 20
    assert refusal.value.problems[0].field == "sql"
    assert len(refusal.value.detail) < 2000
    assert (await asked(lake, "SELECT 1 AS one", processes)).to_pylist() == [{"one": 1}]
    assert children() == set()


async def test_the_process_has_no_environment_and_may_write_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_TRADER_CREDENTIAL_ALPACA", "a secret")
    task = asyncio.create_task(asked(lake, ENDLESS))
    pid = await child()
    assert environment(pid) == b""
    found = limits(pid)
    assert (found["Max file size"], found["Max core file size"]) == ("0", "0")
    assert int(found["Max data size"]) <= 2 * 2**30
    assert int(found["Max cpu time"]) <= 25
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == set()


async def test_a_process_that_is_killed_is_a_refusal(lake: Lake) -> None:
    task = asyncio.create_task(asked(lake, ENDLESS))
    os.kill(await child(), 9)
    with pytest.raises(Refused, match=r"ended its process \(code -9\)"):
        await task


async def test_places_are_bounded_and_waited_for(lake: Lake) -> None:
    processes = QueryProcesses(at_once=1, patience=0.2)
    task = asyncio.create_task(asked(lake, ENDLESS, processes))
    await child()
    with pytest.raises(TooManyQueries, match="1 queries are running"):
        await asked(lake, "SELECT 1", processes)
    assert len(children()) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    patient = QueryProcesses(at_once=1, patience=30)
    found = await asyncio.gather(*(asked(lake, f"SELECT {n} AS n", patient) for n in range(3)))
    assert [table.to_pylist() for table in found] == [[{"n": n}] for n in range(3)]


@pytest.mark.parametrize(
    ("sql", "limit", "timeout", "field"),
    [
        ("SELECT 1", 0, 1, "limit"),
        ("SELECT 1", 100_001, 1, "limit"),
        ("SELECT 1", 1, 0, "timeout"),
        ("SELECT 1", 1, 301, "timeout"),
        ("SELECT 1", 1, float("nan"), "timeout"),
        ("-" * 100_001, 1, 1, "sql"),
    ],
)
def test_bounds_beyond_the_bounds_are_refused(sql: str, limit: int, timeout: float, field: str) -> None:
    with pytest.raises(Refused) as refusal:
        Question(sql, limit, timeout)
    assert [problem.field for problem in refusal.value.problems] == [field]


async def test_collection_leaves_a_snapshot_that_is_being_queried(lake: Lake) -> None:
    from datetime import UTC, datetime, timedelta

    first = lake.current()
    assert first is not None
    lake.upsert(AAPL, "1d", some_bars(100, seed=2), source="sample")
    with shown(lake, first.id, "FROM bars_1d") as lens:
        lake.collect(datetime.now(UTC) + timedelta(days=1), set)
        table = await QueryProcesses().answer(lens, Question("SELECT count(*) n FROM bars_1d", 1, 20))
    assert table.to_pylist() == [{"n": 100}]
    lake.collect(datetime.now(UTC) + timedelta(days=1), set)
    assert [snapshot.id for snapshot in lake.snapshots()] != [first.id]
    assert len(lake.snapshots()) == 1
