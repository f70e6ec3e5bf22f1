"""Walk-forward analysis: what choosing on the past would have made of bars that were not seen when choosing.

Robert Pardo, The Evaluation and Optimization of Trading Strategies, 2nd ed., 2008, chapter 11. Each winner is simulated
anew on its test stretch, with the history before it as warm-up; nothing is cut from a curve of the training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpt_trader.backtesting import metrics as measure
from gpt_trader.backtesting.engine import wanted_targets
from gpt_trader.backtesting.result import iso
from gpt_trader.bars import Floats
from gpt_trader.errors import NotEnoughBars, Problem, Refused
from gpt_trader.optimization.ranking import objectives, ranked
from gpt_trader.optimization.study import Study
from gpt_trader.requests import WalkForward
from gpt_trader.simulation import kernel


@dataclass(frozen=True)
class Stretch:
    """Indexes of bars: trained on [train, train_end), tested on [test, test_end)."""

    train: int
    train_end: int
    test: int
    test_end: int


@dataclass(frozen=True)
class Window:
    """One step of the walk: the winner's number (None: nobody could be chosen, and cash was held), and what it made.

    Returns are totals of their stretches; `train_yearly` is annualized. `equity` is (bars of the test,), from the
    equity that the window began with on.
    """

    stretch: Stretch
    number: int | None
    train_objective: float | None
    train_yearly: float | None
    test_return: float
    trades: int
    equity: Floats


def stretches(first: int, bars: int, how: WalkForward) -> list[Stretch]:
    """Return the stretches of a range of bars [first, bars); raise NotEnoughBars where one would be shorter than two.

    Bars that do not divide evenly are left to the first training.
    """
    test = int((bars - first) / (how.windows + how.train))
    lead = bars - first - test * how.windows
    if test < 2 or lead - how.purge < 2:
        raise NotEnoughBars.of(
            Problem(
                "walk_forward",
                how.windows,
                f"needs at least 2 bars in each stretch, and the range has {bars - first} bars for {how.windows} tests",
                allowed="fewer windows, a smaller purge, or a longer range",
            )
        )
    found = []
    for window in range(how.windows):
        begin = first + lead + window * test
        train = first if how.anchored else max(first, begin - lead)
        found.append(Stretch(train, begin - how.purge, begin, begin + test))
    return found


def walk(study: Study, numbers: list[int], how: WalkForward) -> Iterator[Window]:
    """Yield the windows, oldest first; the capital of each is what the one before left.

    The decision that the first bar of a test trades on falls at the close of the bar before it.
    """
    capital = study.request.capital
    for stretch in stretches(study.first, len(study.bars), how):
        window = _window(study, numbers, stretch, capital)
        capital = float(window.equity[-1])
        yield window


def _window(study: Study, numbers: list[int], stretch: Stretch, capital: float) -> Window:
    past = replace(study, bars=study.bars[: stretch.train_end], first=stretch.train)
    screened = past.screen(numbers)
    traded = past.bars[past.first :]
    objective = objectives(screened, traded, study.request)
    length = stretch.test_end - stretch.test
    try:
        best = int(ranked(screened, objective, study.request)[0])
    except Refused:
        return Window(stretch, None, None, None, 0.0, 0, np.full(length, capital))
    number = int(screened.number[best])
    seen = study.bars[: stretch.test_end]
    since = stretch.test - 1
    request = study.request.model_copy(update={"capital": capital}) if capital > 0 else study.request
    targets = wanted_targets(study.candidate(number), seen, since, request)
    curve = kernel.Curve.empty(len(targets))
    tally = kernel.run(kernel.prices_of(seen[since:]), targets, capital, kernel.terms_of(request), curve)
    equity = curve.equity[1:].copy()
    final = float(screened.rows[best, 0])
    yearly = measure.annualized_return(final, study.request.capital, len(traded), traded.periods_a_year)
    made = float(equity[-1]) / capital - 1.0 if capital > 0 else 0.0
    return Window(stretch, number, float(objective[best]), yearly, made, tally.entries, equity)


def document(study: Study, windows: list[Window]) -> dict[str, Any]:
    """Return the walk JSON-ready: its measures, the metrics of the stitched equity, and a row a window.

    - `efficiency`: annualized return of the stitched tests over the mean annualized return of the trainings (Pardo's
      walk-forward efficiency); None where the trainings made nothing.
    - `consistency`: share of the tests that gained.
    - `robustness`: share of the tests that made at least half of their training's pace.
    """
    year, capital = study.bars.periods_a_year, study.request.capital
    equity = np.concatenate([[capital], *(window.equity for window in windows)])
    change = measure.returns(equity)[1:]
    bars = len(change)
    final = float(equity[-1])
    yearly = measure.annualized_return(final, capital, bars, year)
    trained = [window.train_yearly for window in windows if window.train_yearly is not None]
    pace = sum(trained) / len(trained) if trained else None
    efficiency = yearly / pace if yearly is not None and pace is not None and pace > 0 else None
    return {
        "windows": len(windows),
        "anchored": study.request.walk_forward.anchored if study.request.walk_forward else False,
        "bars": bars,
        "total_return": final / capital - 1.0,
        "annualized_return": yearly,
        "sharpe": measure.sharpe(change, year),
        "max_drawdown": measure.deepest_drawdown(equity)[0],
        "trades": sum(window.trades for window in windows),
        "efficiency": efficiency,
        "consistency": sum(window.test_return > 0 for window in windows) / len(windows),
        "robustness": sum(_kept_pace(window, year) for window in windows) / len(windows),
        "each": [_row(study, window) for window in windows],
    }


def _kept_pace(window: Window, year: float) -> bool:
    if window.train_yearly is None:
        return False
    tested = measure.annualized_return(1.0 + window.test_return, 1.0, len(window.equity), year)
    return tested is not None and tested >= window.train_yearly / 2


def _row(study: Study, window: Window) -> dict[str, Any]:
    time, stretch = study.bars.time, window.stretch
    return {
        "train": [iso(time[stretch.train]), iso(time[stretch.train_end - 1])],
        "test": [iso(time[stretch.test]), iso(time[stretch.test_end - 1])],
        "params": None if window.number is None else study.space.at(window.number),
        "train_objective": window.train_objective,
        "train_annualized_return": window.train_yearly,
        "test_return": window.test_return,
        "trades": window.trades,
    }
