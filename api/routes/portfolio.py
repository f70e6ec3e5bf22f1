"""One's open sessions taken together. Amounts of different currencies are never added up."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api import portfolio_view as view
from api import sessions
from api.context import Context
from api.dependencies import Parts, Reader
from api.errors import declared
from api.models import Listing
from api.principals import Principal
from api.session_models import Money, Position, SessionView, difference
from gpt_trader.instruments import Symbol
from gpt_trader.trading.events import stamp
from gpt_trader.trading.orders import exact, plain
from gpt_trader.trading.record import SessionTrade

router = APIRouter(prefix="/api/v1/portfolio", tags=["portfolio"])

_ANSWERS = declared(401, 403, 422, 500, 503)


class Total(BaseModel):
    """The open sessions of one currency together."""

    currency: str
    sessions: int
    capital: Money
    cash: Money
    equity: Money
    profit: Money
    long: Money
    short: Money = Field(description="What is owed for shorts, 0 or above.")


class PortfolioView(BaseModel):
    """One's open sessions, and their totals by currency."""

    totals: list[Total]
    open_sessions: int = Field(description="How many there are; the totals are of all of them.")
    sessions: list[SessionView] = Field(
        description="The newest of them, `limit` at most; /paper-trade/sessions pages through all."
    )


class PortfolioCurve(BaseModel):
    """Equity of the sessions of one currency together, a column each."""

    currency: str
    time: list[str]
    equity: list[Money]
    sessions: list[int] = Field(description="How many sessions had begun, and are in the sum, at each time.")


class ExposureView(BaseModel):
    """What the open sessions of one currency hold, also as fractions of their equity (null: it is not above 0)."""

    currency: str
    equity: Money
    gross: Money
    net: Money
    long: Money
    short: Money
    gross_fraction: float | None
    net_fraction: float | None
    by_symbol: dict[str, Money] = Field(description="Signed value.")


class TradeItem(BaseModel):
    """One round trip of a leg; prices and results as a backtest computes them."""

    session_id: UUID
    leg: int
    symbol: str
    side: int
    entry_time: datetime
    exit_time: datetime | None = Field(description="Null: still held, valued at the last close.")
    size: float
    entry_price: float
    exit_price: float
    pnl: float
    return_fraction: float
    bars: int
    exit_reason: str


@router.get("", summary="One's open sessions together", responses=_ANSWERS)
async def show_portfolio(
    context: Parts,
    caller: Reader,
    limit: Annotated[int, Query(ge=0, le=1000, description="The newest sessions, so many.")] = 200,
) -> PortfolioView:
    """Return totals by currency, and the newest sessions; with the scope `admin` everybody's."""
    found = await _accounts(context, caller)
    totals = []
    for currency, group in view.by_currency(found).items():
        capital = view.total(each.state.capital for each in group)
        equity = view.total(each.state.equity for each in group)
        held = view.exposure(group)
        totals.append(
            Total(
                currency=currency,
                sessions=len(group),
                capital=plain(capital),
                cash=plain(view.total(each.state.cash for each in group)),
                equity=plain(equity),
                profit=difference(equity, capital),
                long=plain(held.long),
                short=plain(held.short),
            )
        )
    shown = [SessionView.of(each.session) for each in found[:limit]]
    return PortfolioView(totals=totals, open_sessions=len(found), sessions=shown)


@router.get("/positions", summary="What one's open sessions hold", responses=_ANSWERS)
async def list_portfolio_positions(context: Parts, caller: Reader) -> Listing[Position]:
    """Return each leg's position, session by session."""
    found = await _accounts(context, caller)
    return Listing(items=[position for each in found for position in each.positions])


@router.get("/equity", summary="Equity of one's open sessions together", responses=_ANSWERS)
async def show_portfolio_equity(
    context: Parts,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=5000, description="The last closes of each session.")] = 500,
) -> Listing[PortfolioCurve]:
    """Return a curve a currency; a session is in the sum from the first of its last `limit` closes on."""
    return Listing(items=await asyncio.to_thread(_curves, context, caller, limit))


@router.get(
    "/trades",
    summary="Round trips of sessions, the latest entry first",
    responses=declared(401, 403, 404, 422, 500, 503),
)
async def list_portfolio_trades(
    context: Parts,
    caller: Reader,
    *,
    session: Annotated[UUID | None, Query(description="Only of this one, ended or not.")] = None,
    symbol: Annotated[Symbol | None, Query(description="Only of this symbol.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="The latest so many.")] = 100,
) -> Listing[TradeItem]:
    """Return those of the open sessions, or of the one that is named."""
    if session is not None:
        ids = [(await sessions.seen(context, session, caller)).session_id]
    else:
        found = await asyncio.to_thread(context.sessions.views.open_sessions, _owner(caller))
        ids = [each.session_id for each in found]
    items = await asyncio.to_thread(_trades, context, ids, symbol)
    return Listing(items=items[:limit])


@router.get("/exposure", summary="How much of the equity is in the market", responses=_ANSWERS)
async def show_portfolio_exposure(context: Parts, caller: Reader) -> Listing[ExposureView]:
    """Return long, short, gross and net by currency, and by symbol."""
    found = await _accounts(context, caller)
    return Listing(items=[_exposure(name, group) for name, group in view.by_currency(found).items()])


async def _accounts(context: Context, caller: Principal) -> list[view.Account]:
    return await asyncio.to_thread(view.accounts, context.sessions.views, _owner(caller))


def _owner(caller: Principal) -> str | None:
    return None if caller.owns_everything else caller.id


def _curves(context: Context, caller: Principal, limit: int) -> list[PortfolioCurve]:
    views = context.sessions.views
    found = views.open_sessions(_owner(caller))
    currencies = views.currencies(each.session_id for each in found)
    curves = []
    for currency in sorted(set(currencies.values())):
        mine = [each.session_id for each in found if currencies.get(each.session_id) == currency]
        time, equity, begun = view.together([views.last_closes(each, limit) for each in mine])
        curves.append(PortfolioCurve(currency=currency, time=time, equity=equity, sessions=begun))
    return curves


def _trades(context: Context, ids: list[UUID], symbol: str | None) -> list[TradeItem]:
    items = [
        _trade(each, trade)
        for each in ids
        for trade in context.sessions.views.trades(each)
        if symbol is None or trade.symbol == symbol.upper()
    ]
    return sorted(items, key=lambda item: item.entry_time, reverse=True)


def _trade(session_id: UUID, trade: SessionTrade) -> TradeItem:
    same = ("leg", "symbol", "side", "size", "entry_price", "exit_price", "pnl", "bars", "exit_reason")
    return TradeItem(
        session_id=session_id,
        entry_time=_moment(trade.entry_time),
        exit_time=None if trade.exit_time is None else _moment(trade.exit_time),
        return_fraction=trade.return_,
        **{name: getattr(trade, name) for name in same},
    )


def _moment(time: Any) -> datetime:  # noqa: ANN401 - NumPy's
    return datetime.fromisoformat(stamp(np.datetime64(time, "us")))


def _exposure(currency: str, group: list[view.Account]) -> ExposureView:
    held = view.exposure(group)
    equity = view.total(each.state.equity for each in group)
    gross, net = view.total([held.long, held.short]), exact(difference(held.long, held.short))
    of_equity = [float(amount) / float(equity) if equity > 0 else None for amount in (gross, net)]
    return ExposureView(
        currency=currency,
        equity=plain(equity),
        gross=plain(gross),
        net=plain(net),
        long=plain(held.long),
        short=plain(held.short),
        gross_fraction=of_equity[0],
        net_fraction=of_equity[1],
        by_symbol={symbol: plain(value) for symbol, value in held.by_symbol.items()},
    )
