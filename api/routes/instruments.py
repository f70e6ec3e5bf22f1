"""Instruments: their facts, which a user may set by hand, their splits and dividends, their newest prices."""

from __future__ import annotations

import asyncio
from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from api.context import Context
from api.dependencies import Administrator, Parts, Reader, Researcher, SymbolPath
from api.errors import declared, missing
from api.models import Listing
from api.routes.slices import json_object
from gpt_trader.adapters.base import Quote
from gpt_trader.adapters.names import RESAMPLE
from gpt_trader.adapters.sources import Access, source
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import Problem, Refused, UnknownName
from gpt_trader.instruments import TIMEFRAMES, Instrument
from storage.manifest import Entry

router = APIRouter(prefix="/api/v1/market", tags=["market"])


class SeriesView(BaseModel):
    """One stored series of an instrument; `origins` says which source gave which span, the last one counts."""

    timeframe: str
    source: str
    start: str
    end: str
    bars: int
    bytes: int
    origins: list[dict[str, str]]


class InstrumentView(BaseModel):
    """An instrument's facts (`edited` names those set by hand) and its series."""

    instrument: Instrument
    series: list[SeriesView]


class ActionView(BaseModel):
    """What happened on an ex-date: new shares for one old (1: no split), cash a share as it was paid (0: none)."""

    ex_date: date
    split: float = 1.0
    dividend: float = 0.0


class GivenAction(ActionView):
    """One that somebody types: a split beyond these bounds is a slip."""

    model_config = ConfigDict(extra="forbid")

    split: float = Field(default=1.0, ge=1e-6, le=1e6)
    dividend: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class ActionsBody(BaseModel):
    """All splits and dividends of an instrument."""

    model_config = ConfigDict(extra="forbid")

    items: list[GivenAction] = Field(max_length=10_000)


class QuoteView(BaseModel):
    """The newest prices; `kind` says whether the source quoted them or they are the newest stored bar's close."""

    symbol: str
    time: datetime
    source: str
    kind: str
    bid: float | None = None
    ask: float | None = None
    bid_size: float | None = None
    ask_size: float | None = None
    last: float | None = None


class RemovedView(BaseModel):
    """The series that is gone, and the snapshot from which on it is."""

    symbol: str
    timeframe: str
    snapshot_id: str


AsOf = Annotated[str | None, Query(max_length=64, description="A snapshot's id, or a time: the newest then.")]
Facts = Annotated[dict[str, Any], Depends(json_object)]

_FACTS_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object", "examples": [{"calendar": "XNYS"}]}}},
    }
}


@router.get(
    "/symbols/{symbol}",
    summary="An instrument: facts and series",
    responses=declared(401, 403, 404, 422, 500),
)
async def show_instrument(
    symbol: SymbolPath, context: Parts, _: Reader, as_of: AsOf = None
) -> InstrumentView:
    """Return what the lake knows of it."""
    return await asyncio.to_thread(_view, context, symbol, as_of)


@router.patch(
    "/symbols/{symbol}",
    summary="Set facts of an instrument by hand",
    responses=declared(400, 401, 403, 404, 409, 422, 500),
    openapi_extra=_FACTS_BODY,
)
async def edit_instrument(
    symbol: SymbolPath, changes: Facts, context: Parts, _: Researcher
) -> InstrumentView:
    """Sources do not overrule what is set here; null leaves a fact to them again. Makes a new snapshot."""
    await asyncio.to_thread(_view, context, symbol)  # 404 before 422
    await asyncio.to_thread(context.lake.edit_instrument, symbol, changes)
    return await asyncio.to_thread(_view, context, symbol)


@router.delete(
    "/symbols/{symbol}",
    summary="Take a series out of the lake",
    responses=declared(401, 403, 404, 409, 422, 500),
)
async def remove_series(
    symbol: SymbolPath,
    context: Parts,
    _: Researcher,
    timeframe: Annotated[str, Query(description="Which of its series.", examples=["1d"])],
) -> RemovedView:
    """Make a snapshot without the series; older snapshots keep it."""
    await asyncio.to_thread(_view, context, symbol)
    snapshot = await asyncio.to_thread(context.lake.remove, symbol, timeframe)
    return RemovedView(symbol=symbol, timeframe=timeframe, snapshot_id=snapshot.id)


@router.get("/actions/{symbol}", summary="Splits and dividends", responses=declared(401, 403, 404, 422, 500))
async def list_actions(
    symbol: SymbolPath, context: Parts, _: Reader, as_of: AsOf = None
) -> Listing[ActionView]:
    """Return them oldest first; nothing where no source knows of any."""
    await asyncio.to_thread(_view, context, symbol, as_of)
    found = await asyncio.to_thread(context.lake.actions, symbol, snapshot=as_of)
    return Listing(items=_rows(found or CorporateActions.none()))


@router.put(
    "/actions/{symbol}",
    summary="Replace splits and dividends",
    responses=declared(400, 401, 403, 404, 409, 422, 500),
)
async def replace_actions(
    symbol: SymbolPath, body: ActionsBody, context: Parts, _: Administrator
) -> Listing[ActionView]:
    """Put these in the place of all that is stored of them. Makes a new snapshot; stored prices stay as printed."""
    await asyncio.to_thread(_view, context, symbol)
    given = {each.ex_date: each for each in body.items}
    if len(given) != len(body.items):
        raise Refused.of(Problem("items", None, "two rows have the same ex_date", allowed="one row a day"))
    actions = CorporateActions.of(
        {day: each.split for day, each in given.items()}, {day: each.dividend for day, each in given.items()}
    )
    await asyncio.to_thread(context.lake.replace_actions, symbol, actions)
    return Listing(items=_rows(actions))


@router.get(
    "/quotes/{symbol}",
    summary="The newest prices of an instrument",
    responses=declared(401, 403, 404, 422, 500, 502),
)
async def show_quote(
    symbol: SymbolPath,
    context: Parts,
    _: Reader,
    source_name: Annotated[
        str | None, Query(alias="source", max_length=80, description="Ask this source instead.")
    ] = None,
) -> QuoteView:
    """Ask the source of the newest bars; where it gives no quotes, the newest stored close is told, and that it is."""
    return await asyncio.to_thread(_quote, context, symbol, source_name)


def _view(context: Context, symbol: str, as_of: str | None = None) -> InstrumentView:
    manifest = context.lake.manifest(as_of)
    try:
        instrument = context.lake.instrument(symbol, as_of)
    except UnknownName as unknown:
        raise missing(unknown) from None
    series = [
        SeriesView(
            timeframe=entry.timeframe,
            source=entry.source,
            start=entry.first,
            end=entry.last,
            bars=entry.rows,
            bytes=entry.bytes,
            origins=[dict(vars(origin)) for origin in entry.origins],
        )
        for timeframe in TIMEFRAMES
        if (entry := manifest.entries.get((symbol, timeframe))) is not None
    ]
    return InstrumentView(instrument=instrument, series=series)


def _rows(actions: CorporateActions) -> list[ActionView]:
    return [
        ActionView(ex_date=day.item(), split=float(split), dividend=float(dividend))
        for day, split, dividend in zip(actions.ex_date, actions.split, actions.dividend, strict=True)
    ]


def _quote(context: Context, symbol: str, chosen: str | None) -> QuoteView:
    stored = context.lake.manifest().entries
    newest = max((e for e in stored.values() if e.symbol == symbol), key=lambda e: e.last, default=None)
    name = chosen or (newest.source if newest else context.settings.default_source)
    refusal = Refused.of(Problem("source", name, f"gives no quotes, so none of {symbol}"))
    if name not in ("csv", RESAMPLE):
        access = Access.of(context.settings, context.home)
        asked = source(name, access=access)  # an unknown one is a wrong query, no missing resource
        try:
            return QuoteView(kind="quote", **vars(asked.quote(symbol)))
        except Refused as refused:
            refusal = refused
    if newest is not None and not chosen:
        return QuoteView(kind="bar", **vars(_of_bar(context, newest)))
    if isinstance(refusal, UnknownName):
        raise missing(refusal)
    if chosen:
        raise refusal
    message = f"{symbol} has no bars in the lake, and source {name} gives no quotes"
    raise missing(UnknownName.among("symbol", symbol, sorted({s for s, _ in stored}), message=message))


def _of_bar(context: Context, entry: Entry) -> Quote:
    """Return the newest stored close as a quote; its time is the bar's."""
    raw = context.lake.raw_bars(entry.symbol, entry.timeframe)
    return Quote(entry.symbol, datetime.fromisoformat(entry.last), entry.source, last=float(raw.close[-1]))
