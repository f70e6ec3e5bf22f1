"""Structured log lines on stderr, one JSON object each; stdout stays empty."""

from __future__ import annotations

import logging
import sys
from typing import Final

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
    handler = logging.StreamHandler(sys.stderr)
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


def _dumps(value: object, **_options: object) -> str:
    return orjson.dumps(value, default=str).decode()
