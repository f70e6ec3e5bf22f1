"""Does the verdict tell luck from skill? 100 studies on noise, 100 on a planted edge; and what it costs.

    python -m benchmarks.overfitting

Each study searches 200 moving-average pairs, long and short, over 5,040 bars, without costs. Noise is a random walk
without drift. The edge is a market that trends: its drift changes sign at random, on average every 150 bars, and is
0.17 of a bar's deviation. TPE chooses its 200 from 11,800 pairs: its trials are no draw from them, and the verdict must
tell luck from skill all the same. Bounds: noise is rejected in ≥ 95 of 100 studies, the edge accepted in ≥ 90; the
cross-validation of 1,000 variants in 16 blocks takes ≤ 2 s.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from typing import Any

import numpy as np

from benchmarks.lake import row
from gpt_trader.backtesting.execution import execute, load_vectorbt
from gpt_trader.bars import Bars
from gpt_trader.instruments import Instrument
from gpt_trader.optimization.cross_validation import cross_validated
from gpt_trader.optimization.ranking import objectives, ranked
from gpt_trader.optimization.screening import BLOCKS
from gpt_trader.optimization.search import searched
from gpt_trader.optimization.space import search_space
from gpt_trader.optimization.study import Study
from gpt_trader.optimization.verdict import judged
from gpt_trader.requests import OptimizeRequest
from gpt_trader.strategies.registry import strategy_type

BARS = 5_040
STUDIES = 100


def market(seed: int, edge: float) -> Bars:
    """Return bars of a random walk whose drift is ± `edge` deviations, its sign changing every 150 bars or so."""
    random = np.random.default_rng(seed)
    sign = np.where(np.cumsum(random.random(BARS) < 1 / 150) % 2, 1.0, -1.0)
    close = 100 * np.exp(np.cumsum(0.01 * (random.normal(0, 1, BARS) + edge * sign)))
    open_ = np.concatenate([[100.0], close[:-1]])
    time_ = np.datetime64("2000-01-01", "us") + np.arange(BARS) * np.timedelta64(1, "D")
    high, low = np.maximum(open_, close), np.minimum(open_, close)
    return Bars(Instrument(symbol="MADE"), "1d", time_, open_, high, low, close, np.ones(BARS))


PAIRS: dict[str, dict[str, Any]] = {
    "grid": {"fast": {"low": 5, "high": 50, "step": 5}, "slow": {"low": 60, "high": 250, "step": 10}},
    "tpe": {"fast": {"low": 2, "high": 60}, "slow": {"low": 61, "high": 260}},
}


def study(bars: Bars, method: str, seed: int) -> Study:
    request = OptimizeRequest(
        symbol="MADE",
        strategy="ma_crossover",
        space=PAIRS[method],
        method=method,
        seed=seed,
        direction="both",
        commission=0,
        slippage=0,
    )
    strategy = strategy_type("ma_crossover")
    space = search_space(strategy, request)
    return Study(bars, 0, strategy, space, request)


def verdicts(edge: float, method: str) -> tuple[Counter[str], list[float]]:
    said: Counter[str] = Counter()
    sharpes = []
    for seed in range(STUDIES):
        found = study(market(seed, edge), method, seed)
        screened = searched(found, found.screen).screened
        objective = objectives(screened, found.bars, found.request)
        best = int(screened.number[ranked(screened, objective, found.request)[0]])
        equity = execute(found.bars, found.candidate(best).targets(found.bars, 0), found.request).equity
        document = judged(found, screened, objective, best, equity)
        said[document["verdict"]] += 1
        sharpes.append(document["sharpe"])
    return said, sharpes


def main() -> None:
    load_vectorbt()
    row("200 trials each, 100 studies", "rejected", "accepted", "Sharpe", "bound")
    for what, edge, method, bound in (
        ("noise", 0.0, "grid", "≥ 95 rejected"),
        ("a planted edge", 0.17, "grid", "≥ 90 accepted"),
        ("noise, searched by TPE", 0.0, "tpe", "≥ 95 rejected"),
        ("a planted edge, searched by TPE", 0.17, "tpe", "≥ 90 accepted"),
    ):
        said, sharpes = verdicts(edge, method)
        row(what, str(said["reject"]), str(said["accept"]), f"{statistics.mean(sharpes):.2f}", bound)
    random = np.random.default_rng(1)
    blocks = random.normal(0, 0.01, (BLOCKS, BARS // BLOCKS, 1_000))
    sums, squares = blocks.sum(axis=1), (blocks**2).sum(axis=1)
    lengths = np.full(BLOCKS, BARS // BLOCKS)
    cross_validated(sums[:, :10], squares[:, :10], lengths)
    started = time.perf_counter()
    cross_validated(sums, squares, lengths)
    row("CSCV, 1,000 variants × 16 blocks", f"{time.perf_counter() - started:.2f} s", "", "", "≤ 2 s")


if __name__ == "__main__":
    main()
