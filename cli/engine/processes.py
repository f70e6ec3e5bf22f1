"""Processes as the engine sees them: who is alive, whether a pid is still the one we started, what memory it holds.

Linux is read from /proc; elsewhere (macOS) `ps` answers. No psutil: this is loaded by every CLI call.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


@dataclass(frozen=True)
class ProcessId:
    """A process that a later one with the same number is not mistaken for: pid and start mark."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """Return the identity of the process that has `pid` now, or None if there is none."""
        started = _start_mark(pid)
        return cls(pid, started) if started else None

    @property
    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return self.started != "" and _start_mark(self.pid) == self.started

    def send(self, number: int) -> bool:
        """Send a signal; return False if the process is gone."""
        if not self.alive:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


@dataclass(frozen=True)
class Memory:
    """Bytes a set of processes holds: `rss` counts shared pages in each, `pss` shares them out (Linux)."""

    rss: int
    pss: int | None


@dataclass(frozen=True)
class _Row:
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
    rows = {row.pid: row for row in _table()}
    members = {pid for pid, row in rows.items() if leader in (row.session, pid)}
    grown = True
    while grown:
        below = {pid for pid, row in rows.items() if row.parent in members} - members
        members |= below
        grown = bool(below)
    found = [
        ProcessId.of(pid) for pid in sorted(members, key=lambda pid: (pid != leader, pid)) if pid in rows
    ]
    return [process for process in found if process is not None]


def kill_all(processes: Iterable[ProcessId]) -> None:
    """SIGKILL each that is still alive and ours to kill."""
    for process in processes:
        with contextlib.suppress(PermissionError):
            process.send(signal.SIGKILL)


def leftovers(process: ProcessId, engine_root: Path) -> list[ProcessId]:
    """Return what still runs of a part recorded as `process`: its family, the part itself first.

    When the part itself is gone, its session's members may live on; the kernel keeps a session's number from being
    used again while it has members, but a restart of the machine does not. So they count only if the boot is the
    same and their environment names this engine's home (Linux; elsewhere only a living part is found).
    """
    if process.alive:
        return family(process.pid)
    if not _has_proc() or not process.started.startswith(f"{_boot()}:") or ProcessId.of(process.pid):
        return []
    mark = f"GPT_TRADER_HOME={engine_root}".encode()
    return [member for member in family(process.pid) if mark in _environment(member.pid)]


def memory_of(pids: Iterable[int]) -> Memory:
    """Return the memory of the processes together; those that are gone or not ours to read count as nothing."""
    if not _has_proc():
        return Memory(sum(_ps_rss(pid) for pid in pids), None)
    rss = pss = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in ("Rss", "Pss"):
                    size = int(value.split()[0]) * 1024
                    rss, pss = (rss + size, pss) if name == "Rss" else (rss, pss + size)
    return Memory(rss, pss)


def die_with_parent() -> Callable[[], None] | None:
    """Return what a child runs before exec so that it gets SIGTERM when its parent dies (Linux; else None).

    Only safe in a single-threaded parent, which the supervisor is.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return prepare


@cache
def _has_proc() -> bool:
    return (_PROC / "self" / "stat").exists()


@cache
def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _start_mark(pid: int) -> str:
    """Return what tells this life of `pid` from another ("" if dead): boot id and start tick, or ps' lstart."""
    if pid <= 0:
        return ""
    if not _has_proc():
        state, _, started = _ps(pid, "stat=,lstart=").partition(" ")
        return "" if state.startswith("Z") else started.strip()
    fields = _stat(pid)
    return "" if not fields or fields[0] in "ZX" else f"{_boot()}:{fields[19]}"


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the state on (the name before it may hold anything)."""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (OSError, ProcessLookupError):
        return []


def _environment(pid: int) -> list[bytes]:
    try:
        return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _table() -> list[_Row]:
    if not _has_proc():
        listed = (line.split() for line in _ps(None, "pid=,ppid=").splitlines())
        return [_Row(int(pid), int(parent), _session(int(pid))) for pid, parent in listed]
    return [
        _Row(int(entry), int(fields[1]), int(fields[3]))
        for entry in os.listdir(_PROC)  # noqa: PTH208 -- a plain listing is what we filter
        if entry.isdigit() and (fields := _stat(int(entry)))
    ]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _ps_rss(pid: int) -> int:
    kilobytes = _ps(pid, "rss=").strip()
    return int(kilobytes) * 1024 if kilobytes.isdigit() else 0


def _ps(pid: int | None, columns: str) -> str:
    import subprocess

    chosen = ["-ax"] if pid is None else ["-p", str(pid)]
    return subprocess.run(
        ["ps", *chosen, "-o", columns], capture_output=True, text=True, check=False, timeout=10
    ).stdout
