"""Tasks that end an ingest: keep what it did, show it in the Prefect UI."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.runs import RunOutput
from tasks.artifacts import run_artifact
from tasks.provenance import code_version, library_versions
from tasks.run import CurrentRun
from tasks.stores import stores

if TYPE_CHECKING:
    from storage.lake_writing import Ingest


@task(name="save run", cache_policy=NO_CACHE)
def save_ingest(run: CurrentRun, ingested: list[Ingest]) -> dict[str, Any]:
    """Keep what the ingest did; return its summary (the snapshot, and a row a symbol)."""
    snapshot = stores().lake.current()
    series = [_row(one) for one in ingested]
    snapshot_id = snapshot.id if snapshot else None
    content = {"snapshot_id": snapshot_id, "series": series}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    shown = {"run_id": str(run.id), "schema_version": 1, "flow": "data", **content, "result_hash": digest}
    stores().runs.save_result(
        run.id,
        RunOutput(
            result_hash=digest,
            summary=shown,
            snapshot_id=snapshot_id,
            code_version=code_version(),
            libraries=library_versions(),
        ),
    )
    return shown


def _row(one: Ingest) -> dict[str, Any]:
    return {
        "symbol": one.symbol,
        "timeframe": one.timeframe,
        "source": one.source,
        "added": one.added,
        "restated": one.restated,
        "unchanged": one.unchanged,
        "quarantined": one.quarantined,
        "reasons": dict(one.reasons),
        "remarks": list(one.remarks),
    }


def publish_ingest(run: CurrentRun, shown: dict[str, Any]) -> None:
    """Show what was ingested as an artifact of the flow run in the Prefect UI."""
    columns = ("symbol", "timeframe", "source", "added", "restated", "unchanged", "quarantined")
    rows = ["| " + " | ".join(str(row[name]) for name in columns) + " |" for row in shown["series"]]
    run_artifact(
        run,
        [
            "## Ingested bars",
            "| " + " | ".join(columns) + " |",
            "|" + "---|" * len(columns),
            *rows,
            "",
            f"Snapshot `{shown['snapshot_id']}`",
        ],
    )
