"""The supervisor: `python -P -m cli.engine.supervisor` starts the parts side by side, restarts what dies, stops all.

Single-threaded and asleep unless a part is coming up, a signal came or the logs are due for a look. It holds a lock
on the home for its life and tells what it does in `engine.json`. Standard library and our settings only: it is always
there.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from types import FrameType
from typing import Final

from cli.engine.home import prepare_home
from cli.engine.life import Life
from cli.engine.logs import rotate
from cli.engine.orphans import left_over, reap, strays
from cli.engine.plan import Plan, make_plan
from cli.engine.processes import kill_all, wait_gone
from cli.engine.reachable import check_reachable
from cli.engine.record import (
    ALREADY_RUNNING,
    EngineRecord,
    PartRecord,
    read_record,
    remove_record,
    write_record,
)
from gpt_trader import __version__
from gpt_trader.errors import GptTraderError
from gpt_trader.processes import ProcessId, adopt_orphans
from gpt_trader.settings import Home, Settings, home, load_settings

#: How often parts that are coming up are asked whether they are ready.
_POLL_SECONDS: Final = 0.05
#: How long the logs may go unwatched.
_LOG_SECONDS: Final = 10.0
#: How long one that is stopping may keep the home from the next.
_LOCK_SECONDS: Final = 35.0
#: How long stopping everything may take, and what of it is kept for each part that is yet to be stopped.
_STOP_SECONDS: Final = 27.0
_LAST_SECONDS: Final = 2.5
#: How long the parts of a killed engine may take to finish before they are killed too.
_LEFTOVER_SECONDS: Final = 5.0

Announce = Callable[[str], None]
#: Shown the record in every round: often while parts come up, else when something happens.
Watch = Callable[[EngineRecord], None]


class AlreadyRunning(Exception):
    """Another supervisor holds the home."""


class Supervisor:
    """Runs one plan until it is told to stop. `run` may be called once, in the main thread (it takes signals)."""

    def __init__(self, engine_home: Home, plan: Plan, announce: Announce, watch: Watch) -> None:
        self._home = engine_home
        self._plan = plan
        self._announce = announce
        self._watch = watch
        self._lives = [Life(part, engine_home.logs / f"{part.name}.log") for part in plan.parts]
        self._begun = time.monotonic()
        self._signals: list[int] = []
        self._wake, self._waker = os.pipe()
        self._record = EngineRecord(
            supervisor=ProcessId.own(),
            version=__version__,
            started_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            api_url=plan.api_url,
            prefect_url=plan.prefect_url,
            parts={name: PartRecord("external", url) for name, url in plan.external.items()},
            notes=plan.notes,
        )

    def run(self) -> int:
        """Start everything, keep it running, and stop it on SIGTERM or SIGINT; return the signal that ended it."""
        before = self._take_signals()
        adopt_orphans()
        try:
            self._tell()
            while not self._signals:
                if self._step():
                    self._tell()
                self._reap()
                self._bound_logs()
                self._watch(self._record)
                self._sleep()
            return self._signals[0]
        finally:
            self._stop()
            self._release_signals(before)

    # Signals arrive as bytes in a pipe, so that a sleeping select wakes at once and none is missed.

    def _take_signals(self) -> dict[int, object]:
        for end in (self._wake, self._waker):
            os.set_blocking(end, False)
        before: dict[int, object] = {}
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            before[number] = signal.signal(number, self._on_signal)
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        return before

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _release_signals(self, before: dict[int, object]) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave, given back
        os.close(self._wake)
        os.close(self._waker)

    def _sleep(self) -> None:
        now = time.monotonic()
        waits = [life.wait_until(now, _POLL_SECONDS) for life in self._lives]
        due = [wait for wait in waits if wait is not None]
        self._select(min([_LOG_SECONDS, *due]))

    def _select(self, seconds: float) -> None:
        if select.select([self._wake], [], [], seconds)[0]:
            with suppress(BlockingIOError):
                os.read(self._wake, 4096)

    # One round over the parts.

    def _step(self) -> bool:
        """Move every part on by what happened since; return whether anything changed."""
        changed = False
        for life in self._lives:
            news = life.step(self._plan.environment, self._home.root)
            if news:
                changed = True
                self._note_ready(life)
                self._announce(news)
        return changed

    def _reap(self) -> None:
        reap({life.leader for life in self._lives if life.leader is not None})

    def _bound_logs(self) -> None:
        for name in ("engine", *(life.part.name for life in self._lives)):
            with suppress(OSError):  # no room for the copy: the engine goes on, and the log as it was
                rotate(self._home.logs / f"{name}.log")

    def _note_ready(self, life: Life) -> None:
        if life.state == "ready" and life.ready_after is None:
            life.ready_after = round(time.monotonic() - self._begun, 3)

    def _tell(self) -> None:
        for life in self._lives:
            self._record = self._record.with_part(life.part.name, life.record())
        write_record(self._home, self._record)

    # The end, in reverse order: each may finish in order, then it is killed.

    def _stop(self) -> None:
        self._record = replace(self._record, state="stopping")
        self._tell()
        all_by = time.monotonic() + _STOP_SECONDS
        for still_to_come, life in reversed(list(enumerate(self._lives))):
            life.ask_to_stop()
            left = all_by - time.monotonic() - still_to_come * _LAST_SECONDS
            self._await_end(life, min(life.part.stop_seconds, left))
            life.end()
            self._announce(f"{life.part.name} stopped")
            self._tell()
        kill_all(strays())
        wait_gone(strays(), _LAST_SECONDS)
        self._reap()
        remove_record(self._home)

    def _await_end(self, life: Life, seconds: float) -> None:
        """Wait until nothing of a part runs; what its process leaves behind has a part's orphans' time, no more."""
        deadline = time.monotonic() + seconds
        ended = False
        while life.busy and time.monotonic() < deadline and len(self._signals) < 2:
            if not ended and not life.running:
                ended, deadline = True, min(deadline, time.monotonic() + life.part.orphan_seconds)
            self._select(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))
            self._reap()


def stop_leftovers(engine_home: Home, announce: Announce) -> None:
    """Stop what a supervisor that was killed left running, as `engine.json` recorded it."""
    record = read_record(engine_home)
    if record is None or record.alive:
        return
    left = []
    for name, found in left_over(record, engine_home.root).items():
        if found:
            announce(f"stopping {name}, left over from an engine that was killed")
            found[0].send(signal.SIGTERM)
            left += found
    kill_all(wait_gone(left, _LEFTOVER_SECONDS))
    wait_gone(left, _LEFTOVER_SECONDS)
    remove_record(engine_home)


def hold_home(engine_home: Home) -> int:
    """Take the home for this process's life; return the lock's descriptor.

    Raises:
        AlreadyRunning: Another supervisor is at work (one that is stopping is waited for).
    """
    descriptor = os.open(engine_home.state / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            record = read_record(engine_home)
            at_work = record is not None and record.alive and record.state == "running"
            if at_work or time.monotonic() > deadline:
                os.close(descriptor)
                raise AlreadyRunning from None
            time.sleep(_POLL_SECONDS)
        else:
            return descriptor


def supervise(
    engine_home: Home, plan: Callable[[], Plan], announce: Announce, *, watch: Watch = lambda _: None
) -> int:
    """Hold the home, clear leftovers, make the plan and run it; return the signal that ended it.

    Raises:
        AlreadyRunning: Another supervisor runs this home.
        Refused: The home is not safely ours, or the plan cannot be made.
        EngineUnreachable: A server elsewhere, that a part here needs, takes no connection.
    """
    prepare_home(engine_home)
    lock = hold_home(engine_home)
    mask = os.umask(0o077)
    try:
        stop_leftovers(engine_home, announce)
        made = check_reachable(plan(), announce)
        for note in made.notes:
            announce(note)
        return Supervisor(engine_home, made, announce, watch).run()
    finally:
        os.umask(mask)
        os.close(lock)


def log_line(text: str) -> None:
    """Write one line with the time to stderr (a detached supervisor's is `logs/engine.log`)."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    with suppress(OSError):  # whoever read it is gone; the engine goes on
        sys.stderr.write(f"{now}Z {text}\n")
        sys.stderr.flush()


def main(
    arguments: Sequence[str] | None = None, make: Callable[[Settings, Home, Sequence[str]], Plan] = make_plan
) -> int:
    """Run the engine of this home in this process, as `make` plans it; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -P -m cli.engine.supervisor", description="Runs a local engine."
    )
    parser.add_argument("--only", default="", help="parts to run, separated by commas (default: all)")
    only = [name for name in parser.parse_args(arguments).only.split(",") if name]
    engine_home = home()
    try:
        supervise(engine_home, lambda: make(load_settings(), engine_home, only), log_line)
    except AlreadyRunning:
        return ALREADY_RUNNING
    except GptTraderError as error:
        log_line(f"error: {error.detail}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
