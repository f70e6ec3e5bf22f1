"""Runs as a list shows them: what each was about, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cli.terminal.render import Row, short_strategy, to_the_second


def run_row(run: Mapping[str, Any]) -> Row:
    """Return a run as a table shows it: what it is about, and times to the second."""
    created = to_the_second(run.get("created_at"))
    return {**run, "about": _about(run.get("request") or {}), "created": created}


def _about(request: Mapping[str, Any]) -> str:
    """Return the symbols and the strategy of a request, those of its legs, or the session that it names."""
    legs: Sequence[Mapping[str, Any]] = request.get("legs") or ()
    names = {str(leg["strategy"]) for leg in legs} or {str(request.get("strategy") or "")}
    symbols = request.get("symbols") or list(dict.fromkeys(str(leg["symbol"]) for leg in legs))
    session = request.get("session")
    words = [
        f"session {str(session)[:8]}" if session else "",
        request.get("symbol") or _some(symbols),
        short_strategy(names.pop()) if len(names) == 1 else f"{len(names)} strategies",
    ]
    return " ".join(filter(None, words))


def _some(symbols: Sequence[str]) -> str:
    more = len(symbols) - 3
    return ", ".join(symbols[:3]) + (f" and {more} more" if more > 0 else "")
