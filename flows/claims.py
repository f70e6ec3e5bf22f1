"""Whose run is it? A claim is a file `state/running/<run id>.json` in the home of the worker that runs it.

The worker writes it before it proposes Pending and removes it once the run has a final state, so that between the two
there is no moment in which a run is under way and nobody's. It names the worker and, once forked, the child: each
by pid and start time, with the host and its boot. After a crash of everything, `flows.sweep` reads the claims: a run
whose processes are gone is settled; a run without a claim here belongs to somebody else (a stock worker, another
machine, another home) and is never touched.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

from gpt_trader.processes import ProcessId, boot_id
from gpt_trader.settings import Home


@dataclass(frozen=True)
class Claim:
    """One run, the worker that answers for it, and the child that runs it (None until it is forked)."""

    run_id: str
    host: str
    boot: str
    worker: ProcessId
    child: ProcessId | None = None

    def alive(self) -> bool:
        """Return whether any process of this claim runs.

        A home belongs to one engine at a time, so a claim of another boot is dead. The host is told, not judged by:
        a container that is started anew has another name each time.
        """
        if self.boot != boot_id():
            return False
        return self.worker.alive or (self.child is not None and self.child.alive)


class Claims:
    """The claims of one home."""

    def __init__(self, home: Home) -> None:
        self._folder = home.state / "running"
        self._worker = ProcessId.own()

    def write(self, run_id: UUID, child: int | None = None) -> None:
        """Claim a run, or add to the claim the child that runs it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        forked = None if child is None else ProcessId.of(child) or ProcessId(child, "")
        claim = Claim(str(run_id), socket.gethostname(), boot_id(), self._worker, forked)
        draft = self._folder / f".{run_id}"
        draft.write_text(json.dumps(asdict(claim)), encoding="utf-8")
        draft.replace(self._path(run_id))

    def remove(self, run_id: UUID) -> None:
        """Give the claim up: the run has a final state, or never became ours."""
        self._path(run_id).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[Claim]:
        for path in sorted(self._folder.glob("*.json")):
            try:
                yield _read(path)
            except FileNotFoundError:  # given up meanwhile
                continue

    def inherited(self) -> bool:
        """Return whether a claim of another worker is left: one of a life before this one's."""
        return any(claim.worker != self._worker for claim in self)

    def _path(self, run_id: UUID) -> Path:
        return self._folder / f"{run_id}.json"


def _read(path: Path) -> Claim:
    """Return a claim; one that a power cut left empty or torn is of a boot before this one, so nobody's."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        child = ProcessId(**read["child"]) if read["child"] else None
        return Claim(read["run_id"], read["host"], read["boot"], ProcessId(**read["worker"]), child)
    except (ValueError, KeyError, TypeError):
        return Claim(path.stem, "", "", ProcessId(0, ""))
