"""The local engine as a command sees it: find it, stop it. Light: every command loads this."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.engine.home import check_home
from cli.engine.orphans import left_over
from cli.engine.processes import family, kill_all, wait_gone
from cli.engine.record import EngineRecord, read_record, remove_record
from gpt_trader.errors import EngineUnreachable

if TYPE_CHECKING:
    from gpt_trader.settings import Home


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
    return address_of(record) if record is not None and record.state == "running" else None


def running_record(home: Home) -> EngineRecord | None:
    """Return what the running supervisor tells, or None when none runs (a stale file counts as none).

    Raises:
        Refused: The home is another user's, or open to other users.
    """
    check_home(home)
    record = read_record(home)
    return record if record is not None and record.alive else None


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
    for members in left_over(read_record(home) or record, home.root).values():
        left += members
    kill_all(left)
    stubborn = wait_gone(left, 2.0)
    if stubborn:
        raise EngineUnreachable(f"processes {[process.pid for process in stubborn]} could not be killed")
    remove_record(home)
    return bool(left)


def address_of(record: EngineRecord) -> EngineAddress | None:
    """Return where a recorded engine answers; None for one that runs without an API."""
    if record.api_url is None:
        return None
    return EngineAddress(record.api_url, record.prefect_url, record.supervisor.pid, record.version)
