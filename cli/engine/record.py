"""`engine.json`: what the supervisor tells of its engine; written atomically, readable by its owner alone."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from gpt_trader.processes import ProcessId

if TYPE_CHECKING:
    from gpt_trader.settings import Home

SCHEMA_VERSION: Final = 1
PARTS: Final = ("database", "prefect", "worker", "api")
#: Exit code of a supervisor that found another at work (sysexits' EX_TEMPFAIL).
ALREADY_RUNNING: Final = 75

EngineState = Literal["running", "stopping"]
#: starting: not ready yet; restarting: died, waits for its next start; failed: given up; external: runs elsewhere.
PartState = Literal["starting", "ready", "restarting", "failed", "stopped", "external"]


@dataclass(frozen=True)
class PartRecord:
    """One part: its state, address (a bare origin, never a credential), process and the story so far."""

    state: PartState
    url: str | None = None
    process: ProcessId | None = None
    restarts: int = 0
    #: Seconds from the supervisor's start to the part's first readiness.
    ready_after: float | None = None
    #: Why it is restarting or failed.
    message: str | None = None
    #: The last lines of its log, when it failed.
    log_tail: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineRecord:
    """The whole engine as of now."""

    supervisor: ProcessId
    version: str
    started_at: str
    api_url: str | None
    prefect_url: str | None
    parts: dict[str, PartRecord] = field(default_factory=dict)
    state: EngineState = "running"
    #: What the user should know of the start: another port than usual, …
    notes: tuple[str, ...] = ()

    def with_part(self, name: str, part: PartRecord) -> EngineRecord:
        """Return the record with one part replaced."""
        return replace(self, parts=self.parts | {name: part})

    @property
    def alive(self) -> bool:
        """Whether the supervisor that wrote this still runs."""
        return self.supervisor.alive


def write_record(home: Home, record: EngineRecord) -> None:
    """Replace `engine.json` in one step, mode 0600."""
    content = {"schema_version": SCHEMA_VERSION} | asdict(record)
    partial = home.state / f".engine.json.{os.getpid()}"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
    partial.replace(home.engine)


def read_record(home: Home) -> EngineRecord | None:
    """Return what `engine.json` says, alive or not; None if there is none, or none we can read the meaning of."""
    try:
        content = json.loads(home.engine.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        return None
    try:
        return _record(content)
    except (KeyError, TypeError, AttributeError):
        return None


def remove_record(home: Home) -> None:
    """Remove `engine.json`: the engine is down and left nothing behind."""
    home.engine.unlink(missing_ok=True)


def _record(content: dict[str, Any]) -> EngineRecord:
    fields = {name: content[name] for name in ("version", "started_at", "api_url", "prefect_url", "state")}
    parts = {name: _part(part) for name, part in content["parts"].items()}
    return EngineRecord(
        supervisor=ProcessId(**content["supervisor"]), parts=parts, notes=tuple(content["notes"]), **fields
    )


def _part(content: dict[str, Any]) -> PartRecord:
    process = content.pop("process")
    content["log_tail"] = tuple(content["log_tail"])
    return PartRecord(process=ProcessId(**process) if process else None, **content)
