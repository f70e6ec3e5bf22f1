"""The cache of arrays (matrices, finished trials): how much it holds, emptying it, filling it ahead of work."""

from __future__ import annotations

import asyncio
import time
from datetime import date

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from api.context import Context
from api.dependencies import Administrator, Parts, Reader, Researcher
from api.errors import declared
from gpt_trader.corporate_actions import Adjustment
from gpt_trader.errors import Problem, Refused, UnknownName
from gpt_trader.instruments import TIMEFRAMES, Symbol
from storage.array_cache import ArrayCache
from storage.lake import Lake
from storage.matrices import Column, matrix


class CacheView(BaseModel):
    """How much the cache holds, in entries and bytes, and how much it may."""

    entries: int
    bytes: int
    limit_bytes: int


class CacheCleared(BaseModel):
    """What was removed."""

    entries: int
    bytes: int


class WarmRequest(BaseModel):
    """Which matrix to compute and keep; without `symbols`: of all that are stored in the timeframe."""

    model_config = ConfigDict(extra="forbid")

    symbols: list[Symbol] | None = Field(default=None, min_length=1, max_length=10_000)
    timeframe: str = Field(default="1d", examples=["1d"])
    column: Column = "close"
    start: date | None = Field(default=None, description="First day, inclusive, UTC.")
    end: date | None = Field(default=None, description="Last day, inclusive, UTC.")
    adjust: Adjustment = "all"
    as_of: str | None = Field(
        default=None, max_length=64, description="A snapshot's id, or a time: the newest then."
    )


class Warmed(BaseModel):
    """The matrix that is kept now: its shape, and the seconds that it took (little: it was there already)."""

    symbols: int
    times: int
    bytes: int
    seconds: float


def router() -> APIRouter:
    """Return the routes; one matrix is computed at a time."""
    made = APIRouter(prefix="/api/v1/market/cache", tags=["market"])
    working = asyncio.Lock()

    @made.get("", summary="Show the cache", responses=declared(401, 403, 500))
    async def show_cache(context: Parts, _: Reader) -> CacheView:
        """Say how much is kept, and the limit (setting `cache_limit_mb`)."""
        cache = matrix_cache(context)
        size = await asyncio.to_thread(cache.size)
        return CacheView(entries=size.entries, bytes=size.bytes, limit_bytes=cache.limit_bytes)

    @made.delete("", summary="Empty the cache", responses=declared(401, 403, 409, 500))
    async def clear_cache(context: Parts, _: Administrator) -> CacheCleared:
        """Remove everything: whoever reads a matrix keeps it; what is asked for next is computed again."""
        removed = await asyncio.to_thread(matrix_cache(context).clear)
        return CacheCleared(entries=removed.entries, bytes=removed.bytes)

    @made.post(
        "/warm",
        summary="Compute a matrix and keep it",
        responses=declared(400, 401, 403, 404, 413, 422, 500),
    )
    async def warm_cache(asked: WarmRequest, context: Parts, _: Researcher) -> Warmed:
        """Answer once it is kept: 500 symbols of 20 years of days take less than a second."""
        async with working:
            return await asyncio.to_thread(_warm, context.lake, matrix_cache(context), asked)

    return made


def matrix_cache(context: Context) -> ArrayCache:
    """Return the engine's cache of arrays."""
    return ArrayCache(context.home.cache / "arrays", int(context.settings.cache_limit_mb * 1e6))


def _warm(lake: Lake, cache: ArrayCache, asked: WarmRequest) -> Warmed:
    if asked.timeframe not in TIMEFRAMES:
        raise UnknownName.among("timeframe", asked.timeframe, list(TIMEFRAMES))
    started = time.perf_counter()
    snapshot = lake.snapshot(asked.as_of)
    version = snapshot.id if snapshot else None
    stored = [entry for entry in lake.entries(version) if entry.timeframe == asked.timeframe]
    chosen = [entry for entry in stored if asked.symbols is None or entry.symbol in asked.symbols]
    least = max((entry.rows for entry in chosen), default=0) * len(chosen) * 8
    if least > cache.limit_bytes:
        raise Refused.of(
            Problem(
                "symbols",
                len(chosen),
                f"make a matrix of at least {least:,} bytes, and the cache keeps {cache.limit_bytes:,}: "
                "ask for fewer or raise the setting cache_limit_mb",
            )
        )
    found = matrix(
        lake,
        asked.symbols if asked.symbols is not None else [entry.symbol for entry in stored],
        asked.timeframe,
        asked.column,
        start=asked.start,
        end=asked.end,
        adjust=asked.adjust,
        snapshot=version,
        cache=cache,
    )
    rows, columns = found.values.shape
    return Warmed(
        symbols=columns,
        times=rows,
        bytes=found.values.nbytes,
        seconds=round(time.perf_counter() - started, 4),
    )
