"""Asks each part of the engine how it is, side by side and within two seconds."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from api.context import Context
from gpt_trader.errors import GptTraderError
from storage.database import told_of
from storage.lake import Lake

PATIENCE_SECONDS: Final = 2.0

#: The pool that our workers take runs from, and how they call themselves there (`flows.worker`).
WORK_POOL: Final = "gpt-trader"
_WORKER: Final = re.compile(r"gpt-trader-(?P<node>.+)-(?P<pid>[0-9]{1,9})")


class PartState(BaseModel):
    """One part: whether it works, and in words what is known."""

    state: Literal["ready", "starting", "down"]
    detail: str = ""


async def check(context: Context) -> dict[str, PartState]:
    """Return the state of database, Prefect, worker and lake."""
    database, prefect, worker, lake = await asyncio.gather(
        _within(asyncio.to_thread(_database, context.database)),
        _prefect(context),
        _within(_worker(context)),
        _within(asyncio.to_thread(_lake, context.lake)),
    )
    return {"database": database, "prefect": prefect, "worker": worker, "lake": lake}


async def _worker(context: Context) -> PartState:
    """Return the state of this home's worker, else whether one of another home or machine works for us."""
    own = await asyncio.to_thread(_own_worker, context.home.state / "worker.json")
    if own.state != "down":
        return own
    with suppress(GptTraderError):
        for name in await context.prefect.workers(WORK_POOL):
            if _still_works(name):
                return PartState(state="ready", detail=name)
    return own


def _still_works(name: str) -> bool:
    """Return whether a worker is alive as far as is known: one of this machine that is gone is heard of for a while."""
    found = _WORKER.fullmatch(name)
    return found is None or found["node"] != os.uname().nodename or _runs(int(found["pid"]))


async def _within(answer: Awaitable[PartState]) -> PartState:
    try:
        return await asyncio.wait_for(answer, PATIENCE_SECONDS)
    except TimeoutError:
        return PartState(state="down", detail=f"no answer within {PATIENCE_SECONDS:g} s")


def _database(engine: Engine) -> PartState:
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        return PartState(
            state="down", detail=f"{told_of(engine.url)} does not answer ({type(error).__name__})"
        )
    return PartState(state="ready")


async def _prefect(context: Context) -> PartState:
    if await context.prefect.healthy():
        return PartState(state="ready", detail=context.prefect.url)
    return PartState(state="down", detail=f"{context.prefect.url} (setting prefect_api_url) does not answer")


def _own_worker(mark: Path) -> PartState:
    """Read the mark that the worker of this home keeps; a mark whose process is gone counts for nothing."""
    content: object = None
    with suppress(OSError, ValueError):
        content = json.loads(mark.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("pid"), int):
        return PartState(state="down", detail="no worker is running")
    if not _runs(content["pid"]):
        return PartState(state="down", detail="its process is gone")
    if content.get("state") == "ready":
        return PartState(state="ready")
    return PartState(state="starting", detail=str(content.get("state", "")))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _lake(lake: Lake) -> PartState:
    try:
        snapshot = lake.current()
        series = len(lake.manifest().entries)
    except (GptTraderError, OSError) as error:
        return PartState(state="down", detail=str(error))
    return PartState(state="ready", detail=f"{series} series" if snapshot else "empty")
