"""What a session's status may be; light, so that whoever only shows sessions imports nothing else."""

from __future__ import annotations

from typing import Final, Literal

Status = Literal["active", "paused", "reducing", "closing", "finishing", "halted", "stopped", "completed"]

#: A session that trades no more.
FINAL: Final = frozenset({"halted", "stopped", "completed"})
