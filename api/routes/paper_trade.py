"""Paper sessions: what they are, hold and did, and what they are told. `POST sessions` is the slice's own route."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response

from api import runs, sessions
from api.accounts.callers import From
from api.accounts.origin import Origin
from api.context import Context
from api.dependencies import Parts, Reader, Trader
from api.errors import declared
from api.models import Listing
from api.negotiation import has_current
from api.portfolio_view import positions_of
from api.principals import Principal
from api.session_models import (
    CertificateView,
    CommandAccepted,
    EquityColumns,
    FillItem,
    OrderItem,
    SessionPositions,
    SessionView,
    certificate_of,
)
from gpt_trader.errors import NotFound
from gpt_trader.trading.orders import plain
from gpt_trader.trading.request import Feed
from gpt_trader.trading.statuses import Status

router = APIRouter(prefix=sessions.ROOT, tags=["paper-trade"])

Limit = Annotated[int, Query(ge=1, le=500)]
Before = Annotated[
    str | None, Query(alias="cursor", pattern=r"^\d{1,18}$", description="A page's next_cursor.")
]
_READING = declared(401, 403, 404, 422, 500, 503)
_TELLING = declared(401, 403, 404, 409, 422, 500, 503)


@router.get("", summary="List paper sessions, newest first", responses=declared(401, 403, 422, 500, 503))
async def list_sessions(
    context: Parts,
    caller: Reader,
    *,
    state: Annotated[
        Status | Literal["open", "ended"] | None, Query(description="Only in this state; open: not ended.")
    ] = None,
    feed: Annotated[Feed | None, Query(description="Only fed by this.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="A page's next_cursor.")] = None,
) -> Listing[SessionView]:
    """Return one's own sessions; with the scope `admin` everybody's."""
    before = sessions.place_of(cursor) if cursor else None
    found = await asyncio.to_thread(
        context.sessions.store.list,
        None if caller.owns_everything else caller.id,
        slice_name="paper_trade",
        feed=feed,
        ended={"open": False, "ended": True}.get(state or ""),
        status=None if state in ("open", "ended") else state,
        limit=limit + 1,
        before=before,
    )
    page = found[:limit]
    more = sessions.cursor_of(page) if len(found) > limit else None
    return Listing(items=[SessionView.of(each) for each in page], next_cursor=more)


@router.get(
    "/{session_id}",
    summary="Show a session",
    response_model=SessionView,
    responses={304: {"description": "The client has it already"}, **_READING},
)
async def show_session(
    session_id: UUID,
    context: Parts,
    caller: Reader,
    response: Response,
    if_none_match: Annotated[str | None, Header()] = None,
) -> SessionView | Response:
    """Return its state, money and counts; the entity tag changes with its ledger, certificate and lease."""
    session = await sessions.seen(context, session_id, caller)
    tag = sessions.entity_tag(session)
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if has_current(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return SessionView.of(session)


@router.get("/{session_id}/orders", summary="A session's orders, newest first", responses=_READING)
async def list_session_orders(
    session_id: UUID, context: Parts, caller: Reader, *, limit: Limit = 100, before: Before = None
) -> Listing[OrderItem]:
    """Return what was intended and what became of each."""
    await sessions.seen(context, session_id, caller)
    found = await asyncio.to_thread(
        context.sessions.views.orders, session_id, before=int(before or 0), limit=limit + 1
    )
    page = [OrderItem.of(each) for each in found[:limit]]
    return Listing(items=page, next_cursor=str(page[-1].number) if len(found) > limit else None)


@router.get("/{session_id}/fills", summary="A session's fills, newest first", responses=_READING)
async def list_session_fills(
    session_id: UUID, context: Parts, caller: Reader, *, limit: Limit = 100, before: Before = None
) -> Listing[FillItem]:
    """Return what was traded, at which price, and what it cost."""
    await sessions.seen(context, session_id, caller)
    found = await asyncio.to_thread(
        context.sessions.store.events,
        session_id,
        types=("fill",),
        after=int(before or 0),
        limit=limit + 1,
        newest_first=True,
    )
    page = [FillItem.of(each) for each in found[:limit]]
    return Listing(items=page, next_cursor=str(page[-1].number) if len(found) > limit else None)


@router.get("/{session_id}/positions", summary="What a session holds", responses=_READING)
async def list_session_positions(session_id: UUID, context: Parts, caller: Reader) -> SessionPositions:
    """Return its money and each leg's position, valued at the last closes."""
    await sessions.seen(context, session_id, caller)
    return await asyncio.to_thread(_positions, context, session_id)


@router.get("/{session_id}/equity", summary="A session's equity at its closes", responses=_READING)
async def show_session_equity(
    session_id: UUID,
    context: Parts,
    caller: Reader,
    *,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    after: Annotated[int, Query(ge=0, lt=2**63, description="A page's next_after.")] = 0,
) -> EquityColumns:
    """Return columns, oldest first."""
    await sessions.seen(context, session_id, caller)
    found = await asyncio.to_thread(context.sessions.views.curve, session_id, after=after, limit=limit + 1)
    more = found.number[limit - 1] if len(found.number) > limit else None
    columns = {name: getattr(found, name)[:limit] for name in ("number", "time", "equity", "cash")}
    return EquityColumns(session_id=session_id, **columns, next_after=more)


@router.get("/{session_id}/certificate", summary="What a session's ledger proves", responses=_READING)
async def show_session_certificate(session_id: UUID, context: Parts, caller: Reader) -> CertificateView:
    """Return the last one, how much it covers, and whether the ledger has grown since; 404 while there is none."""
    session = await sessions.seen(context, session_id, caller)
    found = certificate_of(session)
    if found is None:
        raise NotFound(
            f"session {session_id} has no certificate yet: each run makes one at its end, and "
            "POST /api/v1/paper-trade/certificates makes one now (`gpt-trader paper replay`)"
        )
    return found


@router.post("/{session_id}/pause", status_code=202, summary="Pause a session", responses=_TELLING)
async def pause_session(session_id: UUID, context: Parts, caller: Trader, origin: From) -> CommandAccepted:
    """Open nothing more; what is held keeps its stops and may be closed. A session that is paused stays so."""
    return await _told(context, session_id, caller, origin, "pause")


@router.post("/{session_id}/resume", status_code=202, summary="Resume a session", responses=_TELLING)
async def resume_session(session_id: UUID, context: Parts, caller: Trader, origin: From) -> CommandAccepted:
    """Trade on after a pause; a session whose run was cancelled or has died is traded again."""
    return await _told(context, session_id, caller, origin, "resume")


@router.delete("/{session_id}", status_code=202, summary="Stop a session", responses=_TELLING)
async def stop_session(
    session_id: UUID,
    context: Parts,
    caller: Trader,
    origin: From,
    flatten: Annotated[bool, Query(description="Close first what it holds, at the next bars.")] = False,
) -> CommandAccepted:
    """End it: working orders are cancelled; what it holds stays, valued at the last close, or is closed first."""
    return await _told(context, session_id, caller, origin, "stop", flatten=flatten)


async def _told(
    context: Context,
    session_id: UUID,
    caller: Principal,
    origin: Origin,
    what: sessions.Command,
    *,
    flatten: bool = False,
) -> CommandAccepted:
    number, run = await sessions.command(context, session_id, caller, origin, what, flatten=flatten)
    return CommandAccepted(
        session_id=session_id,
        command_id=number,
        command=what,
        flatten=flatten,
        run=None if run is None else runs.accepted(context, run),
    )


def _positions(context: Context, session_id: UUID) -> SessionPositions:
    state = context.sessions.views.account(session_id)
    currency = context.sessions.views.currencies([session_id]).get(session_id, "")
    return SessionPositions(
        session_id=session_id,
        state=state.status,
        time=state.time,
        currency=currency,
        cash=plain(state.cash),
        equity=plain(state.equity),
        items=positions_of(session_id, state, currency),
    )
