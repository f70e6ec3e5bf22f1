"""Sessions as the API tells them: for their owner only, read from their rows and ledgers, told what to do."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from api.accounts.origin import Origin
from api.prefect_server import FlowRun
from api.principals import Principal
from api.session_runs import SessionRuns
from gpt_trader.errors import EngineUnreachable, Problem, Refused
from gpt_trader.requests import Request
from storage.session_care import SessionCare
from storage.session_rows import Session, no_session
from storage.session_views import SessionViews
from storage.sessions import SessionStore

if TYPE_CHECKING:
    from api.context import Context

ROOT: Final = "/api/v1/paper-trade/sessions"

Command = Literal["pause", "resume", "stop"]


@dataclass(frozen=True)
class Sessions:
    """What the API has of them."""

    store: SessionStore
    views: SessionViews
    care: SessionCare
    runs: SessionRuns


async def seen(context: Context, session_id: UUID, caller: Principal) -> Session:
    """Return a session; raise NotFound if there is none, or it is another owner's."""
    found = await asyncio.to_thread(context.sessions.store.get, session_id)
    if not caller.may_see(found.owner):
        raise no_session(session_id)
    return found


async def must_see_all(context: Context, request: Request, caller: Principal) -> None:
    """Raise NotFound where a request names a session that is not there, or is another owner's."""
    named = [getattr(request, "session", None), *getattr(request, "sessions", ())]
    for session_id in named:
        if session_id is not None:
            await seen(context, session_id, caller)


async def command(
    context: Context,
    session_id: UUID,
    caller: Principal,
    origin: Origin,
    what: Command,
    *,
    flatten: bool = False,
) -> tuple[int, FlowRun | None]:
    """Write down what is asked of a session; return the command's id, and the run that was started for it, if any.

    A session that is being traded hears of it between two bars. For one that nobody trades now a run is started, which
    obeys first; where Prefect does not answer, the keeper starts one as soon as it does.

    Raises:
        NotFound: there is no such session, or it is another owner's.
        Conflict: it has ended.
    """
    sessions = context.sessions
    session = await seen(context, session_id, caller)
    number = await asyncio.to_thread(sessions.store.command, session_id, what, caller.id, flatten=flatten)
    told = origin.tells(f"session.{what}", session.owner, session_id=str(session_id), flatten=flatten)
    await asyncio.to_thread(context.accounts.audit.record, told)
    run = None
    # One whose lease was never taken is about to be traded by the run that made it.
    if session.lease_token and not await asyncio.to_thread(sessions.care.is_traded, session_id):
        with suppress(EngineUnreachable):
            run = await sessions.runs.resume(await asyncio.to_thread(sessions.store.get, session_id))
    return number, run


def is_traded(session: Session) -> bool:
    """Return whether a session's lease was held when it was read."""
    return session.lease_until is not None and session.lease_until > datetime.now(UTC)


def entity_tag(session: Session) -> str:
    """Return what changes whenever a session's view does."""
    return f'W/"{session.seq}-{session.certified}-{session.lease_token}-{int(is_traded(session))}"'


def symbols_of(request: Mapping[str, Any]) -> list[str]:
    """Return a session's symbols, each once, in order of its legs."""
    return list(dict.fromkeys(leg["symbol"] for leg in request["legs"]))


def cursor_of(page: Sequence[Session]) -> str:
    """Return where the page behind this one begins."""
    place = f"{page[-1].created_at.isoformat()} {page[-1].session_id}"
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def place_of(cursor: str) -> tuple[datetime, UUID]:
    """Return what `cursor_of` wrote; raise Refused for anything else."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        at, _, session_id = text.partition(" ")
        place = datetime.fromisoformat(at), UUID(session_id)
    except (binascii.Error, UnicodeError, ValueError):
        place = None
    if place is None or place[0].tzinfo is None:
        allowed = "the next_cursor of a list, unchanged"
        raise Refused.of(Problem("cursor", cursor, "is not a cursor of this API", allowed=allowed))
    return place
