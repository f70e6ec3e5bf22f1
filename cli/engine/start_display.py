"""Shows on stderr which parts of an engine are up: a line for each, and on a terminal one line that moves."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from cli.engine.record import EngineRecord
from cli.terminal.options import Say, current, plain_terminal

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_SIGNS = {"ready": "✓", "external": "✓", "failed": "✗", "restarting": "↻"}


class StartDisplay:
    """Says lines and, between them, keeps the moving line at the bottom. Use as a context manager."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._moving = not (current().quiet or plain_terminal())
        self._begun = time.monotonic()
        self._drawn = False

    def __enter__(self) -> StartDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def say(self, line: str) -> None:
        """Say a line that stays."""
        self._clear()
        self._say(line)

    def show(self, record: EngineRecord) -> None:
        """Draw the moving line while a part is not up yet."""
        waiting = any(part.state in ("starting", "restarting") for part in record.parts.values())
        if not (self._moving and waiting):
            self._clear()
            return
        passed = time.monotonic() - self._begun
        parts = "  ".join(f"{name} {_SIGNS.get(part.state, '…')}" for name, part in record.parts.items())
        frame = _FRAMES[int(passed * 10) % len(_FRAMES)]
        sys.stderr.write(f"\r\x1b[2K{frame} {passed:.0f} s  {parts}")
        sys.stderr.flush()
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._drawn = False
