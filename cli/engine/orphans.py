"""Finds what outlives the part that started it: a template or a run in a session of its own, whoever was killed.

Two traces lead to them (Linux; elsewhere there are only the tree and the sessions of `processes.family`):

* the supervisor adopts orphans: whatever loses its parent, at any depth, becomes its child, and is reaped by it;
* each life of a part is started with a mark in its environment, which everything below it inherits. It tells whose
  an adopted process is, and finds what is left when the supervisor itself was killed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cli.engine.processes import below, environment_of, family, table
from gpt_trader.processes import ProcessId, boot_id, has_proc

if TYPE_CHECKING:
    from pathlib import Path

    from cli.engine.record import EngineRecord

#: Name of the mark in a part's environment.
PART_MARK: Final = "GPT_TRADER_PART"


def mark_of(name: str, life: int, supervisor: ProcessId) -> str:
    """Return what marks the given life of a part under this supervisor; no other engine ever has the same."""
    return f"{name}:{life}{_of_engine(supervisor)}"


def orphans(mark: str) -> list[ProcessId]:
    """Return what this process adopted of the life that has this mark, with everything below it."""
    return below([pid for pid in _children() if _mark(pid) == mark]) if has_proc() else []


def strays() -> list[ProcessId]:
    """Return everything below this process: when its parts have ended, whatever it adopted of them."""
    return below(_children()) if has_proc() else []


def reap(leaders: Collection[int]) -> None:
    """Take leave of adopted processes that have ended; `leaders`, whose codes somebody asks for, are left alone."""
    if sys.platform != "linux":  # nothing is adopted there
        return
    with suppress(ChildProcessError):  # no child at all
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in leaders:  # its own round takes it; the kernel shows us no other before
                return
            os.waitpid(ended.si_pid, 0)


def left_over(record: EngineRecord, engine_root: Path) -> dict[str, list[ProcessId]]:
    """Return what still runs of an engine whose supervisor is dead, part by part, each part's leader first."""
    found = {
        name: _leftovers(part.process, engine_root) if part.process else []
        for name, part in record.parts.items()
    }
    if has_proc():
        known = {process.pid for members in found.values() for process in members}
        for row in table():
            name, _, engine = _mark(row.pid).partition(":")
            if row.pid not in known and engine.endswith(_of_engine(record.supervisor)):
                found.setdefault(name, []).extend(p for p in [ProcessId.of(row.pid)] if p)
    return found


def _leftovers(process: ProcessId, engine_root: Path) -> list[ProcessId]:
    """Return what still runs of a part recorded as `process`: its family, the part itself first.

    When the part itself is gone, its session's members may live on; the kernel keeps a session's number from being
    used again while it has members, but a restart of the machine does not. So they count only if the boot is the
    same and their environment names this engine's home (Linux; elsewhere only a living part is found).
    """
    if process.alive:
        return family(process.pid)
    if not has_proc() or not process.started.startswith(f"{boot_id()}:") or ProcessId.of(process.pid):
        return []
    named = f"GPT_TRADER_HOME={engine_root}".encode()
    return [member for member in family(process.pid) if named in environment_of(member.pid)]


def _of_engine(supervisor: ProcessId) -> str:
    return f":{supervisor.pid}:{supervisor.started}"


def _children() -> list[int]:
    me = os.getpid()
    return [row.pid for row in table() if row.parent == me]


def _mark(pid: int) -> str:
    prefix = f"{PART_MARK}=".encode()
    for entry in environment_of(pid):
        if entry.startswith(prefix):
            return entry.removeprefix(prefix).decode(errors="replace")
    return ""
