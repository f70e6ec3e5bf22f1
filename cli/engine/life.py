"""The life of one part under the supervisor: started, found ready, dead, started again with backoff, or given up."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from cli.engine.logs import last_lines, open_log, rotate
from cli.engine.orphans import PART_MARK, mark_of, orphans
from cli.engine.parts import Part
from cli.engine.processes import family, kill_all
from cli.engine.record import PartRecord, PartState
from gpt_trader.processes import ProcessId, follow_parent

#: Deaths in a row, each before the part was ready for `_STEADY_SECONDS`, after which we stop trying.
QUICK_DEATHS: Final = 5
_STEADY_SECONDS: Final = 10.0
_LONGEST_BACKOFF: Final = 30.0
#: A part that ends with this code refused its input (a foreign data folder, …): trying again changes nothing.
_REFUSED: Final = 2


class Life:
    """One part's process and what became of it. Driven by the supervisor's rounds; never blocks."""

    def __init__(self, part: Part, log: Path) -> None:
        self.part = part
        self.log = log
        self.state: PartState = "starting"
        self.ready_after: float | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._identity: ProcessId | None = None
        self._ready_at: float | None = None
        self._next_start = 0.0
        self._quick_deaths = 0
        self._restarts = 0
        self._message: str | None = None
        self._tail: tuple[str, ...] = ()
        self._mark = ""
        self._orphans: list[ProcessId] = []
        self._orphans_of: list[str] = []
        self._orphans_until = 0.0

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def busy(self) -> bool:
        """Whether its process runs, or anything that was started by it."""
        return self.running or bool(orphans(self._mark))

    @property
    def leader(self) -> int | None:
        """The number of its process, as long as its exit code has not been asked for."""
        return self._process.pid if self._process is not None else None

    def record(self) -> PartRecord:
        """Return what `engine.json` tells of it."""
        return PartRecord(
            state=self.state,
            url=self.part.url,
            process=self._identity,
            restarts=self._restarts,
            ready_after=self.ready_after,
            message=self._message,
            log_tail=self._tail,
        )

    def wait_until(self, now: float, poll: float) -> float | None:
        """Return in how many seconds it wants its next round; None: only when something happens."""
        if self._process is not None and self.state == "starting":
            return poll
        due = [self._orphans_until] if self._orphans_of else []
        if self._process is None and self.state != "failed":
            due.append(self._next_start)
        return max(0.0, min(due) - now) if due else None

    def step(self, environment: dict[str, str], folder: Path) -> str | None:
        """Move on by what happened since the last round; return what changed, in words, or None."""
        now = time.monotonic()
        if self._orphans_of and now >= self._orphans_until:
            self._end_orphans()
        if self._process is not None:
            code = self._process.poll()
            if code is not None:
                return self._died(code, now)
            if self.state == "starting" and self.part.probe.ready(self._process.pid):
                return self._became_ready(now)
            return None
        if self.state in ("starting", "restarting") and now >= self._next_start:
            return self._start(environment, folder)
        return None

    def ask_to_stop(self) -> None:
        """Send the part its stop signal."""
        if self._process is not None and self.running:
            self._process.send_signal(self.part.stop_signal)

    def end(self) -> None:
        """Kill what is left of the part and its children."""
        if self._process is not None:
            kill_all(family(self._process.pid))
            self._process.wait()
            self._orphans_of.append(self._mark)
        self._end_orphans()
        self._process = self._identity = None
        self.part.probe.reset()
        if self.state != "failed":
            self.state = "stopped"

    def _start(self, environment: dict[str, str], folder: Path) -> str:
        self.part.probe.reset()
        rotate(self.log)
        self._mark = mark_of(self.part.name, self._restarts, ProcessId.own())
        with open_log(self.log) as log:
            self._process = subprocess.Popen(
                self.part.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment | {PART_MARK: self._mark},
                cwd=folder,
                start_new_session=True,
                preexec_fn=follow_parent(signal.SIGTERM, os.getpid()),  # noqa: PLW1509 -- the supervisor has one thread
            )
        self._identity = ProcessId.of(self._process.pid)
        self._ready_at = None
        self.state = "starting"
        return f"{self.part.name} starting (pid {self._process.pid})"

    def _became_ready(self, now: float) -> str:
        self.state, self._ready_at = "ready", now
        self._message, self._tail = None, ()
        return f"{self.part.name} ready" + (f" at {self.part.url}" if self.part.url else "")

    def _died(self, code: int, now: float) -> str:
        assert self._process is not None
        # Its children would hold ports, files and locks against the next life.
        self._orphans += family(self._process.pid)
        self._orphans_of.append(self._mark)
        self._orphans_until = now + self.part.orphan_seconds
        if not self.part.orphan_seconds:
            self._end_orphans()
        self._process = self._identity = None
        steady = self._ready_at is not None and now - self._ready_at >= _STEADY_SECONDS
        self._quick_deaths = 1 if steady else self._quick_deaths + 1
        self._message, self._tail = _cause(code), last_lines(self.log)
        name, was_ready = self.part.name, self._ready_at is not None
        if (code == _REFUSED and not was_ready) or self._quick_deaths >= QUICK_DEATHS:
            self.state = "failed"
            return f"{name} failed: {self._message}; its log: {self.log}"
        self.state = "restarting"
        self._restarts += 1
        delay = backoff(self.part.restart_seconds, self._quick_deaths)
        self._next_start = now + delay
        return f"{name} died: {self._message}; starting it again in {delay:g} s"

    def _end_orphans(self) -> None:
        kill_all(self._orphans)
        for mark in self._orphans_of:  # found now: in their time of grace they may have started others
            kill_all(orphans(mark))
        self._orphans, self._orphans_of = [], []


def backoff(first: float, deaths: int) -> float:
    """Return the seconds to wait before the next start after so many deaths in a row: doubled each time, ≤ 30."""
    return float(min(_LONGEST_BACKOFF, first * 2 ** (deaths - 1)))


def _cause(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
