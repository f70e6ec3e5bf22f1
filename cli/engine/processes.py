"""Processes as the engine sees them: who belongs to whom, who is still there, what memory they hold. No psutil."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from gpt_trader.processes import PROC, ProcessId, has_proc, ps, stat_fields


@dataclass(frozen=True)
class Memory:
    """Bytes a set of processes holds: `rss` counts shared pages in each, `pss` shares them out (Linux)."""

    rss: int
    pss: int | None


@dataclass(frozen=True)
class Row:
    """A process in the table of all: its number, its parent's and its session's."""

    pid: int
    parent: int
    session: int


def wait_gone(processes: Iterable[ProcessId], seconds: float, *, poll: float = 0.02) -> list[ProcessId]:
    """Wait until none of the processes is alive, at most `seconds`; return those that still are."""
    left = [process for process in processes if process.alive]
    deadline = time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        time.sleep(poll)
        left = [process for process in left if process.alive]
    return left


def family(leader: int) -> list[ProcessId]:
    """Return the processes below `leader` and in its session, itself first.

    The session finds children whose parent died (a forkserver's), the tree finds those that left the session.
    """
    rows = table()
    members = {row.pid for row in rows if leader in (row.session, row.pid)}
    return _with_below(members, rows, first=leader)


def below(parents: Collection[int]) -> list[ProcessId]:
    """Return these processes and all below them."""
    return _with_below(set(parents), table())


def _with_below(members: set[int], rows: Iterable[Row], first: int = 0) -> list[ProcessId]:
    """Return `members` and everything below them, `first` first."""
    listed = list(rows)
    grown = True
    while grown:
        more = {row.pid for row in listed if row.parent in members} - members
        members |= more
        grown = bool(more)
    ordered = sorted(members, key=lambda pid: (pid != first, pid))
    return [process for pid in ordered if (process := ProcessId.of(pid)) is not None]


def kill_all(processes: Iterable[ProcessId]) -> None:
    """SIGKILL each that is still alive and ours to kill."""
    for process in processes:
        with contextlib.suppress(PermissionError):
            process.send(signal.SIGKILL)


def memory_of(pids: Iterable[int]) -> Memory:
    """Return the memory of the processes together; those that are gone or not ours to read count as nothing."""
    if not has_proc():
        return Memory(sum(_ps_rss(pid) for pid in pids), None)
    rss = pss = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in ("Rss", "Pss"):
                    size = int(value.split()[0]) * 1024
                    rss, pss = (rss + size, pss) if name == "Rss" else (rss, pss + size)
    return Memory(rss, pss)


def environment_of(pid: int) -> list[bytes]:
    """Return the `NAME=value`s a process was started with (Linux); [] if it is gone or not ours to read."""
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def table() -> list[Row]:
    """Return every process of the machine."""
    if not has_proc():
        listed = (line.split() for line in ps(None, "pid=,ppid=").splitlines())
        return [Row(int(pid), int(parent), _session(int(pid))) for pid, parent in listed]
    return [
        Row(int(entry), int(fields[1]), int(fields[3]))
        for entry in os.listdir(PROC)  # noqa: PTH208 -- a plain listing is what we filter
        if entry.isdigit() and (fields := stat_fields(int(entry)))
    ]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _ps_rss(pid: int) -> int:
    kilobytes = ps(pid, "rss=").strip()
    return int(kilobytes) * 1024 if kilobytes.isdigit() else 0
