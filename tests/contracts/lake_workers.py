"""What processes do to a lake in tests of its faults, and the numbered states by which a mixture is recognized.

Run as a module it is a nursery: a process with everything imported that forks a child for each job (a line of JSON on
stdin), kills it when told to, and answers with a line: the child's exit status. A fork takes milliseconds where
a fresh interpreter takes a second, so that hundreds can be killed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import storage
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import GptTraderError
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars, inspect
from storage.lake import Lake, Version
from storage.lake_writing import Arrival
from tests.lake_samples import AAPL, IBM, changed, some_bars

REPOSITORY = Path(storage.__file__).parent.parent
DEADLINE = 60
MSFT = Instrument(symbol="MSFT", venue="XNAS", calendar="XNYS")
SERIES = (("AAPL", "1d"), ("AAPL", "4h"), ("IBM", "4h"))
EX_DATE = date(2020, 1, 10)

Item = TypeVar("Item")


class Damaged(Exception):
    """A lake's state is a mixture."""


def numbered(number: int) -> list[Arrival]:
    """Return four arrivals that bring a lake into the state of that number, each with its own kind of write.

    Daily bars with a bad row and actions, intraday bars of two years, intraday bars of one, and actions alone (their
    bars are the same in every state).
    """
    actions = CorporateActions.of(dividends={EX_DATE: number / 1000})
    daily = changed(volumes(some_bars(40), number), 9, close=-1.0)
    return [
        Arrival(AAPL, "1d", inspect(daily, "1d"), "sample", actions),
        _intraday(IBM, 40, "2019-12-29", number),
        _intraday(AAPL, 12, "2020-01-06", number),
        Arrival(MSFT, "1d", inspect(some_bars(30), "1d"), "sample", actions),
    ]


def number_of(lake: Lake, snapshot: Version = None) -> int:
    """Read all of a snapshot and return the number of its state; raise Damaged if it holds more than one."""
    found = set[float]()
    for symbol, timeframe in SERIES:
        rows = lake.raw_bars(symbol, timeframe, snapshot=snapshot)
        found |= set(rows.volume.tolist())
        if len(rows) != {"1d": 39, "4h": 40 if symbol == "IBM" else 12}[timeframe]:
            raise Damaged(f"{symbol} {timeframe} has {len(rows)} rows")
    for symbol in ("AAPL", "MSFT"):
        actions = lake.actions(symbol, snapshot=snapshot)
        found |= {round(cash * 1000) for cash in actions.dividend.tolist()} if actions else {-1.0}
    lake.raw_bars("MSFT", snapshot=snapshot)
    if len(found) != 1:
        raise Damaged(f"states {sorted(found)} in one snapshot")
    return int(found.pop())


def volumes(raw: RawBars, number: float) -> RawBars:
    """Return the bars with every volume replaced."""
    return RawBars(raw.time, raw.open, raw.high, raw.low, raw.close, np.full(len(raw), number), raw.factor)


def needed(lake: Lake) -> set[str]:
    """Return every file that a snapshot of the lake names, and the manifests; relative to the lake."""
    paths = {path for snapshot in lake.snapshots() for path in lake.manifest(snapshot.id).paths()}
    return paths | {f"manifests/{snapshot.id}.json" for snapshot in lake.snapshots()}


def stored(lake: Lake) -> set[str]:
    """Return every file that snapshots could name; relative to the lake."""
    found = (
        path for folder in ("bars", "actions", "manifests") for path in (lake.root / folder).rglob("*.*")
    )
    return {str(path.relative_to(lake.root)) for path in found}


def _intraday(instrument: Instrument, rows: int, start: str, number: int) -> Arrival:
    raw = volumes(some_bars(rows, timeframe="4h", start=start), number)
    return Arrival(instrument, "4h", inspect(raw, "4h"), "csv")


def whole_batch(outcomes: Sequence[object]) -> None:
    """Raise the error of an arrival that could not be merged."""
    for outcome in outcomes:
        if isinstance(outcome, GptTraderError):
            raise outcome


class _Armed(list[Arrival]):
    """Arrivals that arm a crash point when the one at `place` is drawn for writing (the first pass checks them)."""

    def __init__(self, arrivals: Sequence[Arrival], crash_at: str, place: int) -> None:
        super().__init__(arrivals)
        self._crash_at, self._place, self._passes = crash_at, place, 0

    def __iter__(self) -> Iterator[Arrival]:
        self._passes += 1
        writing = self._passes > 1
        for place, arrival in enumerate(super().__iter__()):
            if writing and place == self._place:
                os.environ["GPT_TRADER_CRASH_AT"] = self._crash_at
            yield arrival


def _write(job: dict[str, Any]) -> None:
    """Bring the lake into one state; crash at a place while one of the arrivals is written."""
    arrivals: list[Arrival] = numbered(job["number"])
    if "place" in job:
        arrivals = _Armed(arrivals, job["crash_at"], job["place"])
    else:
        os.environ["GPT_TRADER_CRASH_AT"] = job.get("crash_at", "")
    whole_batch(Lake(Path(job["root"])).upsert_many(arrivals))


def _write_on(job: dict[str, Any]) -> None:
    """Bring the lake into one state after the other, until killed; write down each that was acknowledged."""
    lake = Lake(Path(job["root"]))
    handle = os.open(job["acknowledged"], os.O_WRONLY | os.O_APPEND)
    number = job["number"]
    while True:
        number += 1
        whole_batch(lake.upsert_many(numbered(number)))
        os.write(handle, b"%d\n" % number)
        if number % job["collect_every"] == 0:
            lake.collect(datetime.now(UTC), lambda: set(job["pinned"]))


def _collect(job: dict[str, Any]) -> None:
    os.environ["GPT_TRADER_CRASH_AT"] = job.get("crash_at", "")
    Lake(Path(job["root"])).collect(datetime.now(UTC), lambda: set(job["pinned"]))


def _campaign(job: dict[str, Any]) -> None:
    from tests.contracts import lake_campaign

    lake_campaign.run(Path(job["root"]), job["seconds"], job["seed"], job["kept"], Path(job["results"]))


JOBS: dict[str, Callable[[dict[str, Any]], None]] = {
    "write": _write,
    "write_on": _write_on,
    "collect": _collect,
    "campaign": _campaign,
}


class Nursery:
    """The parent's side of the nursery."""

    def __init__(self) -> None:
        self._process = python("from tests.contracts.lake_workers import serve; serve()")

    def run(self, do: str, root: Path, *, kill_after: float | None = None, **job: Any) -> int:
        """Have a child do a job; return its exit status, that of a signal negative. `kill_after` in seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps({"do": do, "root": str(root), "kill_after": kill_after, **job})
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery is gone: " + ended(self._process)[1]
        return int(answer)

    def close(self) -> None:
        """End it; fail on anything its children said."""
        assert ended(self._process) == (0, "")


def serve() -> None:
    """Do the jobs of stdin, a child each, until it is closed."""
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            JOBS[job["do"]](job)
            os._exit(0)  # no finally and no buffer of the parent's
        handle = os.pidfd_open(pid)
        if job["kill_after"] is not None and not select.select([handle], [], [], job["kill_after"])[0]:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


def python(code: str, *arguments: object, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start Python code in a process of its own; `before` is a command that runs it (strace and its options)."""
    return subprocess.Popen(
        [*before, sys.executable, "-P", "-c", code, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end; return the exit status and what was said on stderr."""
    try:
        _, said = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    return process.returncode, said


@contextmanager
def together(processes: Sequence[subprocess.Popen[str]]) -> Iterator[Sequence[subprocess.Popen[str]]]:
    """Give processes that have all said "ready", and kill what is left of them at the end."""
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", ended(process)[1]
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
