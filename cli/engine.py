"""The local engine as a command sees it: find it, have it started, stop it. Light: every command loads this."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cli.engine_file import EngineRecord, read_record, remove_record
from cli.home import check_home
from cli.processes import family, kill_all, leftovers, wait_gone
from gpt_trader.errors import EngineUnreachable

if TYPE_CHECKING:
    from gpt_trader.settings import Home, Settings

Say = Callable[[str], None]

#: Parts that a command needs; they in turn need the database.
NEEDED: Final = ("prefect", "worker", "api")
#: How long an engine may take to come up.
START_SECONDS: Final = 120.0


@dataclass(frozen=True)
class EngineAddress:
    """Where a running engine answers: bare origins, no trailing slash."""

    api_url: str
    prefect_url: str | None
    pid: int
    version: str


def find_engine(home: Home) -> EngineAddress | None:
    """Return the running engine's address, or None; a millisecond, nothing is asked over the network."""
    record = running_record(home)
    return _address(record) if record is not None and record.state == "running" else None


def running_record(home: Home) -> EngineRecord | None:
    """Return what the running supervisor tells, or None when none runs (a stale file counts as none).

    Raises:
        Refused: The home is another user's, or open to other users.
    """
    check_home(home)
    record = read_record(home)
    return record if record is not None and record.alive else None


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
    from cli.start import start_engine

    record = start_engine(settings, home, say=say, needs=needs, only=only, timeout=timeout, command=command)
    address = _address(record)
    if address is None:
        raise EngineUnreachable(
            "the engine of this home runs without an API (`up --only`): run gpt-trader down"
        )
    return address


def stop_engine(home: Home, timeout: float = 30.0) -> bool:
    """Stop the engine and everything it started; return False if there was nothing to stop.

    What has not stopped in order two seconds before the time is up is killed.

    Raises:
        Refused: The home is another user's.
        EngineUnreachable: Something could not even be killed.
    """
    check_home(home)
    record = read_record(home)
    if record is None:
        return False
    supervisor = record.supervisor
    if supervisor.send(signal.SIGTERM) and not wait_gone([supervisor], max(0.0, timeout - 2.0)):
        record = read_record(home)
        if record is None:  # it ended in order, as the last thing it does is to remove its file
            return True
    left = family(supervisor.pid) if supervisor.alive else []
    for part in (read_record(home) or record).parts.values():
        left += leftovers(part.process, home.root) if part.process else []
    kill_all(left)
    stubborn = wait_gone(left, 2.0)
    if stubborn:
        raise EngineUnreachable(f"processes {[process.pid for process in stubborn]} could not be killed")
    remove_record(home)
    return bool(left)


def _address(record: EngineRecord) -> EngineAddress | None:
    if record.api_url is None:
        return None
    return EngineAddress(record.api_url, record.prefect_url, record.supervisor.pid, record.version)
