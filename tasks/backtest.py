"""Tasks of the backtest: simulate, save, report, show in the Prefect UI."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from gpt_trader.backtesting import engine
from gpt_trader.backtesting.causality import require_causal
from gpt_trader.backtesting.data_quality import data_quality, warnings
from gpt_trader.backtesting.report import render_html, render_png
from gpt_trader.backtesting.result import BacktestResult
from gpt_trader.backtesting.summary import summary
from gpt_trader.requests import BacktestRequest
from gpt_trader.strategies import registry, user
from storage.runs import RunOutput
from storage.series import backtest_series
from tasks.artifacts import report_lines, run_artifact
from tasks.bars import LoadedBars
from tasks.provenance import code_version, library_versions, provenance
from tasks.run import CurrentRun
from tasks.stores import stores

if TYPE_CHECKING:
    from gpt_trader.strategies.base import Strategy


@task(name="simulate", cache_policy=NO_CACHE)
def simulate(request: BacktestRequest, loaded: LoadedBars) -> BacktestResult:
    """Run the strategy through the engine; the result carries what it was made with."""
    started = time.perf_counter()
    strategy = _strategy(request)
    require_causal(strategy, loaded.bars, loaded.first)
    result = engine.simulate(loaded.bars, loaded.first, strategy, request, snapshot_id=loaded.snapshot_id)
    durations = {**result.provenance["durations"], "total": time.perf_counter() - started}
    made_with = {**result.provenance, **provenance(request.seed, durations)}
    quality = data_quality(loaded.verdict, result.trades, result.time, mark=request.on_gaps != "warn")
    return replace(
        result,
        provenance=made_with,
        data_quality=quality,
        warnings=warnings(quality, loaded.verdict, result.trades),
    )


def _strategy(request: BacktestRequest) -> Strategy:
    strategy = user.resolve(request.strategy, stores().home.strategies)
    return registry.build(strategy, request.params, request.direction)


@task(name="save run", cache_policy=NO_CACHE)
def save_run(run: CurrentRun, result: BacktestResult) -> dict[str, Any]:
    """Keep the result, all of it or nothing; return its summary."""
    shown = {"run_id": str(run.id), **summary(result)}
    output = RunOutput(
        result_hash=result.result_hash,
        summary=shown,
        series=backtest_series(result),
        snapshot_id=result.snapshot_id,
        code_version=code_version(),
        libraries=library_versions(),
    )
    stores().runs.save_result(run.id, output)
    return shown


@task(name="report", cache_policy=NO_CACHE)
def write_report(run: CurrentRun, result: BacktestResult) -> None:
    """Put the HTML report and the picture beside the run's series."""
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    page = render_html(result, run_id=str(run.id), created_at=created)
    stores().runs.save_artifact(run.id, "report", page.encode())
    stores().runs.save_artifact(run.id, "picture", render_png(result, run_id=str(run.id)))


#: What the Prefect UI shows of a run, in this order.
_SHOWN = (
    ("total_return", "{:.2%}"),
    ("benchmark_return", "{:.2%}"),
    ("annualized_return", "{:.2%}"),
    ("sharpe", "{:.2f}"),
    ("sortino", "{:.2f}"),
    ("max_drawdown", "{:.2%}"),
    ("trades", "{:d}"),
    ("win_rate", "{:.1%}"),
    ("final_equity", "{:,.2f}"),
)


def publish(run: CurrentRun, shown: dict[str, Any]) -> None:
    """Show the key metrics and where the report is as an artifact of the flow run in the Prefect UI."""
    metrics = shown["metrics"]
    rows = [
        f"| {name.replace('_', ' ')} | {'–' if metrics[name] is None else form.format(metrics[name])} |"
        for name, form in _SHOWN
    ]
    run_artifact(
        run,
        [
            f"## {shown['strategy']} on {shown['symbol']}",
            f"{shown['start']} to {shown['end']}, {shown['bars']} bars, parameters `{shown['params']}`",
            "",
            "| metric | value |",
            "|---|---:|",
            *rows,
            "",
            *(f"- ⚠ {said}" for said in shown["warnings"]),
            "",
            *report_lines(run),
            f"Snapshot `{shown['snapshot_id']}`, result `{shown['result_hash']}`",
        ],
    )
