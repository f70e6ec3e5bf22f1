"""Tasks of the ingest: bring bars into the lake, keep what was done, show it in the Prefect UI."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from gpt_trader.adapters.base import Source
from gpt_trader.adapters.sources import Access
from gpt_trader.adapters.sources import source as source_named
from gpt_trader.errors import GptTraderError
from gpt_trader.quality import Verdict
from gpt_trader.requests import DataRequest
from storage.market_stream import publishing
from storage.runs import RunOutput
from tasks.artifacts import run_artifact
from tasks.fetching import Fetching, Outcome
from tasks.ingest_plan import Plan, planned
from tasks.provenance import code_version, library_versions
from tasks.quality import admission, verdicts_of
from tasks.resampled import make_of_finer
from tasks.run import CurrentRun
from tasks.stores import stores

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

#: Called with how many of how many series have ended, and which one just did.
Tell = Callable[[int, int, str], None]


def _is_io_error(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry what may pass by itself (a disk, a network); a refusal would only be refused again."""
    return isinstance(state.result(raise_on_failure=False), OSError)


@task(
    name="ingest",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 5],
    retry_condition_fn=_is_io_error,
)
def ingest(request: DataRequest, tell: Tell) -> tuple[list[Outcome], Plan]:
    """Fetch and commit what the request asks for, then make what its source lacks of finer bars.

    A series that fails keeps no other back. Raises the error if nothing at all came in.
    """
    home = stores()
    source_of = sources(request)
    plan = planned(request, home.lake.manifest(), home.settings.default_source, source_of)
    total = len(plan.fetch) + len(plan.resample)
    logger = get_run_logger()

    def ended(done: int, outcome: Outcome) -> None:
        name = f"{outcome.series.symbol} {outcome.series.timeframe}"
        if outcome.error is not None:
            logger.warning("%s: %s", name, outcome.error.detail)
        tell(done, total, name)

    commit = publishing(home.lake, home.events, _untold)
    fetching = Fetching(request, home.lake, source_of, commit=commit)
    outcomes = fetching.run(plan.fetch, ended, admission(home.settings, home.lake))
    for series in plan.resample:
        outcomes.append(make_of_finer(home.lake, series, commit))
        ended(len(outcomes), outcomes[-1])
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if failed and len(failed) == len(outcomes):
        raise failed[0] if len(failed) == 1 else _all_failed(outcomes)
    return outcomes, plan


def _untold(symbol: str, error: Exception) -> None:
    """Say that bars are stored which the market stream does not tell."""
    get_run_logger().warning(
        "bars from %s on are stored, but the stream could not tell: %s", symbol, type(error).__name__
    )


def sources(request: DataRequest) -> Callable[[str], Source]:
    """Return what gives each source by its name: one object a name, as its limit of rate is shared."""
    home = stores()
    access = Access.of(home.settings, home.home)
    made: dict[str, Source] = {}
    lock = threading.Lock()

    def of(name: str) -> Source:
        with lock:
            if name not in made:
                made[name] = source_named(name, request, access)
            return made[name]

    return of


@task(name="save run", cache_policy=NO_CACHE)
def save_ingest(run: CurrentRun, outcomes: list[Outcome], plan: Plan, before: str | None) -> dict[str, Any]:
    """Keep what the ingest did; return its summary: the snapshot, a row a series, and what was found wrong."""
    home = stores()
    snapshot = home.lake.current()
    snapshot_id = snapshot.id if snapshot else None
    verdicts = verdicts_of(home.settings, home.lake, outcomes, before)
    content = {
        "snapshot_id": snapshot_id,
        "series": [_row(outcome, verdicts.get(_key(outcome))) for outcome in outcomes],
        "failed": sum(outcome.error is not None for outcome in outcomes),
        "skipped": list(plan.skipped),
        "findings": [_finding(verdict, each) for verdict in verdicts.values() for each in verdict.findings],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    shown = {"run_id": str(run.id), "schema_version": 1, "flow": "data", **content, "result_hash": digest}
    home.runs.save_result(
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


def _key(outcome: Outcome) -> tuple[str, str]:
    return outcome.series.symbol, outcome.series.timeframe


def _row(outcome: Outcome, verdict: Verdict | None) -> dict[str, Any]:
    return {
        "symbol": outcome.series.symbol,
        "timeframe": outcome.series.timeframe,
        "source": outcome.series.source,
        "added": outcome.added,
        "restated": outcome.restated,
        "unchanged": outcome.unchanged,
        "quarantined": outcome.quarantined,
        "quality": verdict.status if verdict else None,
        "reasons": dict(outcome.reasons),
        "remarks": list(outcome.remarks),
        "error": outcome.error.detail if outcome.error else None,
    }


def _finding(verdict: Verdict, finding: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"symbol": verdict.symbol, "timeframe": verdict.timeframe, **finding.document()}


def _all_failed(outcomes: list[Outcome]) -> GptTraderError:
    said = "; ".join(
        f"{o.series.symbol} {o.series.timeframe}: {o.error.detail}" for o in outcomes[:5] if o.error
    )
    more = f"; and {len(outcomes) - 5} more" if len(outcomes) > 5 else ""
    return GptTraderError(f"none of the {len(outcomes)} series came in: {said}{more}")


def publish_ingest(run: CurrentRun, shown: dict[str, Any]) -> None:
    """Show what was ingested as an artifact of the flow run in the Prefect UI."""
    columns = (
        "symbol",
        "timeframe",
        "source",
        "added",
        "restated",
        "unchanged",
        "quarantined",
        "quality",
        "error",
    )
    rows = ["| " + " | ".join(_cell(row[name]) for name in columns) + " |" for row in shown["series"]]
    run_artifact(
        run,
        [
            "## Ingested bars",
            "| " + " | ".join(columns) + " |",
            "|" + "---|" * len(columns),
            *rows,
            "",
            *(f"- {f['symbol']} {f['timeframe']}: {f['rule']}, {f['detail']}" for f in shown["findings"]),
            "",
            f"Snapshot `{shown['snapshot_id']}`",
        ],
    )


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
