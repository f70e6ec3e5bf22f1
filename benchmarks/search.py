"""How good what a search finds is: random draws beside TPE, at equal trials, on real bars.

    python -m benchmarks.search

Each problem is a strategy on thirteen years of daily bars (`bokeh_sampledata`), its whole grid simulated once, so that
the true best is known; a search then looks its trials up. What counts is the share of the true best's Sharpe ratio that
200 trials find, over 20 seeds, and in how many of the seeds TPE finds at least what the draws find.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import numpy as np

from benchmarks.lake import row
from gpt_trader.bars import Floats
from gpt_trader.optimization.ranking import allowed, objectives
from gpt_trader.optimization.search import searched
from gpt_trader.optimization.space import search_space
from gpt_trader.optimization.study import Screened, Study
from gpt_trader.requests import OptimizeRequest
from gpt_trader.strategies.registry import strategy_type
from tests.sample_bars import sample_bars

SYMBOLS: Final = ("AAPL", "IBM", "MSFT")
SPACES: Final[dict[str, dict[str, Any]]] = {
    "ma_crossover": {"fast": {"low": 2, "high": 61}, "slow": {"low": 20, "high": 258, "step": 3}},
    "momentum": {
        "lookback": {"low": 5, "high": 100, "step": 5},
        "threshold": {"low": 0.005, "high": 0.1, "step": 0.005},
        "hold": {"low": 1, "high": 20},
    },
    "mean_reversion": {
        "period": {"low": 5, "high": 62, "step": 3},
        "entry": {"low": 0.5, "high": 3.25, "step": 0.25},
        "exit": {"low": 0.0, "high": 1.5, "step": 0.1},
    },
}
SEEDS: Final = 20
TRIALS: Final = 200


def study_of(symbol: str, strategy: str, **values: Any) -> Study:
    request = OptimizeRequest(
        symbol=symbol, strategy=strategy, space=SPACES[strategy], min_trades=10, **values
    )
    chosen = strategy_type(strategy)
    return Study(sample_bars(symbol), 260, chosen, search_space(chosen, request), request)


def grid_of(study: Study) -> tuple[Screened, Floats]:
    """Return every combination's trial, and its objective (−inf: not to be chosen)."""
    every = study.screen(range(study.space.size))
    objective = objectives(every, study.bars[study.first :], study.request)
    return every, np.where(allowed(every, objective, study.request), objective, -np.inf)


def found(study: Study, every: Screened, value: Floats, trials: int) -> Floats:
    """Return the best objective after each trial of a search, (trials,)."""

    def looked_up(numbers: list[int]) -> Screened:
        return Screened.of_rows(np.array(numbers), every.state[numbers], every.rows_at(np.array(numbers)), {})

    numbers = searched(study, looked_up).screened.number
    assert len(np.unique(numbers)) == len(numbers) == trials
    return np.maximum.accumulate(value[numbers])


def main() -> None:
    row("problem (Sharpe ratio, 200 trials, 20 seeds)", "tpe", "random", "ratio", "bound")
    shares: dict[str, list[Floats]] = {"tpe": [], "random": []}
    spent = 0.0
    for symbol in SYMBOLS:
        for strategy in SPACES:
            every, value = grid_of(study_of(symbol, strategy))
            best = float(value.max())
            curves: dict[str, Floats] = {}
            for method, several in shares.items():
                studies = [
                    study_of(symbol, strategy, method=method, trials=TRIALS, seed=seed)
                    for seed in range(SEEDS)
                ]
                started = time.process_time()
                curves[method] = np.array([found(study, every, value, TRIALS) for study in studies]) / best
                spent += time.process_time() - started if method == "tpe" else 0.0
                several.append(curves[method])
            mine, theirs = (curves[method][:, -1].mean() for method in ("tpe", "random"))
            name = f"{symbol} {strategy}, {len(value):,} combinations, best {best:.3f}"
            row(name, f"{mine:.1%}", f"{theirs:.1%}", f"{mine / theirs:.3f}")
    tpe, random = (np.concatenate(shares[method]) for method in ("tpe", "random"))
    row("all: share of the true best, mean", f"{tpe[:, -1].mean():.1%}", f"{random[:, -1].mean():.1%}",
        f"{tpe[:, -1].mean() / random[:, -1].mean():.3f}", "> 1")  # fmt: skip
    row("  what is missing to it, mean", f"{1 - tpe[:, -1].mean():.2%}", f"{1 - random[:, -1].mean():.2%}",
        f"{(1 - tpe[:, -1].mean()) / (1 - random[:, -1].mean()):.2f}", "≤ 0.5")  # fmt: skip
    row(
        "  worst tenth of the seeds",
        f"{np.quantile(tpe[:, -1], 0.1):.1%}",
        f"{np.quantile(random[:, -1], 0.1):.1%}",
    )
    row(
        "  seeds in which tpe finds at least as much",
        f"{(tpe[:, -1] >= random[:, -1]).mean():.0%}",
        "",
        "",
        "≥ 80 %",
    )
    reached = int(np.argmax(tpe.mean(axis=0) >= random.mean(axis=0)[-1])) + 1
    row("  trials until the draws' final mean", str(reached), str(TRIALS), f"{reached / TRIALS:.2f}")
    row("  choosing, a trial (CPU)", f"{spent / (TRIALS * SEEDS * len(SYMBOLS) * len(SPACES)) * 1e3:.1f} ms")


if __name__ == "__main__":
    sys.exit(main())
