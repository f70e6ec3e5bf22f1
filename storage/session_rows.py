"""What a session's rows hold, as values: the session, who may write to it, an event, a command."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from gpt_trader.errors import Conflict, NotFound
from gpt_trader.trading.events import LedgerEvent


@dataclass(frozen=True)
class Session:
    """One session's row. Money is decimal text; `bar` is the time of its last bar.

    `told` and `certified` are how many events of its ledger the streams have, and its last certificate covers.
    """

    session_id: UUID
    owner: str
    slice: str
    name: str
    feed: str
    request: dict[str, Any]
    snapshot_id: str | None
    code_version: str | None
    status: str
    reason: str
    seq: int
    ledger_hash: str
    told: int
    cash: str
    equity: str
    steps: int
    orders: int
    fills: int
    bar: str | None
    certificate: dict[str, Any] | None
    certified: int
    lease_token: int
    lease_holder: str | None
    lease_until: datetime | None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class Lease:
    """The right to write to a session's ledger: nobody with an older token can."""

    session_id: UUID
    holder: str
    token: int


@dataclass(frozen=True)
class StoredEvent:
    """One event of a ledger: its number, and when it was committed."""

    seq: int
    type: str
    data: dict[str, Any]
    at: datetime


@dataclass(frozen=True)
class Command:
    """What somebody asked of a session: pause, resume or stop (`flatten`: and close what is held)."""

    id: int
    command: str
    by: str
    flatten: bool


def no_session(session_id: UUID) -> NotFound:
    """Return the error for a session that is not there, or not for whoever asks."""
    return NotFound(f"there is no session {session_id}: `gpt-trader paper list` lists them")


def lost(lease: Lease) -> Conflict:
    """Return what a writer is told whose lease somebody else has taken."""
    return Conflict(
        f"the lease of session {lease.session_id} is not {lease.holder}'s any more (token {lease.token}): it writes "
        "nothing"
    )


def ledger_event(stored: StoredEvent) -> LedgerEvent:
    """Return a stored event as the ledger's fold takes it."""
    return LedgerEvent(stored.type, stored.data)
