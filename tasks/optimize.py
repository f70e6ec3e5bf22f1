"""Tasks of the optimization: screen in chunks that are kept, choose, walk forward, judge, save."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from gpt_trader.backtesting.data_quality import data_quality, warnings
from gpt_trader.backtesting.engine import require_shortable
from gpt_trader.errors import Conflict
from gpt_trader.optimization.page import render_html
from gpt_trader.optimization.result import OptimizeResult, choose, require_causal_best, summary
from gpt_trader.optimization.screening import COLUMNS, WIDTH
from gpt_trader.optimization.search import Search
from gpt_trader.optimization.space import search_space
from gpt_trader.optimization.study import Screened, Study
from gpt_trader.optimization.verdict import judged
from gpt_trader.optimization.walk_forward import stretches
from gpt_trader.requests import OptimizeRequest
from gpt_trader.strategies import user
from gpt_trader.strategies.base import Strategy
from storage.array_cache import ArrayCache
from storage.runs import RunOutput
from storage.series import backtest_series
from tasks.artifacts import report_lines, run_artifact
from tasks.bars import LoadedBars
from tasks.places import compute
from tasks.provenance import code_version, library_versions, provenance
from tasks.run import CurrentRun
from tasks.stores import stores

#: Trials that are screened, and kept, together: what a kill can lose.
CHUNK: Final = 500

_STATES: Final = ("run", "skipped", "failed")


def study_of(request: OptimizeRequest, loaded: LoadedBars) -> Study:
    """Return what is searched; errors as `space.search_space`."""
    strategy = user.resolve(request.strategy, stores().home.strategies)
    require_shortable(loaded.bars, request)
    space = search_space(strategy, request)
    if request.walk_forward is not None:  # before hours of screening, not after
        stretches(loaded.first, len(loaded.bars), request.walk_forward)
    return Study(loaded.bars, loaded.first, strategy, space, request)


def chunks(numbers: Sequence[int]) -> list[list[int]]:
    """Return the numbers in chunks, in order."""
    return [list(numbers[first : first + CHUNK]) for first in range(0, len(numbers), CHUNK)]


def array_cache() -> ArrayCache:
    """Return the cache that keeps chunks of trials."""
    home = stores()
    return ArrayCache(home.home.cache / "arrays", int(home.settings.cache_limit_mb * 1e6))


@task(name="screen", task_run_name="screen-{place}", cache_policy=NO_CACHE)
def screen(study: Study, numbers: list[int], place: int) -> Screened:
    """Try a chunk of combinations, unless the same was done before (by a run that was killed, say)."""
    cache = array_cache()
    key = key_of(study, numbers=numbers)
    kept = cache.get(key, ("state", "rows", "reasons"))
    if kept is not None:
        state, rows, reasons = kept
        told = {int(number): reason for number, reason in json.loads(bytes(reasons)).items()}
        return Screened.of_rows(np.asarray(numbers, np.int64), np.array(state), np.array(rows), told)
    ends = " to ".join(_shown(study, number) for number in (numbers[0], numbers[-1]))
    found = compute(f"chunk {place} of trials ({ends})", Study.screen, study, numbers)
    text = np.frombuffer(json.dumps(dict(found.reasons)).encode(), np.uint8)
    keep(key, {"state": found.state, "rows": found.rows, "reasons": text})
    return found


def keep(key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Keep what was found for a run that goes on with it; where that cannot be done, this run has it all the same."""
    try:
        array_cache().put(key, arrays)
    except (Conflict, OSError) as error:
        get_run_logger().warning("trials are not kept for a resumed run: %s", error)


def _shown(study: Study, number: int) -> str:
    """Return the values of a combination that are searched, as `fast=5 slow=20`."""
    combination = study.space.at(number)
    return " ".join(f"{name}={combination[name]}" for name in study.space.values)


def key_of(study: Study, **about: Any) -> str:  # noqa: ANN401 - whatever is JSON
    """Return the hash of all that trials depend on: bars, code, terms, values; and of what else is told of them."""
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
        "count": len(study.bars),
        "strategy_code": _code_of(study.strategy),
        "first": study.first,
        "gaps": study.gaps,
        "request": request,
        "values": {name: list(values) for name, values in study.space.values.items()},
        "fixed": dict(study.space.fixed),
        **about,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _code_of(strategy: type[Strategy]) -> str:
    """Return the hash of the file that a strategy is in: a plugin's name and our version do not tell its code."""
    try:
        return hashlib.sha256(Path(inspect.getfile(strategy)).read_bytes()).hexdigest()
    except (OSError, TypeError):  # a user's file, which is no module's: its hash is in the strategy's name
        return ""


def study_name(study: Study) -> str:
    """Return the name of a search among Optuna's studies: the same for the same search, whichever run does it."""
    chosen_by = study.request.model_dump(
        mode="json", include={"method", "objective", "min_trades", "max_drawdown", "seed"}
    )
    return f"{study.request.symbol} {study.strategy.name} {key_of(study, search=chosen_by)[:16]}"


@task(name="choose", cache_policy=NO_CACHE)
def conclude(
    study: Study, search: Search, walked: dict[str, Any] | None, loaded: LoadedBars
) -> OptimizeResult:
    """Choose the best, have them verified by the engine of record, and judge whether to believe it."""
    screened = search.screened
    objective, numbers, backtests, verified = choose(study, screened, snapshot_id=loaded.snapshot_id)
    tried = require_causal_best(study, numbers)
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
        stopped=search.stopped,
        tried_for_lookahead=tried,
        optuna_study=study_name(study) if study.request.method == "tpe" else None,
    )


@task(name="save run", cache_policy=NO_CACHE)
def save_optimization(run: CurrentRun, result: OptimizeResult) -> dict[str, Any]:
    """Keep the result, all of it or nothing; return its summary."""
    shown = {"run_id": str(run.id), **summary(result)}
    best = replace(result.top[0], data_quality=result.data_quality)
    stores().runs.save_result(
        run.id,
        RunOutput(
            result_hash=result.result_hash,
            summary=shown,
            series={"trials": trials_table(result), **backtest_series(best)},
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


def trials_table(result: OptimizeResult) -> pa.Table:
    """Return a row a trial: its number, parameters, state, objective, and what the sweep summed up."""
    screened, space = result.screened, result.study.space
    columns: dict[str, Any] = {"number": screened.number}
    for places, (name, values) in zip(space.places_of(screened.number).T, space.values.items(), strict=True):
        columns[f"param_{name}"] = pa.array(values).take(pa.array(places))
    columns["state"] = pa.array(_STATES).take(pa.array(screened.state))
    columns["objective"] = pa.array(result.objective, from_pandas=True)
    for place, name in enumerate(COLUMNS):
        columns[name] = pa.array(screened.sums[:, place], from_pandas=True)
    return pa.table(columns).replace_schema_metadata({"schema_version": "1"})


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
            f"{counts['run']} trials, {counts['skipped']} skipped, {counts['failed']} failed"
            + (f"; stopped early, of {shown['stopped']['of']}" if shown["stopped"] else ""),
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
