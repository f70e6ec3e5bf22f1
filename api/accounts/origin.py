"""Where a request about accounts comes from, as the audit log tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from storage.audit import AuditEvent


@dataclass(frozen=True)
class Origin:
    """Who asks (None: nobody known), from which address, in which request."""

    actor: str | None
    address: str
    request_id: str

    def tells(self, event: str, subject: str | None = None, **details: Any) -> AuditEvent:  # noqa: ANN401 - JSON
        """Return what to write down; `details` must hold no secret."""
        return AuditEvent(event, self.actor, subject, self.address, self.request_id, details)
