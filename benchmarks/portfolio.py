"""How fast a portfolio backtest is, beside vectorbt's own rebalancing in the same run.

    python -m benchmarks.portfolio [SYMBOLS]

SYMBOLS (default 500) of 20 years of days, equal weights, rebalanced every month, from a lake of random walks; then ten
times as many. Bound: ≤ 2 s hot, from the cached matrices to the result. vectorbt gets the same target percentages
(`Portfolio.from_orders`, shared cash, automatic call sequence) without costs, because it sizes orders on the equity
before them; final equities must agree. "simulation" is the kernel alone: weights given, nothing verified.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lake import row
from benchmarks.matrices import filled
from gpt_trader.bars import Floats
from gpt_trader.portfolio import engine
from gpt_trader.portfolio.panel import Panel
from gpt_trader.portfolio.request import PortfolioRequest
from gpt_trader.quality import Policy
from storage.array_cache import ArrayCache
from storage.judging import verdicts
from storage.lake import Lake
from storage.panels import panel_in_range


def best(work: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """Return the shortest wall time of the work, and what it returned."""
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        found = work()
        spent.append(time.perf_counter() - started)
    return min(spent), found


def by_vectorbt(panel: Panel, rebalanced: Floats, capital: float) -> float:
    import pandas as pd
    import vectorbt as vbt

    size = np.full(panel.close.shape, np.nan)
    size[rebalanced] = 1 / len(panel.symbols)
    portfolio = vbt.Portfolio.from_orders(
        pd.DataFrame(panel.close),
        size=size,
        price=panel.open,
        size_type="targetpercent",
        group_by=True,
        cash_sharing=True,
        call_seq="auto",
        init_cash=capital,
        freq="1D",
    )
    return float(portfolio.final_value())


def measured(folder: Path, symbols: int, what: str, bound: str) -> None:
    names = filled(folder, "P", symbols, own_ratio=True)
    lake, cache = Lake(folder), ArrayCache(folder / "cache", 10**11)

    def loaded() -> Panel:
        return panel_in_range(lake, names, "1d", None, None, snapshot=None, cache=cache)

    started = time.perf_counter()
    panel = loaded()
    row(f"{what}, load, cold", f"{time.perf_counter() - started:.2f} s")
    few = PortfolioRequest(symbols=names[:2])
    request = few.model_copy(update={"symbols": panel.symbols})  # more than a request may have
    free = request.model_copy(update={"commission": 0.0, "slippage": 0.0})
    spent, result = best(lambda: engine.simulate(loaded(), request, snapshot_id="x"))
    row("  hot, from the cached matrices to the result", f"{spent:.2f} s", "", "", bound)
    for stage, seconds in result.provenance["durations"].items():
        row(f"    of it {stage}", f"{seconds:.2f} s")
    row("    fills, trades", f"{len(result.fills.bar):,}", f"{len(result.trades):,}")
    traded, decisions = panel.traded, engine.decide(panel, request, None)
    alone, _ = best(lambda: engine.trade(traded, decisions, request))
    theirs, final = best(lambda: by_vectorbt(traded, result.rebalanced, request.capital), 2)
    without = engine.simulate(panel, free)
    apart = abs(without.metrics.final_equity / final - 1)
    assert apart < 1e-9, f"final equities differ: {without.metrics.final_equity} and {final}"
    row(
        "  simulation, beside vectorbt's from_orders",
        f"{alone * 1e3:.0f} ms",
        f"{theirs * 1e3:.0f} ms",
        f"{theirs / alone:.0f}×",
    )
    if symbols <= 500:
        keys = [(name, "1d") for name in panel.symbols]
        spent, _ = best(lambda: list(verdicts(lake, keys, Policy())), 1)
        row("  the verdict on the quality of all bars", f"{spent:.2f} s")


def main() -> None:
    symbols = int(sys.argv[1]) if sys.argv[1:] else 500
    row("what", "ours", "beside", "ratio", "bound")
    with tempfile.TemporaryDirectory() as name:
        names = filled(Path(name) / "warm", "W", 2, own_ratio=True)
        panel = panel_in_range(Lake(Path(name) / "warm"), names, "1d", None, None, snapshot=None)
        engine.simulate(panel, PortfolioRequest(symbols=names))  # compiled before anything is measured
        measured(Path(name) / "one", symbols, f"{symbols} symbols × 5,040 bars", "≤ 2 s")
        measured(Path(name) / "ten", 10 * symbols, f"{10 * symbols} symbols × 5,040 bars", "")


if __name__ == "__main__":
    main()
