"""Publishes a client's events into its own `custom.*` channels."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import orjson

from api.context import Context
from api.streams.channels import Stream
from gpt_trader.errors import Problem, Refused
from storage.events import EventLog, Position

#: Bytes that the JSON of one event may have.
MOST_BYTES: Final = 32 * 1024


async def publish(context: Context, stream: Stream, event: str, content: Mapping[str, Any]) -> Position:
    """Append an event durably and return its position; raise Refused where JSON has no words for it, or too many."""
    size = _size(content)
    if size > MOST_BYTES:
        raise Refused.of(
            Problem("data", f"{size:,} bytes", "is too large", allowed=f"{MOST_BYTES:,} bytes of JSON")
        )
    log = EventLog(context.database)
    return await asyncio.to_thread(log.append, stream.log, event, content)


def _size(content: Mapping[str, Any]) -> int:
    try:
        json.dumps(
            content, allow_nan=False
        )  # the log's own words: no NaN, which the next line would make a null
        return len(orjson.dumps(content))  # nor what cannot be sent: a lone surrogate, more than 64 bits
    except (TypeError, ValueError) as error:
        raise Refused.of(Problem("data", None, f"cannot be told as JSON: {error}")) from None
