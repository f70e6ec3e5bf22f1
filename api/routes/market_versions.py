"""The lake's versions: what a snapshot holds and what it changed, and the removal of old ones."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated

import structlog
from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from api.context import Context
from api.dependencies import Administrator, Parts, Reader
from api.errors import declared
from storage.lake import Lake
from storage.manifest import Manifest
from storage.manifest_changes import changes
from storage.studies import StudyStore

router = APIRouter(prefix="/api/v1/market", tags=["market"])
_log = structlog.get_logger("api")


class SeriesChangeView(BaseModel):
    """A series that is another one than in the parent."""

    model_config = ConfigDict(from_attributes=True)

    symbol: str
    timeframe: str
    rows: int | None = Field(description="Bars now; null: the series is gone.")
    rows_before: int | None = Field(description="Bars in the parent; null: the series is new.")


class ChangesView(BaseModel):
    """What is different from the parent; in the first snapshot everything is new."""

    model_config = ConfigDict(from_attributes=True)

    added: list[SeriesChangeView]
    changed: list[SeriesChangeView]
    removed: list[SeriesChangeView]
    instruments: list[str] = Field(description="Symbols whose facts were edited.")
    actions: list[str] = Field(description="Symbols whose splits or dividends are others.")


class SnapshotDetail(BaseModel):
    """One version of the lake, and what it changed."""

    id: str
    created_at: datetime
    parent: str | None = Field(description="The snapshot before it, of those that are still there.")
    series: int
    symbols: list[str]
    bytes: int = Field(description="Of its files; other snapshots share most of them.")
    changes: ChangesView


class Collection(BaseModel):
    """Which snapshots to remove."""

    model_config = ConfigDict(extra="forbid")

    older_than_days: float | None = Field(
        default=None,
        ge=0,
        le=36_500,
        description="Those that a newer one replaced so long ago; default: the setting keep_snapshots_days.",
    )
    dry_run: bool = Field(default=False, description="Only say what would be removed.")


class CollectionView(BaseModel):
    """What was removed or, with `dry_run`, would be."""

    dry_run: bool
    older_than_days: float
    snapshots: list[str]
    files: int
    bytes: int
    kept: int = Field(description="Snapshots that stay: the newest, recent ones, and those that runs read.")
    studies: list[str] = Field(description="Optuna studies to which no search added a trial for so long.")


SnapshotPath = Annotated[
    str,
    Path(
        min_length=1,
        max_length=64,
        description="An id, the beginning of one (6 digits or more), or a time: the newest then.",
        examples=["3f9c1a", "2026-01-31T12:00Z"],
    ),
]


@router.get(
    "/snapshots/{snapshot}",
    summary="What a snapshot holds and what it changed",
    responses=declared(401, 403, 404, 422, 500),
)
async def show_snapshot(snapshot: SnapshotPath, context: Parts, _: Reader) -> SnapshotDetail:
    """Return its series and size, and the differences from the snapshot before it."""
    return await asyncio.to_thread(_detail, context.lake, snapshot)


@router.post(
    "/collect",
    summary="Remove old snapshots",
    responses=declared(400, 401, 403, 409, 413, 422, 500, 503),
)
async def collect_snapshots(wanted: Collection, context: Parts, caller: Administrator) -> CollectionView:
    """Remove what was replaced long ago, and the files that nothing else needs; answer when it is done.

    Never removed: the newest snapshot, one that a kept run read or an open session trades from, one that is
    being read, rows in quarantine.
    """
    done = await asyncio.to_thread(_collect, context, wanted)
    _log.info("snapshots collected", owner=caller.id, **done.model_dump())
    return done


def _detail(lake: Lake, wanted: str) -> SnapshotDetail:
    snapshot = lake.snapshot(wanted)
    assert snapshot is not None  # only "the newest" can be none
    manifest = lake.manifest(snapshot.id)
    parent = lake.manifest(snapshot.parent) if snapshot.parent else Manifest()
    return SnapshotDetail(
        id=snapshot.id,
        created_at=snapshot.created_at,
        parent=snapshot.parent,
        series=len(manifest.entries),
        symbols=sorted(manifest.instruments),
        bytes=sum(each.bytes for each in manifest.entries.values())
        + sum(file.bytes for file in manifest.actions.values()),
        changes=ChangesView.model_validate(changes(parent, manifest)),
    )


def _collect(context: Context, wanted: Collection) -> CollectionView:
    days = wanted.older_than_days
    if days is None:
        days = context.settings.keep_snapshots_days
    before = datetime.now(UTC) - timedelta(days=days)
    found = context.lake.collect(before, lambda: _pinned(context), trial=wanted.dry_run)
    studies = StudyStore(context.database).collect(before, trial=wanted.dry_run)
    return CollectionView(
        dry_run=wanted.dry_run,
        older_than_days=days,
        snapshots=list(found.snapshots),
        files=found.files,
        bytes=found.bytes,
        kept=found.kept,
        studies=studies,
    )


def _pinned(context: Context) -> set[str]:
    return context.runs.pinned_snapshots() | context.sessions.care.pinned_snapshots()
