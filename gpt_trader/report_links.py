"""A link that opens one report in a browser, where no header can carry the key.

The ticket is a signature over the run's id, made with the engine's key. It is no credential: it opens this one
report, for whoever has the link, and nothing else; a new key ends every link.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

#: Where the API serves a run's report.
PATH: Final = "/api/v1/workflows/runs/{run_id}/report"


def ticket(key: str, run_id: str) -> str:
    """Return the ticket of a run's report: 32 hex digits of HMAC-SHA256."""
    return hmac.new(key.encode(), f"report:{run_id}".encode(), hashlib.sha256).hexdigest()[:32]


def opens(key: str, run_id: str, given: str) -> bool:
    """Return whether `given` is the ticket of this run's report (compared in constant time)."""
    return hmac.compare_digest(ticket(key, run_id).encode(), given.encode("utf-8", "surrogateescape"))


def report_url(origin: str, key: str, run_id: str) -> str:
    """Return the address that opens the report in a browser."""
    return f"{origin}{PATH.format(run_id=run_id)}?ticket={ticket(key, run_id)}"
