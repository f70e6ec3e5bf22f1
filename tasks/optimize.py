"""Tasks of the optimization: screen in chunks that are kept, choose, walk forward, judge, save."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from gpt_trader.backtesting.causality import require_causal
from gpt_trader.backtesting.data_quality import data_quality, warnings
from gpt_trader.backtesting.engine import require_shortable
from gpt_trader.optimization.page import render_html
from gpt_trader.optimization.ranking import objectives
from gpt_trader.optimization.result import OptimizeResult, choose, summary
from gpt_trader.optimization.screening import COLUMNS, WIDTH
from gpt_trader.optimization.space import search_space, trial_numbers
from gpt_trader.optimization.study import Screened, Study
from gpt_trader.optimization.verdict import judged
from gpt_trader.optimization.walk_forward import document, walk
from gpt_trader.requests import OptimizeRequest
from gpt_trader.strategies import user
from storage.array_cache import ArrayCache
from storage.runs import RunOutput
from tasks.artifacts import report_lines, run_artifact
from tasks.bars import LoadedBars
from tasks.provenance import code_version, library_versions, provenance
from tasks.run import CurrentRun
from tasks.stores import stores

#: Trials that are screened, and kept, together: what a kill can lose.
CHUNK: Final = 500

_STATES: Final = ("run", "skipped", "failed")


def study_of(request: OptimizeRequest, loaded: LoadedBars) -> tuple[Study, list[int]]:
    """Return what is searched and the numbers of the combinations to try; errors as `space.search_space`."""
    strategy = user.resolve(request.strategy, stores().home.strategies)
    require_shortable(loaded.bars, request)
    space = search_space(strategy, request)
    study = Study(loaded.bars, loaded.first, strategy, space, request)
    return study, trial_numbers(space, request)


def chunks(numbers: Sequence[int]) -> list[list[int]]:
    """Return the numbers in chunks, in order."""
    return [list(numbers[first : first + CHUNK]) for first in range(0, len(numbers), CHUNK)]


@task(name="screen", task_run_name="screen-{place}", cache_policy=NO_CACHE)
def screen(study: Study, numbers: list[int], place: int) -> Screened:
    """Try a chunk of combinations, unless the same was done before (by a run that was killed, say)."""
    del place  # names the task run
    home = stores()
    cache = ArrayCache(home.home.cache / "arrays", int(home.settings.cache_limit_mb * 1e6))
    key = _key(study, numbers)
    kept = cache.get(key, ("state", "rows", "reasons"))
    if kept is not None:
        state, rows, reasons = kept
        told = {int(number): reason for number, reason in json.loads(bytes(reasons)).items()}
        return Screened(np.asarray(numbers, np.int64), np.array(state), np.array(rows), told)
    found = study.screen(numbers)
    text = np.frombuffer(json.dumps(found.reasons).encode(), np.uint8)
    cache.put(key, {"state": found.state, "rows": found.rows, "reasons": text})
    return found


def _key(study: Study, numbers: list[int]) -> str:
    """Return the hash of all that a chunk's outcome depends on: bars, code, terms, and the combinations."""
    request = study.request.model_dump(
        mode="json",
        include={
            "strategy",
            "direction",
            "capital",
            "commission",
            "slippage",
            "size",
            "stop_loss",
            "take_profit",
        },
    )
    content = {
        "width": WIDTH,
        "code": code_version(),
        "libraries": library_versions(),
        "bars": study.bars.logical_hash,
        "first": study.first,
        "request": request,
        "values": {name: list(values) for name, values in study.space.values.items()},
        "fixed": dict(study.space.fixed),
        "numbers": numbers,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@task(name="walk forward", cache_policy=NO_CACHE)
def walk_forward(study: Study, numbers: list[int]) -> dict[str, Any] | None:
    """Walk forward where the request asks for it; return the walk JSON-ready."""
    how = study.request.walk_forward
    return None if how is None else document(study, list(walk(study, numbers, how)))


@task(name="choose", cache_policy=NO_CACHE)
def conclude(
    study: Study, screened: Screened, walked: dict[str, Any] | None, loaded: LoadedBars
) -> OptimizeResult:
    """Choose the best, have them verified by the engine of record, and judge whether to believe it."""
    objective, numbers, backtests, verified = choose(study, screened, snapshot_id=loaded.snapshot_id)
    require_causal(study.candidate(numbers[0]), study.bars, study.first)
    trades = backtests[0].trades
    quality = data_quality(loaded.verdict, trades, backtests[0].time, mark=study.request.on_gaps != "warn")
    return OptimizeResult(
        study=study,
        screened=screened,
        objective=objective,
        numbers=tuple(numbers),
        top=tuple(backtests),
        verified=verified,
        snapshot_id=loaded.snapshot_id,
        overfitting=judged(study, screened, objective, numbers[0], backtests[0].equity),
        walk_forward=walked,
        provenance=provenance(study.request.seed, {}),
        data_quality=quality,
        warnings=warnings(quality, loaded.verdict, trades),
    )


@task(name="save run", cache_policy=NO_CACHE)
def save_optimization(run: CurrentRun, result: OptimizeResult) -> dict[str, Any]:
    """Keep the result, all of it or nothing; return its summary."""
    shown = {"run_id": str(run.id), **summary(result)}
    stores().runs.save_result(
        run.id,
        RunOutput(
            result_hash=result.result_hash,
            summary=shown,
            series={"trials": _trials(result)},
            snapshot_id=result.snapshot_id,
            code_version=code_version(),
            libraries=library_versions(),
        ),
    )
    return shown


@task(name="report", cache_policy=NO_CACHE)
def write_report(run: CurrentRun, result: OptimizeResult) -> None:
    """Put the HTML report beside the run's trials."""
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    page = render_html(result, run_id=str(run.id), created_at=created)
    stores().runs.save_artifact(run.id, "report", page.encode())


def _trials(result: OptimizeResult) -> pa.Table:
    """Return a row a trial: its number, parameters, state, objective, and what the sweep summed up."""
    screened, space = result.screened, result.study.space
    params = [space.at(int(number)) for number in screened.number]
    columns: dict[str, Any] = {"number": screened.number}
    for name in space.values:
        columns[f"param_{name}"] = [combination[name] for combination in params]
    columns["state"] = [_STATES[state] for state in screened.state]
    columns["objective"] = pa.array(result.objective, from_pandas=True)
    for place, name in enumerate(COLUMNS):
        columns[name] = pa.array(screened.rows[:, place], from_pandas=True)
    return pa.table(columns).replace_schema_metadata({"schema_version": "1"})


def gathered(
    study: Study, futures: Sequence[PrefectFuture[Screened]], tell: Callable[[str, int, int, str], None]
) -> Screened:
    """Wait for the chunks, in order, and return all trials; `tell` gets how far it is and the best so far."""
    parts: list[Screened] = []
    best, said = -np.inf, ""
    for future in futures:
        parts.append(future.result())
        found = objectives(parts[-1], study.bars[study.first :], study.request)
        if np.isfinite(found).any() and np.nanmax(found) > best:
            place = int(np.nanargmax(found))
            best = float(found[place])
            said = f"best {study.request.objective} {best:.4g} {study.space.at(int(parts[-1].number[place]))}"
        tell("trials", len(parts), len(futures), said)
    return Screened.of(parts)


#: What the Prefect UI shows of each of the best.
_SHOWN: Final = ("total_return", "sharpe", "max_drawdown", "trades")


def publish(run: CurrentRun, shown: dict[str, Any]) -> None:
    """Show the best combinations and the verdict as an artifact of the flow run in the Prefect UI."""
    rows = [
        f"| `{entry['params']}` | {entry['objective']:.6g} | "
        + " | ".join(
            "–" if entry["metrics"][name] is None else f"{entry['metrics'][name]:.4g}" for name in _SHOWN
        )
        + " |"
        for entry in shown["top"]
    ]
    counts = shown["trials"]
    run_artifact(
        run,
        [
            f"## {shown['strategy']} on {shown['symbol']}: {shown['overfitting']['verdict']}",
            *(f"- {reason}" for reason in shown["overfitting"]["reasons"]),
            "",
            f"{counts['run']} trials, {counts['skipped']} skipped, {counts['failed']} failed",
            "",
            f"| parameters | {shown['objective']} | " + " | ".join(_SHOWN) + " |",
            "|---|" + "---:|" * (len(_SHOWN) + 1),
            *rows,
            "",
            *(f"- ⚠ {said}" for said in shown["warnings"]),
            "",
            *report_lines(run),
            f"Snapshot `{shown['snapshot_id']}`, result `{shown['result_hash']}`",
        ],
    )
