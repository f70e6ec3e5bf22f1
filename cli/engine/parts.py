"""What an engine is made of: each part's command, and how we know that it is ready.

All parts start at once: what each needs of the others it waits for itself, when its imports are done.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

#: Path at which a part with an HTTP server answers 200 when it is ready.
HEALTH: Final = {"prefect": "/api/health", "api": "/api/v1/system/health/ready"}

_ANSWER_WITHIN: Final = 5.0


class Probe(Protocol):
    """Tells whether a part is ready, without ever making the others wait."""

    def reset(self) -> None:
        """Forget what an earlier life of the part left."""

    def ready(self, leader: int) -> bool:
        """Return whether the part whose process is `leader` is ready now; never blocks."""


@dataclass(frozen=True)
class Part:
    """One process of the engine.

    Attributes:
        name: One of `record.PARTS`.
        command: The argument vector.
        probe: How we know that it is ready.
        url: Its bare origin, if it has one.
        stop_signal: Asks it to finish in order.
        stop_seconds: How long it may take before it is killed.
        restart_seconds: How long it rests after its first death; doubled with each quick one.
        orphan_seconds: How long its children may go on finishing when it has died.
    """

    name: str
    command: tuple[str, ...]
    probe: Probe
    url: str | None = None
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 5.0
    restart_seconds: float = 1.0
    orphan_seconds: float = 0.0


class HttpProbe:
    """Ready when `GET path` of a local server answers 200; the answer is read when it has come, not waited for."""

    def __init__(self, origin: str, path: str) -> None:
        address = urlsplit(origin)
        self._host, self._port, self._path = address.hostname or "", address.port, path
        self._pending: HTTPConnection | None = None
        self._deadline = 0.0

    def reset(self) -> None:
        """Drop a request that is under way."""
        if self._pending is not None:
            self._pending.close()
            self._pending = None

    def ready(self, leader: int) -> bool:
        """Ask, or look whether the answer has come."""
        try:
            if self._pending is None:
                self._ask()
            return self._answer()
        except (OSError, HTTPException):  # refused, reset, or cut short: it is not up yet
            self.reset()
            return False

    def _ask(self) -> None:
        # A loopback connect is accepted or refused at once, and the request fits the socket's buffer.
        pending = HTTPConnection(self._host, self._port, timeout=0.5)
        self._pending, self._deadline = pending, time.monotonic() + _ANSWER_WITHIN
        pending.request("GET", self._path, headers={"Connection": "close"})

    def _answer(self) -> bool:
        pending = self._pending
        assert pending is not None
        if not select.select([pending.sock], [], [], 0)[0]:
            if time.monotonic() > self._deadline:
                self.reset()
            return False
        status = pending.getresponse().status
        self.reset()
        return status == 200


class FileProbe:
    """Ready when a JSON file that the part writes says `{"state": "ready"}`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def reset(self) -> None:
        """Remove what an earlier life wrote."""
        self._path.unlink(missing_ok=True)

    def ready(self, leader: int) -> bool:
        """Read the file; one that is not there or half-written is not ready."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(content, dict) and content.get("state") == "ready"


class PostmasterProbe:
    """Ready when PostgreSQL's `postmaster.pid` names a server in the part's session and calls it ready."""

    #: Lines of the file, from 0 (PostgreSQL's miscadmin.h: LOCK_FILE_LINE_PID, LOCK_FILE_LINE_PM_STATUS).
    _PID, _STATUS = 0, 7

    def __init__(self, path: Path) -> None:
        self._path = path

    def reset(self) -> None:
        """Leave the file alone: it is PostgreSQL's, and a stale one names nobody of the new session."""

    def ready(self, leader: int) -> bool:
        """Read the file and ask whose session the server is in."""
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
            return lines[self._STATUS].strip() == "ready" and os.getsid(int(lines[self._PID])) == leader
        except (OSError, ValueError, IndexError):
            return False
