"""Processes of this machine: which one a pid means, across its reuse and a reboot, and how a child follows its parent.

Linux is read from /proc; elsewhere (macOS) `ps` and `sysctl` answer. Standard library only: every command loads this.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


@dataclass(frozen=True)
class ProcessId:
    """A process that a later one with the same number is not mistaken for: pid and start mark.

    Attributes:
        pid: Its number.
        started: Boot id and start tick (Linux) or the time of its start (elsewhere); "" for one that never was.
    """

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """Return the identity of the process that has `pid` now, or None if there is none."""
        started = _start_mark(pid)
        return cls(pid, started) if started else None

    @classmethod
    def own(cls) -> ProcessId:
        """Return this very process."""
        return cls(os.getpid(), _start_mark(os.getpid()))

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


def follow_parent(number: signal.Signals, parent: int) -> Callable[[], None] | None:
    """Return what a child calls to get signal `number` when `parent` dies; None where only Linux could do it.

    The library is loaded now, the request made when it is called: a child may have given up root in between (a
    change of user clears an earlier request), or stand between fork and exec. The call ends the process if the
    parent died before it. The parent must have one thread: the kernel watches the thread that forked.
    """
    control = _prctl()
    if control is None:
        return None

    def follow() -> None:
        control(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:
            os._exit(1)

    return follow


def adopt_orphans() -> bool:
    """Become the parent of every orphan below this process, at any depth; return whether the system can (Linux).

    Whoever calls this must reap them (`os.waitpid`).
    """
    control = _prctl()
    return control is not None and control(_PR_SET_CHILD_SUBREAPER, 1) == 0


def _prctl() -> Callable[[int, int], int] | None:
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda option, value: int(prctl(option, value, 0, 0, 0))


@cache
def has_proc() -> bool:
    """Return whether /proc tells of processes."""
    return (PROC / "self" / "stat").exists()


@cache
def boot_id() -> str:
    """Return what changes with each boot of this machine: pids and start times mean nothing across one."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # macOS, or a sandbox without /proc/sys
        return "" if has_proc() else _told_by(["sysctl", "-n", "kern.boottime"])


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the state on (the name before it may hold anything); [] if gone."""
    try:
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (OSError, ProcessLookupError):
        return []


def ps(pid: int | None, columns: str) -> str:
    """Return what `ps` says of one process, or of all (None), in these columns; "" where there is none."""
    return _told_by(["ps", *(["-ax"] if pid is None else ["-p", str(pid)]), "-o", columns])


def _start_mark(pid: int) -> str:
    """Return what tells this life of `pid` from another ("" if dead): boot id and start tick, or ps' lstart."""
    if pid <= 0:
        return ""
    if not has_proc():
        state, _, started = ps(pid, "stat=,lstart=").partition(" ")
        return "" if state.startswith("Z") else started.strip()
    fields = stat_fields(pid)
    return "" if not fields or fields[0] in "ZX" else f"{boot_id()}:{fields[19]}"


def _told_by(command: list[str]) -> str:
    import subprocess

    asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    return asked.stdout.strip("\n")
