"""Which strategies there are, with their parameters; a user's own file comes in here."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from pathlib import Path
from typing import Any

import structlog
from fastapi import APIRouter
from pydantic import BaseModel, Field

from api import strategy_files
from api.dependencies import Administrator, Parts, Reader
from api.errors import declared, missing
from api.models import Listing
from gpt_trader.errors import UnknownName
from gpt_trader.strategies.base import Strategy
from gpt_trader.strategies.description import Origin, describe, summarize
from gpt_trader.strategies.registry import strategy_names, strategy_type

router = APIRouter(prefix="/api/v1/strategies", tags=["strategies"])
_log = structlog.get_logger("api")


class StrategySummary(BaseModel):
    """A strategy in a list. `user`: a stored file, whose parameters only a run gets to know."""

    name: str
    summary: str
    origin: Origin


class StrategyView(StrategySummary):
    """A strategy with everything needed to ask for a run of it."""

    description: str = Field(description="What it does, at length.")
    parameters: dict[str, Any] = Field(description="JSON schema of `params`.")
    defaults: dict[str, Any] = Field(description="Of the parameters that have one.")
    search_space: dict[str, list[float | int]]
    warmup: int | None = Field(
        description="Bars before a first decision, with the default parameters; null where one has no default."
    )


class StrategyFile(BaseModel):
    """A strategy file of one's own."""

    filename: str = Field(min_length=1, max_length=255, examples=["mine.py"])
    source: str = Field(min_length=1, description="The file's content, at most 256 KiB of UTF-8.")


class StoredStrategy(BaseModel):
    """Where the file is kept, and the names under which its classes can be run."""

    sha256: str
    strategies: list[str] = Field(examples=[["user:9f86d0…:MyStrategy"]])


@router.get("", summary="List the strategies", responses=declared(401, 403, 500))
async def list_strategies(context: Parts, _: Reader) -> Listing[StrategySummary]:
    """Built-in ones first, then plugins, then stored files."""
    return Listing(items=await asyncio.to_thread(_summaries, context.home.strategies))


@router.get("/{name}", summary="Show a strategy's parameters", responses=declared(401, 403, 404, 422, 500))
async def show_strategy(name: str, _: Reader) -> StrategyView:
    """Return the schema, the defaults and the search space of its parameters."""
    try:
        return _view(name, strategy_type(name))
    except UnknownName as unknown:
        raise missing(unknown) from None


@router.post(
    "",
    status_code=201,
    summary="Store a strategy file of your own",
    responses=declared(400, 401, 403, 413, 422, 500),
)
async def store_strategy(file: StrategyFile, context: Parts, caller: Administrator) -> StoredStrategy:
    """Keep it by content hash; it is code, so it needs the scope `admin`. It is not executed by the API."""
    sha256, names = await asyncio.to_thread(
        strategy_files.store, context.home.strategies, file.filename, file.source
    )
    _log.info("strategy file stored", sha256=sha256, owner=caller.id)
    return StoredStrategy(sha256=sha256, strategies=names)


def _summaries(folder: Path) -> list[StrategySummary]:
    known = [StrategySummary(**summarize(name, strategy_type(name))) for name in strategy_names()]
    own = [
        StrategySummary(name=name, summary="A stored file", origin="user")
        for names in strategy_files.stored(folder).values()
        for name in names
    ]
    return known + own


@lru_cache(maxsize=256)
def _view(name: str, strategy: type[Strategy]) -> StrategyView:
    return StrategyView(**describe(name, strategy))
