"""Reads server-sent events from lines (WHATWG HTML, "Server-sent events": event, data, id, comments)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One event of a run: `state`, `progress`, `log` or `result`; `id` is `epoch:offset`."""

    type: str
    data: dict[str, Any]
    id: str | None = None


def events(lines: Iterable[bytes]) -> Iterator[Event]:
    """Yield the events of a stream as they are complete.

    Heartbeats (comments) are passed over, and so is a last event that a cut left without its empty line:
    whoever resumes by `Last-Event-ID` gets it again.
    """
    kind, last_id = "message", None
    parts: list[str] = []
    for raw in lines:
        line = raw.decode("utf-8", errors="replace").rstrip("\r\n")
        if not line:
            if parts:
                yield Event(kind, _object("\n".join(parts)), last_id)
            kind, parts = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            parts.append(value)
        elif name == "id" and "\0" not in value:
            last_id = value


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {"text": text}
    return value if isinstance(value, dict) else {"text": text}
