"""Is the engine well, and what is it made of."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from api import health
from api.dependencies import Parts, Reader
from api.errors import declared
from api.metrics import MEDIA_TYPE

router = APIRouter(prefix="/api/v1/system", tags=["system"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether the API can do its work, and each part's state; only the worker may be missing for that."""

    status: Literal["ready", "not_ready"]
    parts: dict[str, health.PartState]


class Info(BaseModel):
    """What runs here."""

    version: str
    api_version: Literal["v1"] = "v1"
    libraries: dict[str, str]
    home: str
    prefect_ui: str
    uptime_seconds: float
    owner: str


@router.get("/health/live", summary="Whether the process answers", responses=declared(500))
async def live() -> Alive:
    """Open to everyone."""
    return Alive()


@router.get(
    "/health/ready",
    summary="Whether every part that the API needs is up",
    responses={503: {"model": Readiness, "description": "A part is not ready"}, **declared(500)},
)
async def ready(context: Parts, response: Response) -> Readiness:
    """Open to everyone. 200 when database, Prefect and lake answer; the worker's state is told beside."""
    parts = await health.check(context)
    well = all(part.state == "ready" for name, part in parts.items() if name != "worker")
    response.status_code = 200 if well else 503
    return Readiness(status="ready" if well else "not_ready", parts=parts)


@router.get("/info", summary="Versions, home and addresses", responses=declared(401, 403, 500))
async def info(context: Parts, caller: Reader) -> Info:
    """Return what this engine is made of."""
    return Info(
        version=context.version,
        libraries=context.libraries,
        home=str(context.home.root),
        prefect_ui=context.prefect.url.removesuffix("/api"),
        uptime_seconds=round(context.uptime(), 3),
        owner=caller.id,
    )


@router.get(
    "/metrics",
    summary="Counters for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **declared(401, 403, 500)},
)
async def metrics(context: Parts, _: Reader) -> Response:
    """Return requests by route, and the parts and runs as they are now, in Prometheus's text format."""
    parts, runs, sessions = await asyncio.gather(
        health.check(context),
        asyncio.to_thread(context.runs.counts),
        asyncio.to_thread(context.sessions.care.figures),
    )
    engine = {name: part.state == "ready" for name, part in parts.items()}
    return Response(context.metrics.exposed(engine, runs, sessions), media_type=MEDIA_TYPE)
