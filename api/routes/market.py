"""The lake's bars: which symbols, which snapshots, and the bars themselves."""

from __future__ import annotations

import asyncio
from datetime import date, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import AwareDatetime, BaseModel

from api.admission import listed_instruments
from api.bars_document import MEDIA_TYPES, BarsQuery, encode, find
from api.context import Context
from api.dependencies import Parts, Reader, SymbolPath
from api.errors import declared
from api.kept_answers import KeptRoute
from api.models import Listing
from api.negotiation import chosen_media_type, has_current
from gpt_trader.corporate_actions import Adjustment
from gpt_trader.errors import Problem, Refused, UnknownName
from gpt_trader.instruments import TIMEFRAMES

router = APIRouter(prefix="/api/v1/market", tags=["market"])
kept = APIRouter(prefix="/api/v1/market", tags=["market"], route_class=KeptRoute)


class SymbolView(BaseModel):
    """A symbol in one timeframe; `stored` is false for what the default source lists and the lake lacks."""

    symbol: str
    name: str
    timeframe: str
    stored: bool
    source: str
    start: str | None = None
    end: str | None = None
    bars: int = 0


class SnapshotView(BaseModel):
    """One version of the lake."""

    id: str
    created_at: datetime
    parent: str | None = None


class BarColumns(BaseModel):
    """A list a column, all of one length, oldest bar first; `time` is the bar's open time, UTC."""

    time: list[datetime]
    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[float]


class BarsDocument(BaseModel):
    """Bars of one symbol; `truncated` says that `limit` left older ones out."""

    symbol: str
    timeframe: str
    snapshot_id: str
    adjust: Adjustment
    bars: int
    truncated: bool
    columns: BarColumns


async def bars_query(
    symbol: SymbolPath,
    *,
    timeframe: Annotated[str, Query(examples=["1d"])] = "1d",
    start: Annotated[date | None, Query(description="First day, inclusive, UTC.")] = None,
    end: Annotated[date | None, Query(description="Last day, inclusive, UTC.")] = None,
    as_of: Annotated[
        str | None, Query(max_length=64, description="A snapshot's id, or a time: the newest then.")
    ] = None,
    after: Annotated[
        AwareDatetime | None,
        Query(description="Only bars that open later, and of them the oldest `limit`: to read page by page."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100_000, description="The newest so many of them.")] = 1000,
    adjust: Annotated[
        Adjustment, Query(description="For splits and dividends, for splits alone, or as printed.")
    ] = "all",
) -> BarsQuery:
    """Return the query's parameters, checked."""
    if timeframe not in TIMEFRAMES:
        raise UnknownName.among("timeframe", timeframe, list(TIMEFRAMES))
    if start is not None and end is not None and start > end:
        raise Refused.of(Problem("start", str(start), f"is after end {end}", allowed="start ≤ end"))
    return BarsQuery(symbol, timeframe, start, end, as_of, limit, adjust, after)


@router.get("/symbols", summary="List the symbols", responses=declared(401, 403, 404, 422, 500))
async def list_symbols(
    context: Parts,
    _: Reader,
    as_of: Annotated[
        str | None, Query(max_length=64, description="A snapshot's id, or a time: the newest then.")
    ] = None,
) -> Listing[SymbolView]:
    """What the lake holds, then (without `as_of`) what the default source could bring."""
    return Listing(items=await asyncio.to_thread(_symbols, context, as_of))


@kept.get(
    "/bars/{symbol:path}",  # a hostile name shall meet the symbol check, slashes and all
    summary="Bars of a symbol, as columns",
    response_model=BarsDocument,
    responses={
        200: {"content": {media_type: {} for media_type in MEDIA_TYPES[1:]}},
        304: {"description": "The client has them already"},
        **declared(401, 403, 404, 406, 422, 500),
    },
)
async def show_bars(
    query: Annotated[BarsQuery, Depends(bars_query)],
    context: Parts,
    _: Reader,
    accept: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Return JSON, CSV or an Arrow stream by `Accept`; the entity tag changes only when the bars do.

    The header `X-Snapshot-Id` names the snapshot: give it as `as_of` for further pages of the same bars.
    """
    media_type = chosen_media_type(accept, MEDIA_TYPES)
    found = await asyncio.to_thread(find, context.lake, query)
    tag = query.tag(found, media_type)
    headers = {
        "ETag": tag,
        "Vary": "Accept",
        "Cache-Control": "private, no-cache",
        "X-Snapshot-Id": found.snapshot_id,
    }
    if has_current(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    content = await asyncio.to_thread(encode, context.lake, query, found, media_type)
    return Response(content, media_type=media_type, headers=headers)


@router.get("/snapshots", summary="List the lake's snapshots", responses=declared(401, 403, 500))
async def list_snapshots(context: Parts, _: Reader) -> Listing[SnapshotView]:
    """Newest first; any of their ids, or a time, is an `as_of`."""
    found = await asyncio.to_thread(context.lake.snapshots)
    items = [SnapshotView(id=each.id, created_at=each.created_at, parent=each.parent) for each in found]
    return Listing(items=items[::-1])


def _symbols(context: Context, as_of: str | None) -> list[SymbolView]:
    stored = context.lake.entries(as_of)
    names = {instrument.symbol: instrument.name for instrument in context.lake.instruments(as_of)}
    items = [
        SymbolView(
            symbol=entry.symbol,
            name=names.get(entry.symbol, ""),
            timeframe=entry.timeframe,
            stored=True,
            source=entry.source,
            start=entry.first,
            end=entry.last,
            bars=entry.rows,
        )
        for entry in stored
    ]
    if as_of is not None:
        return items
    source = context.settings.default_source
    missing = {each.symbol: each for each in listed_instruments(source) if each.symbol not in names}
    return items + [
        SymbolView(symbol=symbol, name=missing[symbol].name, timeframe="1d", stored=False, source=source)
        for symbol in sorted(missing)
    ]
