"""The check of stored bars: a verdict for each series, as JSON or as a page to read."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import BaseModel

from api.context import Context
from api.dependencies import Parts, Reader, SymbolPath
from api.errors import declared, missing
from api.models import Listing
from api.negotiation import chosen_media_type
from gpt_trader.errors import Problem, Refused, UnknownName
from gpt_trader.instruments import TIMEFRAMES, Symbol
from gpt_trader.quality import Verdict
from storage.judging import verdicts

router = APIRouter(prefix="/api/v1/market", tags=["market"])

HTML: Final = "text/html"
_MEDIA_TYPES: Final = ("application/json", HTML)
#: The page has no script, and its style is within it.
_PAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"

Severity = Literal["ok", "warn", "quarantine", "block"]


class FindingView(BaseModel):
    """One stretch of a series in which a rule is broken; of gaps `first` and `last` label the missing bars."""

    rule: str
    severity: Severity
    first: datetime
    last: datetime
    count: int
    detail: str


class VerdictView(BaseModel):
    """What a check says of one series; `expected` is null without a calendar."""

    schema_version: int
    symbol: str
    timeframe: str
    status: Severity
    bars: int
    expected: int | None
    first: datetime | None
    last: datetime | None
    calendar: str | None
    findings: list[FindingView]
    notes: list[str]


@dataclass(frozen=True)
class Checked:
    """What to check, and how to answer."""

    timeframes: tuple[str, ...]
    start: date | None
    end: date | None
    as_of: str | None


async def checked(
    timeframe: Annotated[
        list[str] | None, Query(max_length=7, description="Only these; repeatable.", examples=[["1d"]])
    ] = None,
    start: Annotated[date | None, Query(description="First day, inclusive, UTC.")] = None,
    end: Annotated[date | None, Query(description="Last day, inclusive, UTC.")] = None,
    as_of: Annotated[
        str | None, Query(max_length=64, description="A snapshot's id, or a time: the newest then.")
    ] = None,
) -> Checked:
    """Return the query's parameters, checked."""
    for each in timeframe or ():
        if each not in TIMEFRAMES:
            raise UnknownName.among("timeframe", each, list(TIMEFRAMES))
    if start is not None and end is not None and start > end:
        raise Refused.of(Problem("start", str(start), f"is after end {end}", allowed="start ≤ end"))
    return Checked(tuple(timeframe or TIMEFRAMES), start, end, as_of)


_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {HTML: {}}},
    **declared(401, 403, 404, 406, 422, 500),
}


@router.get(
    "/quality",
    summary="Check stored bars",
    response_model=Listing[VerdictView],
    responses=_RESPONSES,
)
async def check_bars(
    what: Annotated[Checked, Depends(checked)],
    context: Parts,
    _: Reader,
    *,
    symbol: Annotated[
        list[Symbol] | None, Query(max_length=500, description="Only these; repeatable.")
    ] = None,
    accept: Annotated[str | None, Header()] = None,
) -> Response:
    """Judge every stored series, or those of some symbols, by the rules of the quality policy."""
    return await _answer(context, what, tuple(symbol or ()), accept)


@router.get(
    "/quality/{symbol}",
    summary="Check a symbol's stored bars",
    response_model=Listing[VerdictView],
    responses=_RESPONSES,
)
async def check_symbol(
    symbol: SymbolPath,
    what: Annotated[Checked, Depends(checked)],
    context: Parts,
    _: Reader,
    accept: Annotated[str | None, Header()] = None,
) -> Response:
    """Judge the series of one symbol by the rules of the quality policy."""
    return await _answer(context, what, (symbol,), accept)


async def _answer(context: Context, what: Checked, symbols: tuple[str, ...], accept: str | None) -> Response:
    media_type = chosen_media_type(accept, _MEDIA_TYPES)
    now = datetime.now(UTC)
    snapshot_id, found = await asyncio.to_thread(_verdicts, context, what, symbols, now)
    if media_type == HTML:
        from gpt_trader.quality_page import render_html  # brings Jinja along

        checked_at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        page = await asyncio.to_thread(render_html, found, checked_at=checked_at, snapshot_id=snapshot_id)
        headers = {"Content-Security-Policy": _PAGE_POLICY, "Vary": "Accept"}
        return Response(page, media_type=HTML, headers=headers)
    listing = Listing[VerdictView](items=[VerdictView.model_validate(each.document()) for each in found])
    return Response(listing.model_dump_json(), media_type=media_type, headers={"Vary": "Accept"})


def _verdicts(
    context: Context, what: Checked, symbols: tuple[str, ...], now: datetime
) -> tuple[str | None, list[Verdict]]:
    """Return the snapshot that was judged, and the verdicts."""
    lake = context.lake
    with lake.pinned(what.as_of) as snapshot:
        identity = snapshot.id if snapshot else None
        for symbol in symbols:
            try:
                lake.instrument(symbol, identity)
            except UnknownName as unknown:
                raise missing(unknown) from None
        keys = [
            (entry.symbol, entry.timeframe)
            for entry in lake.entries(identity)
            if entry.timeframe in what.timeframes and (not symbols or entry.symbol in symbols)
        ]
        policy = context.settings.quality
        found = verdicts(lake, keys, policy, snapshot=identity, start=what.start, end=what.end, now=now)
        return identity, list(found)
