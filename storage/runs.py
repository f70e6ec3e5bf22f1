"""Runs as they are kept: what was asked and what came out in SQL, the series in an immutable folder of Parquet.

A result appears in one step: its files are written to a folder aside, forced to disk and renamed into place, and
then its row is updated in the same transaction that holds the row's lock. What the row does not know does not exist:
a folder that a crash left between the two is replaced by the next writer.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pyarrow as pa
from sqlalchemy import Connection, Engine, Row, func, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from gpt_trader.crash_points import crash_point
from gpt_trader.errors import Conflict, GptTraderError, NotFound, Problem, Refused, UnknownName
from gpt_trader.reproduction import reads_snapshot
from gpt_trader.runs import SYSTEM, channel_of
from gpt_trader.settings import Home
from gpt_trader.slices import SLICES
from storage.durable import explained, sync_folder, write_file
from storage.events import NewEvent, append_within
from storage.outages import outlasting
from storage.run_folders import move_into_place, staged_folder, sweep, write_parquet
from storage.tables import IDEMPOTENCY_KEYS, RUNS

#: What a run may leave behind, and its file in the run's folder.
ARTIFACTS: Final = {
    "equity": "equity.parquet",
    "trades": "trades.parquet",
    "fills": "fills.parquet",
    "weights": "weights.parquet",
    "trials": "trials.parquet",
    "report": "report.html",
    "picture": "report.png",
}


@dataclass(frozen=True)
class RunOutput:
    """What a finished run hands in.

    `summary` is JSON-ready and comes back as it is given; `series` maps names of `ARTIFACTS` to tables; `code_version`
    and `libraries` (name → version) are provenance, no part of the result's hash.
    """

    result_hash: str
    summary: Mapping[str, Any]
    series: Mapping[str, pa.Table] = field(default_factory=dict)
    snapshot_id: str | None = None
    code_version: str | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run's row. Until it has a result, `result_hash`, `summary` and `finished_at` are None."""

    run_id: UUID
    slice: str
    owner: str
    request: dict[str, Any]
    request_hash: str
    schema_version: int
    seed: int | None
    snapshot_id: str | None
    result_hash: str | None
    summary: dict[str, Any] | None
    artifacts: dict[str, str]
    code_version: str | None
    libraries: dict[str, str] | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class RunPage:
    """Runs, newest first, and where the next page begins (None: there is none)."""

    items: tuple[Run, ...]
    next_cursor: str | None


class RunStore:
    """Registers runs, keeps their results, and gives each idempotency key to one run. Safe among threads.

    Args:
        engine: Connections to our database.
        home: Where the runs' folders are.
        patience: Seconds for which what a run needs of its own record waits for a database that is away: a run that
            took an hour does not fail because the server was restarted as it came to its end.
    """

    def __init__(self, engine: Engine, home: Home, *, patience: float = 0.0) -> None:
        self.patience = patience
        self._engine = engine
        self._folder = home.runs

    @outlasting
    def register(self, run_id: UUID, slice: str, owner: str, request: Mapping[str, Any]) -> None:  # noqa: A002 -- the field's name
        """Write down who asked for what; once registered a run keeps its first request.

        A run may register itself as `system` before the API has said whose it is: a named owner then takes over.
        """
        row = insert(RUNS).values(
            run_id=run_id,
            slice=slice,
            owner=owner,
            request=dict(request),
            request_hash=_hash(request),
            schema_version=request.get("schema_version", 1),
            seed=request.get("seed"),
        )
        takes_over = (RUNS.c.owner == SYSTEM) & (row.excluded.owner != SYSTEM)
        with self._engine.begin() as connection:
            connection.execute(
                row.on_conflict_do_update(
                    index_elements=[RUNS.c.run_id], set_={"owner": row.excluded.owner}, where=takes_over
                )
            )

    def claim_key(self, owner: str, key: str, body_hash: str, run_id: UUID | None = None) -> UUID | None:
        """Claim an idempotency key of the owner for a body, and for a run once that is known; first come, first served.

        Call it without `run_id` before submitting (another body is refused before anything is started), and
        again with it afterwards. Between the two a crash loses nothing: the next claim submits again, and Prefect's
        own idempotency key makes it the same run.

        Returns:
            The run that has the key: the earlier one, or `run_id`; None while there is none.

        Raises:
            Conflict: The key was used with another body.
        """
        keys = IDEMPOTENCY_KEYS.c
        row = insert(IDEMPOTENCY_KEYS).values(owner=owner, key=key, body_hash=body_hash, run_id=run_id)
        claim = row.on_conflict_do_update(
            index_elements=[keys.owner, keys.key],
            set_={"run_id": func.coalesce(keys.run_id, row.excluded.run_id)},
            where=keys.body_hash == row.excluded.body_hash,
        ).returning(keys.run_id)
        with self._engine.begin() as connection:
            claimed = connection.execute(claim).one_or_none()
        if claimed is None:
            raise Conflict(
                f"the Idempotency-Key {key[:80]!r} was used with another request: "
                "send the same request again, or a new key"
            )
        holder: UUID | None = claimed.run_id
        return holder

    @outlasting
    def save_result(self, run_id: UUID, output: RunOutput) -> None:
        """Keep a run's result: all of it or nothing. The same result again changes nothing.

        The run's channel tells it as an event `result`, in the same transaction. Nothing is announced: the progress
        and the final state that follow within milliseconds are.

        Raises:
            NotFound: The run is not registered.
            Conflict: It has another result already.
            GptTraderError: The files cannot be written (disk full, no permission).
        """
        with explained("the run's series", self._folder), staged_folder(self._folder, run_id) as staged:
            for name, table in output.series.items():
                write_parquet(table, staged / ARTIFACTS[name])
            sync_folder(staged)
            crash_point("runs.before_rename")
            with self._engine.begin() as connection:
                row = self._locked_row(connection, run_id)
                if row.result_hash is not None:
                    _same_or_conflict(run_id, row.result_hash, output.result_hash)
                    return
                move_into_place(staged, self._folder / str(run_id))
                crash_point("runs.before_commit")
                values = {
                    "result_hash": output.result_hash,
                    "summary": dict(output.summary),
                    "artifacts": {name: ARTIFACTS[name] for name in output.series},
                    "snapshot_id": output.snapshot_id,
                    "code_version": output.code_version,
                    "libraries": dict(output.libraries),
                    "finished_at": func.clock_timestamp(),
                }
                connection.execute(update(RUNS).where(RUNS.c.run_id == run_id).values(values))
                told = {
                    "result_hash": output.result_hash,
                    "metrics": dict(output.summary.get("metrics") or {}),
                }
                append_within(connection, channel_of(run_id), [NewEvent("result", told, key="result")])

    @outlasting
    def save_artifact(self, run_id: UUID, name: str, content: bytes) -> Path:
        """Put a file that shows the result (`report`, `picture`) beside its series; return its path.

        Raises:
            NotFound: The run is not registered or has no result yet.
            UnknownName: There is no artifact of that name.
            GptTraderError: The file cannot be written.
        """
        path = self.artifact_path(run_id, name)
        with self._engine.begin() as connection:
            row = self._locked_row(connection, run_id)
            if row.result_hash is None:
                raise NotFound(f"run {run_id} has no result yet: nothing can be put beside it")
            with explained(f"the run's {name}", self._folder):
                write_file(
                    path,
                    content,
                    temporary=path.parent,
                    crash_point=lambda: crash_point("runs.before_artifact"),
                )
            artifacts = {**row.artifacts, name: ARTIFACTS[name]}
            connection.execute(update(RUNS).where(RUNS.c.run_id == run_id).values(artifacts=artifacts))
        return path

    @outlasting
    def get(self, run_id: UUID) -> Run:
        """Return the run; raise NotFound if it is not registered."""
        with self._engine.connect() as connection:
            row = connection.execute(select(RUNS).where(RUNS.c.run_id == run_id)).one_or_none()
        if row is None:
            raise _no_run(run_id)
        return _run(row)

    def summary(self, run_id: UUID) -> dict[str, Any]:
        """Return the result's summary as it was saved; raise NotFound while there is none."""
        summary = self.get(run_id).summary
        if summary is None:
            raise NotFound(
                f"run {run_id} has no result: it has not finished, or failed (`gpt-trader workflow logs {run_id}`)"
            )
        return summary

    def list(
        self,
        owner: str | None = None,
        slice: str | None = None,  # noqa: A002 -- the field's name
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """Return up to `limit` runs, newest first, of one owner and slice or of all.

        `cursor` is a page's `next_cursor`; runs that are registered meanwhile do not shift the pages.
        """
        place = tuple_(RUNS.c.created_at, RUNS.c.run_id)
        wanted = select(RUNS).order_by(RUNS.c.created_at.desc(), RUNS.c.run_id.desc()).limit(limit + 1)
        if owner is not None:
            wanted = wanted.where(RUNS.c.owner == owner)
        if slice is not None:
            wanted = wanted.where(RUNS.c.slice == slice)
        if cursor is not None:
            wanted = wanted.where(place < tuple_(*map(literal, _place_of(cursor))))
        with self._engine.connect() as connection:
            rows = connection.execute(wanted).all()
        items = tuple(_run(row) for row in rows[:limit])
        return RunPage(items, _cursor_of(items[-1]) if len(rows) > limit and items else None)

    def counts(self) -> dict[tuple[str, bool], int]:
        """Return how many runs there are by slice and whether they are finished."""
        finished = RUNS.c.finished_at.is_not(None)
        query = select(RUNS.c.slice, finished, func.count()).group_by(RUNS.c.slice, finished)
        with self._engine.connect() as connection:
            return {(of_slice, ended): count for of_slice, ended, count in connection.execute(query)}

    @outlasting
    def note_snapshot(self, run_id: UUID, snapshot_id: str) -> None:
        """Write down what a run reads, before it has a result: whoever resumes it is to read the same.

        The first one stays. Raises NotFound if the run is not registered.
        """
        with self._engine.begin() as connection:
            if self._locked_row(connection, run_id).snapshot_id is None:
                connection.execute(
                    update(RUNS).where(RUNS.c.run_id == run_id).values(snapshot_id=snapshot_id)
                )

    def pinned_snapshots(self) -> set[str]:
        """Return every snapshot that a kept run's result was made from, or that a run to be resumed reads.

        Not those of runs that change the lake: each of them makes a snapshot, and none can be reproduced.
        """
        writers = [row.name for row in SLICES.values() if not reads_snapshot(row)]
        named = RUNS.c.snapshot_id
        wanted = select(named).distinct().where(named.is_not(None), RUNS.c.slice.not_in(writers))
        with self._engine.connect() as connection:
            return set(connection.execute(wanted).scalars())

    def artifact_path(self, run_id: UUID, name: str) -> Path:
        """Return where a run's artifact is or will be; raise UnknownName for a name that is none."""
        if name not in ARTIFACTS:
            raise UnknownName.among("artifact", name, list(ARTIFACTS))
        return self._folder / str(run_id) / ARTIFACTS[name]

    def artifact(self, run_id: UUID, name: str) -> Path:
        """Return the file of a run's artifact; raise NotFound if the run has none of that name."""
        path = self.artifact_path(run_id, name)
        run = self.get(run_id)
        if name not in run.artifacts:
            raise NotFound(
                f"run {run_id} has no {name}; it has: {', '.join(sorted(run.artifacts)) or 'no artifacts'}"
            )
        if not path.is_file():
            raise GptTraderError(
                f"{path} of run {run_id} is gone: restore it from a backup, or run the same backtest again"
            )
        return path

    def sweep_leftovers(self) -> int:
        """Remove the unfinished folders of writers that were killed; return how many. Living writers are left alone."""
        return sweep(self._folder)

    def _locked_row(self, connection: Connection, run_id: UUID) -> Row[Any]:
        row = connection.execute(select(RUNS).where(RUNS.c.run_id == run_id).with_for_update()).one_or_none()
        if row is None:
            raise _no_run(run_id)
        return row


def _same_or_conflict(run_id: UUID, kept: str, given: str) -> None:
    if kept != given:
        raise Conflict(
            f"run {run_id} has the result {kept[:12]}… already, and results never change: "
            f"start a new run to keep {given[:12]}…"
        )


def _no_run(run_id: UUID) -> NotFound:
    return NotFound(f"there is no run {run_id}: `gpt-trader workflow runs` lists them")


def _run(row: Row[Any]) -> Run:
    return Run(**{each.name: getattr(row, each.name) for each in fields(Run)})


def _hash(request: Mapping[str, Any]) -> str:
    canonical = json.dumps(request, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _cursor_of(run: Run) -> str:
    place = f"{run.created_at.isoformat()} {run.run_id}"
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _place_of(cursor: str) -> tuple[datetime, UUID]:
    try:
        created_at, _, run_id = (
            base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(" ")
        )
        place = datetime.fromisoformat(created_at), UUID(run_id)
    except (binascii.Error, UnicodeError, ValueError):
        place = None
    if place is None or place[0].tzinfo is None:
        raise Refused.of(
            Problem("cursor", cursor, "is not a cursor", allowed="a page's next_cursor, unchanged")
        )
    return place
