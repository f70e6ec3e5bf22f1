"""Finished runs side by side, as JSON or as a page to read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, Field

from api import runs
from api.context import Context
from api.dependencies import Parts, Reader
from api.errors import declared
from api.negotiation import chosen_media_type
from gpt_trader.comparison.comparing import Comparison, compare
from gpt_trader.comparison.contenders import Contender, contender
from gpt_trader.errors import Problem, Refused
from storage.runs import Run
from storage.series import read_equity

router = APIRouter(prefix="/api/v1/strategies", tags=["strategies"])

HTML: Final = "text/html"
_MEDIA_TYPES: Final = ("application/json", HTML)
#: The page has no script, and its style is within it.
_PAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"

FEWEST: Final = 2
MOST: Final = 20


class ComparedRun(BaseModel):
    """One run. Metrics are fractions, not percent; an undefined one is null."""

    run_id: UUID
    flow: str
    symbol: str | None
    timeframe: str | None
    strategy: str
    params: dict[str, Any] = Field(description="Of an optimization those of its best.")
    direction: str | None
    start: str | None
    end: str | None
    bars: int | None
    snapshot_id: str | None
    bars_hash: str | None
    result_hash: str | None
    metrics: dict[str, float | int | None]
    terms: dict[str, Any] = Field(
        description="Capital, costs, sizing and stops, as the run's request has them."
    )
    warnings: list[str]
    chosen_of: int | None = Field(
        description="Trials that the parameters are the best of; null: given, not chosen."
    )
    verdict: str | None = Field(description="What the optimization says of that choice.")


class ComparabilityWarning(BaseModel):
    """Something that differs between the runs and keeps their metrics from being compared."""

    field: str = Field(examples=["symbol", "range", "commission", "snapshot", "trials", "curves"])
    message: str
    values: dict[UUID, Any] = Field(description="What each run has.")


class CommonCurves(BaseModel):
    """Equity on the dates that all runs share, 1 on the first; a list a run."""

    bars: int = Field(description="Common dates there are; `time` may have fewer.")
    time: list[datetime]
    growth: dict[UUID, list[float]]


class Correlation(BaseModel):
    """Pearson's correlation of the returns between common dates; null where a run's never differ."""

    returns: int
    run_ids: list[UUID]
    values: list[list[float | None]]


class ComparisonView(BaseModel):
    """Runs side by side, in the order asked for."""

    schema_version: int
    sort: str | None
    runs: list[ComparedRun]
    best: dict[str, list[UUID]] = Field(
        description="Which run is best by each metric of which more, or less, is better; several where they tie."
    )
    warnings: list[ComparabilityWarning]
    curves: CommonCurves | None
    correlation: Correlation | None


@router.get(
    "/compare",
    summary="Compare finished runs",
    response_model=ComparisonView,
    responses={200: {"content": {HTML: {}}}, **declared(401, 403, 404, 406, 409, 422, 500, 503)},
)
async def compare_runs(
    context: Parts,
    caller: Reader,
    *,
    run: Annotated[
        list[str],
        Query(
            alias="runs",
            description=f"{FEWEST} to {MOST} ids of finished runs with metrics, repeated or separated by commas.",
        ),
    ],
    sort: Annotated[
        str | None,
        Query(max_length=64, description="Metric by which the best comes first.", examples=["sharpe"]),
    ] = None,
    points: Annotated[int, Query(ge=50, le=20_000, description="Dates of the curves, at most.")] = 2000,
    accept: Annotated[str | None, Header()] = None,
) -> Response:
    """Return metrics, equity on common dates and correlation of runs; what differs between them is said.

    Of an optimization its best is compared. 404 for a run that is not there or another owner's, 409 for an unfinished.
    """
    media_type = chosen_media_type(accept, _MEDIA_TYPES)
    finished = [await runs.finished_run(context, run_id, caller) for run_id in _ids(run)]
    found = await asyncio.to_thread(_compared, context, finished, sort)
    if media_type == HTML:
        from gpt_trader.comparison.page import render_html  # brings Jinja along

        created_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        page = await asyncio.to_thread(render_html, found, created_at=created_at)
        headers = {"Content-Security-Policy": _PAGE_POLICY, "Vary": "Accept"}
        return Response(page, media_type=HTML, headers=headers)
    content = await asyncio.to_thread(_json, found, points)
    return Response(content, media_type=media_type, headers={"Vary": "Accept"})


def _ids(given: Sequence[str]) -> list[UUID]:
    """Return the ids; raise Refused for what is none, for one that comes twice, and for too few or too many."""
    words = [word.strip() for each in given for word in each.split(",") if word.strip()]
    if not FEWEST <= len(words) <= MOST:
        allowed = f"{FEWEST} to {MOST} runs"
        message = "is one run" if len(words) == 1 else f"are {len(words)} runs"
        raise Refused.of(Problem("runs", ",".join(words), message, allowed=allowed))
    found: list[UUID] = []
    problems = []
    for word in words:
        try:
            run_id = UUID(word)
        except ValueError:
            problems.append(
                Problem(
                    "runs", word, f"{word[:40]!r} is not a run's id", allowed="ids of GET /workflows/runs"
                )
            )
            continue
        if run_id in found:
            problems.append(Problem("runs", word, f"{word} is given twice"))
        found.append(run_id)
    if problems:
        raise Refused.of(*problems)
    return found


def _compared(context: Context, finished: Sequence[Run], sort: str | None) -> Comparison:
    return compare([_contender(context, each) for each in finished], sort)


def _contender(context: Context, run: Run) -> Contender:
    equity = None
    if "equity" in run.artifacts:
        equity = read_equity(context.runs.artifact(run.run_id, "equity"))
    return contender(str(run.run_id), run.slice, run.request, run.summary or {}, equity)


def _json(found: Comparison, points: int) -> str:
    return ComparisonView.model_validate(found.document(points)).model_dump_json()
