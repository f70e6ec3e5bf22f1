"""Starts an engine in the background, detached from the caller, and waits until the parts it needs are ready."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from typing import Final

from cli.engine.home import prepare_home
from cli.engine.logs import open_log, rotate
from cli.engine.plan import python_environment, settings_environment
from cli.engine.record import ALREADY_RUNNING, EngineRecord
from cli.engine.running import EngineAddress, address_of, running_record
from cli.engine.start_display import StartDisplay
from cli.terminal.options import Say
from gpt_trader.errors import EngineUnreachable, Refused
from gpt_trader.settings import ENV_PREFIX, Home, Settings

#: Parts that a command needs; they in turn need the database.
NEEDED: Final = ("prefect", "worker", "api")
#: How long an engine may take to come up.
START_SECONDS: Final = 120.0

_SUPERVISOR: Final = (sys.executable, "-P", "-m", "cli.engine.supervisor")
_POLL_SECONDS: Final = 0.05
#: Supervisors this process started. They outlive us; should we outlive them, the next start reaps them.
_started: Final[list[subprocess.Popen[bytes]]] = []


def reap() -> None:
    """Forget the supervisors of this process's that have ended: until then the system keeps them as zombies."""
    _started[:] = [process for process in _started if process.poll() is None]


def ensure_engine(
    settings: Settings,
    home: Home,
    *,
    say: Say,
    needs: Collection[str] = NEEDED,
    only: Sequence[str] = (),
    timeout: float = START_SECONDS,
    command: Sequence[str] | None = None,
) -> EngineAddress:
    """Return the address of an engine whose parts `needs` are ready; start one in the background if none runs.

    Callers at the same time end up with the same engine. `say` is told which parts are up; `command` runs
    another supervisor than ours.

    Raises:
        Refused: The home or a chosen port cannot be used.
        EngineUnreachable: A part failed, or was not ready in time; the message ends with its log's last lines.
    """
    record = start_engine(settings, home, say=say, needs=needs, only=only, timeout=timeout, command=command)
    address = address_of(record)
    if address is None:
        raise EngineUnreachable(
            "the engine of this home runs without an API (`up --only`): run gpt-trader down"
        )
    return address


def start_engine(
    settings: Settings,
    home: Home,
    *,
    say: Say,
    needs: Collection[str],
    only: Sequence[str] = (),
    timeout: float = START_SECONDS,
    command: Sequence[str] | None = None,
) -> EngineRecord:
    """Do what `ensure_engine` does, for an engine that may have no API; return its record."""
    prepare_home(home)
    deadline = time.monotonic() + timeout
    starter = _Starter(
        settings, home, [*(command or _SUPERVISOR), *(["--only", ",".join(only)] if only else [])], say
    )
    with StartDisplay(say) as display:
        news = _News(display.say)
        while True:
            record = running_record(home)
            if record is None or record.state == "stopping":
                starter.start_if_needed(record)
            else:
                news.tell(record)
                display.show(record)
                _raise_if_failed(home, record, needs)
                if all(_is_up(record, name) for name in needs):
                    return record
            if time.monotonic() > deadline:
                raise _late(home, record, needs, timeout)
            time.sleep(_POLL_SECONDS)


class _Starter:
    """Starts a detached supervisor when none is at work, and reads why one gave up."""

    def __init__(self, settings: Settings, home: Home, command: list[str], say: Say) -> None:
        self._settings, self._home, self._command, self._say = settings, home, command, say
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0

    def start_if_needed(self, record: EngineRecord | None) -> None:
        """Start one unless ours is on its way or the old one is still stopping; raise what ended ours."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            if code != ALREADY_RUNNING:
                self._raise_why(code)
        if record is None:
            self._start()

    def _start(self) -> None:
        reap()
        if self._process is None:
            self._say(f"starting the local engine of {self._home.root}")
        log = self._home.logs / "engine.log"
        rotate(log)
        with open_log(log) as file:
            self._log_from = file.seek(0, os.SEEK_END)
            # A session of its own and no inherited pipe: `gpt-trader backtest | cat` ends, and closing the
            # terminal ends nothing.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=self._environment(),
                cwd=self._home.root,
                start_new_session=True,
            )
        _started.append(self._process)

    def _environment(self) -> dict[str, str]:
        home = {f"{ENV_PREFIX}HOME": str(self._home.root)}
        return os.environ | settings_environment(self._settings) | python_environment(os.environ) | home

    def _raise_why(self, code: int) -> None:
        with (self._home.logs / "engine.log").open("rb") as file:
            file.seek(self._log_from)
            lines = file.read().decode(errors="replace").splitlines()
        reasons = [line.partition(" error: ")[2] for line in lines if " error: " in line]
        if code == Refused.exit_code and reasons:
            raise Refused(reasons[-1])
        if code == EngineUnreachable.exit_code and reasons:
            raise EngineUnreachable(reasons[-1])
        told = "\n".join(lines[-12:])
        raise EngineUnreachable(f"the engine ended with code {code} while starting:\n{told}")


def _is_up(record: EngineRecord, name: str) -> bool:
    part = record.parts.get(name)
    return part is not None and part.state in ("ready", "external")


class _News:
    """Says once what the supervisor has to say and which parts changed."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._told: dict[str, str] = {}

    def tell(self, record: EngineRecord) -> None:
        """Say what is new since the last call."""
        if not self._told:
            for note in record.notes:
                self._say(note)
        for name, part in record.parts.items():
            if self._told.get(name) != part.state and part.state not in ("starting", "external"):
                took = (
                    f" after {part.ready_after:.1f} s" if part.state == "ready" and part.ready_after else ""
                )
                why = f": {part.message}" if part.message else ""
                self._say(f"  {name} {part.state}{took}{why}")
            self._told[name] = part.state


def _raise_if_failed(home: Home, record: EngineRecord, needs: Collection[str]) -> None:
    concerned = {*needs, "database"}
    for name, part in record.parts.items():
        if part.state == "failed" and name in concerned:
            lines = "\n".join(f"  {line}" for line in part.log_tail)
            raise EngineUnreachable(
                f"{name} failed ({part.message}). Its last lines ({home.logs / f'{name}.log'}):\n{lines}\n"
                "When the cause is gone: gpt-trader down, then gpt-trader up"
            )
    missing = [name for name in needs if name not in record.parts]
    if missing:
        raise EngineUnreachable(
            f"the engine of this home runs without {', '.join(missing)} (`up --only`): "
            "run gpt-trader down, then gpt-trader up"
        )


def _late(
    home: Home, record: EngineRecord | None, needs: Collection[str], timeout: float
) -> EngineUnreachable:
    waiting = [name for name in needs if record is None or not _is_up(record, name)]
    logs = [home.logs / f"{name}.log" for name in waiting]
    return EngineUnreachable(
        f"{', '.join(waiting)} not ready after {timeout:.0f} s; it may still come: gpt-trader status shows it, "
        f"and the logs are {', '.join(str(log) for log in logs)}"
    )
