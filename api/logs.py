"""Structured log lines on stderr, one JSON object each; stdout stays empty."""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Final, TextIO

import orjson
import structlog

#: Loggers whose INFO lines repeat each request, with addresses we do not want in a log.
_CHATTY: Final = ("httpx", "httpcore", "asyncio", "uvicorn.access", "alembic")


def configure(level: str) -> None:
    """Send structlog's and the standard library's records through one JSON renderer to stderr."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Lines(sys.stderr)
    renderer = structlog.processors.JSONRenderer(serializer=_dumps)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


class RequestLines:
    """The line of each answered request, written without what structlog and logging do for any other line.

    It looks as theirs does, and goes where theirs go: to the handlers of the root logger, where these are ours.
    """

    def __init__(self) -> None:
        self._logger = logging.getLogger("api")
        self._other = structlog.get_logger("api")

    def write(self, **facts: object) -> None:
        """Log `request` with these facts, at the level info."""
        if not self._logger.isEnabledFor(logging.INFO):
            return
        handlers = self._logger.root.handlers
        if len(handlers) != 1 or not isinstance(handlers[0], _Lines):
            self._other.info("request", **facts)
            return
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        handlers[0].write(
            orjson.dumps(
                {**facts, "event": "request", "level": "info", "logger": "api", "timestamp": now}, default=str
            ).decode()
        )


class _Lines(logging.StreamHandler[TextIO]):
    """Writes lines to stderr."""

    def write(self, line: str) -> None:
        """Write a line that is rendered already."""
        with self.lock or nullcontext():
            try:
                self.stream.write(line + self.terminator)
                self.stream.flush()
            except OSError:  # whoever read it is gone; the API goes on
                return


def _dumps(value: object, **_options: object) -> str:
    return orjson.dumps(value, default=str).decode()
