"""The check of a strategy: look-ahead, warm-up, determinism, and more; done in a process of its own, not as a run."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import APIRouter

from api.check_process import CheckProcesses, Task
from api.context import Context
from api.dependencies import Parts, Researcher
from api.errors import declared, missing
from gpt_trader.backtesting.findings import StrategyCheck
from gpt_trader.errors import UnknownName
from gpt_trader.strategies.check_request import CheckRequest
from gpt_trader.strategies.registry import strategy_type
from gpt_trader.strategies.user import parse_stored_id, stored_source
from storage.bars_in_range import bars_in_range

_REFUSALS: Final = declared(400, 401, 403, 404, 413, 422, 429, 500)


def router() -> APIRouter:
    """Return the route with its own places for checks."""
    made = APIRouter(prefix="/api/v1/strategies", tags=["strategies"])
    processes = CheckProcesses()

    @made.post("/{name}/check", summary="Try a strategy for look-ahead and warm-up", responses=_REFUSALS)
    async def check_strategy(name: str, asked: CheckRequest, context: Parts, _: Researcher) -> StrategyCheck:
        """Return what was found on stored bars; `problems` is an answer like `ok`, and no error.

        `name` is a registered strategy's, or a stored id (`user:SHA256:Class`). Nothing is kept of a check.
        """
        async with processes.place():
            task = await asyncio.to_thread(_task, context, name, asked)
            return await processes.checked(task)

    return made


def _task(context: Context, name: str, asked: CheckRequest) -> Task:
    """Return the check with the file and the bars it needs; nothing of the file is run."""
    parsed = parse_stored_id(name)
    if parsed is None:
        try:
            strategy_type(name)
        except UnknownName as unknown:
            raise missing(unknown) from None
    source = None if parsed is None else stored_source(name, context.home.strategies)
    snapshot = context.lake.snapshot(asked.snapshot)
    identity = snapshot.id if snapshot else None
    bars, first = bars_in_range(
        context.lake, asked.symbol, asked.timeframe, asked.start, asked.end, snapshot=identity
    )
    class_name = parsed[1] if parsed else ""
    return Task(name, source, class_name, dict(asked.params), asked.direction, bars, first, identity)
