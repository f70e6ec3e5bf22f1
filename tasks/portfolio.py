"""Tasks of the portfolio: load the prices of all symbols, simulate, save, report, show in the Prefect UI."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from gpt_trader.backtesting.data_quality import refuse_blocked, refuse_gaps
from gpt_trader.portfolio import engine
from gpt_trader.portfolio.page import render_html, render_png
from gpt_trader.portfolio.panel import Panel
from gpt_trader.portfolio.quality import data_quality, warnings
from gpt_trader.portfolio.request import PortfolioRequest
from gpt_trader.portfolio.result import PortfolioResult, summary
from gpt_trader.portfolio.wishes import Wishes, wishes
from gpt_trader.quality import Verdict
from gpt_trader.strategies import registry, user
from storage.array_cache import ArrayCache
from storage.judging import verdicts
from storage.panels import panel_in_range
from storage.portfolio_series import portfolio_series
from storage.runs import RunOutput
from tasks.artifacts import report_lines, run_artifact
from tasks.provenance import code_version, library_versions, provenance
from tasks.run import CurrentRun
from tasks.stores import stores

if TYPE_CHECKING:
    from gpt_trader.strategies.base import Strategy


@dataclass(frozen=True)
class LoadedPanel:
    """Prices up to the end of the range, where they are from, and the verdicts on the stored bars of the range."""

    panel: Panel
    snapshot_id: str
    verdicts: tuple[Verdict, ...]


@task(name="load panel", cache_policy=NO_CACHE)
def load_panel(request: PortfolioRequest) -> LoadedPanel:
    """Return opens and closes of all symbols with all history before the range, adjusted as of its end.

    Raises NotEnoughBars where a symbol has none in the range, Refused where the request refuses missing bars.
    """
    home = stores()
    snapshot = home.lake.snapshot(request.snapshot)
    identity = snapshot.id if snapshot else None
    panel = panel_in_range(
        home.lake,
        request.symbols,
        request.timeframe,
        request.start,
        request.end,
        snapshot=identity,
        cache=ArrayCache(home.home.cache / "arrays", int(home.settings.cache_limit_mb * 1e6)),
    )
    engine.require_bars(panel)
    keys = [(symbol, request.timeframe) for symbol in panel.symbols]
    checked = tuple(
        verdicts(
            home.lake, keys, home.settings.quality, snapshot=identity, start=request.start, end=request.end
        )
    )
    for verdict in checked:
        refuse_blocked(verdict)
        if request.on_gaps == "refuse":
            refuse_gaps(verdict)
    return LoadedPanel(panel, identity or "", checked)


@task(name="simulate", cache_policy=NO_CACHE)
def simulate_portfolio(request: PortfolioRequest, loaded: LoadedPanel) -> PortfolioResult:
    """Run the portfolio through the engine; the result carries what it was made with."""
    started = time.perf_counter()
    wished = _wishes(request, loaded) if request.weights == "strategy" else None
    result = engine.simulate(
        loaded.panel,
        _with_params(request),
        wanted=None if wished is None else wished.targets,
        bars_hash=None if wished is None else wished.bars_hash,
        snapshot_id=loaded.snapshot_id,
    )
    durations = {**result.provenance["durations"], "total": time.perf_counter() - started}
    quality = data_quality(loaded.verdicts, result, mark=request.on_gaps != "warn")
    return replace(
        result,
        provenance={**result.provenance, **provenance(request.seed, durations)},
        data_quality=quality,
        warnings=warnings(quality, loaded.panel, result),
    )


def _strategy(request: PortfolioRequest) -> Strategy:
    strategy = user.resolve(request.strategy or "", stores().home.strategies)
    return registry.build(strategy, request.params)


def _with_params(request: PortfolioRequest) -> PortfolioRequest:
    """Return the request with all parameters, so that a default given and one left out are the same request."""
    return (
        request
        if request.strategy is None
        else request.model_copy(update={"params": _strategy(request).params()})
    )


def _wishes(request: PortfolioRequest, loaded: LoadedPanel) -> Wishes:
    lake, snapshot = stores().lake, loaded.snapshot_id or None
    bars = (
        lake.bars(symbol, request.timeframe, snapshot=snapshot, known_at=request.end)
        for symbol in loaded.panel.symbols
    )
    return wishes(loaded.panel, bars, _strategy(request), request)


@task(name="save run", cache_policy=NO_CACHE)
def save_portfolio(run: CurrentRun, result: PortfolioResult) -> dict[str, Any]:
    """Keep the result, all of it or nothing; return its summary."""
    shown = {"run_id": str(run.id), **summary(result)}
    output = RunOutput(
        result_hash=result.result_hash,
        summary=shown,
        series=portfolio_series(result),
        snapshot_id=result.snapshot_id,
        code_version=code_version(),
        libraries=library_versions(),
    )
    stores().runs.save_result(run.id, output)
    return shown


@task(name="report", cache_policy=NO_CACHE)
def write_report(run: CurrentRun, result: PortfolioResult) -> None:
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
    ("max_drawdown", "{:.2%}"),
    ("turnover", "{:.2f}"),
    ("costs", "{:,.2f}"),
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
            f"## {shown['strategy'] or shown['weights']} on {len(shown['symbols'])} symbols",
            f"{shown['start']} to {shown['end']}, {shown['bars']} bars, {shown['rebalances']} times rebalanced",
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
