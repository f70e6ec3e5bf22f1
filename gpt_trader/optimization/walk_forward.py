"""Walk-forward analysis: what choosing on the past would have made of bars that were not seen when choosing.

Robert Pardo, The Evaluation and Optimization of Trading Strategies, 2nd ed., 2008, chapter 11. Each winner is simulated
anew on its test stretch, with the history before it as warm-up; nothing is cut from a curve of the training.

Each training is a search of its own, by the request's method and with its whole budget: what a search of all bars would
propose knows the tests.

Purge and embargo (López de Prado, Advances in Financial Machine Learning, 2018, chapter 7) keep apart what was chosen
on and what it is judged by. Walking forward, a training lies before its own test, and the purge alone stands between
them. But later trainings reach over earlier tests, and the bars right after a test still move with it: positions that
were held over its end, returns that go on. An embargo leaves these bars out of all later trainings: strategies see
them, as history, and nothing is measured on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np

from gpt_trader.backtesting import metrics as measure
from gpt_trader.backtesting.result import iso
from gpt_trader.bars import Floats
from gpt_trader.errors import NotEnoughBars, Problem, Refused
from gpt_trader.optimization.ranking import objectives, ranked
from gpt_trader.optimization.screening import COLUMNS
from gpt_trader.optimization.search import searched
from gpt_trader.optimization.study import NoTargets, Screened, Study
from gpt_trader.requests import WalkForward
from gpt_trader.simulation import kernel

#: So many trials of a training are screened together.
_TOGETHER: Final = 5_000


@dataclass(frozen=True)
class Stretch:
    """Indexes of bars: trained on [train, train_end) but for the gaps [start, stop), tested on [test, test_end)."""

    train: int
    train_end: int
    test: int
    test_end: int
    gaps: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Trained:
    """What a training chose: the combination's number, its objective and equity at the end (None: nothing could be).

    `trials` were made for it.
    """

    number: int | None
    objective: float | None
    final: float | None
    trials: int


@dataclass(frozen=True)
class Window:
    """One step of the walk: the winner's number (None: nobody could be chosen, and cash was held), and what it made.

    Returns are totals of their stretches; `train_yearly` is annualized over the `train_bars` that were measured.
    `equity` is (bars of the test,), from the equity that the window began with on.
    """

    stretch: Stretch
    trials: int
    train_bars: int
    number: int | None
    train_objective: float | None
    train_yearly: float | None
    test_return: float
    trades: int
    equity: Floats
    #: Why the winner, which could be traded on its training, could not on the test: cash was held.
    failed: str | None = None


def stretches(first: int, bars: int, how: WalkForward) -> list[Stretch]:
    """Return the stretches of a range of bars [first, bars); raise NotEnoughBars where one has fewer than two bars.

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
    found: list[Stretch] = []
    for window in range(how.windows):
        begin = first + lead + window * test
        train = first if how.anchored else max(first, begin - lead)
        gaps = _gaps([before.test_end for before in found], how.embargo, train, begin - how.purge)
        stretch = Stretch(train, begin - how.purge, begin, begin + test, gaps)
        _require_training(stretch, how)
        found.append(stretch)
    return found


def _gaps(ends: list[int], embargo: int, train: int, train_end: int) -> tuple[tuple[int, int], ...]:
    """Return what the embargo after each of the earlier tests, which end at `ends`, takes out of a training."""
    clipped = ((max(end, train), min(end + embargo, train_end)) for end in ends)
    found: list[tuple[int, int]] = []
    for start, stop in clipped:
        if start >= stop:
            continue
        if found and start <= found[-1][1]:
            start, _ = found.pop()  # noqa: PLW2901 - one long gap instead of two that touch
        found.append((start, stop))
    return tuple(found)


def _require_training(stretch: Stretch, how: WalkForward) -> None:
    edges = [stretch.train, *(edge for gap in stretch.gaps for edge in gap), stretch.train_end]
    if all(stop - start < 2 for start, stop in list(pairwise(edges))[::2]):
        raise NotEnoughBars.of(
            Problem(
                "walk_forward.embargo",
                how.embargo,
                f"leaves nothing of the {stretch.train_end - stretch.train} bars before a test of "
                f"{stretch.test_end - stretch.test}",
                allowed=f"less than {stretch.test_end - stretch.test}, or anchored trainings",
            )
        )


def trained(past: Study) -> Trained:
    """Return what a search of these bars chooses."""

    def screen(numbers: Sequence[int]) -> Screened:
        """Keep no more of a large grid than `Screened.of` does."""
        parts = range(0, len(numbers), _TOGETHER)
        return Screened.of(past.screen(numbers[first : first + _TOGETHER]) for first in parts)

    screened = searched(past, screen).screened
    objective = objectives(screened, past.traded, past.request)
    trials = len(screened.number)
    try:
        best = int(ranked(screened, objective, past.request)[0])
    except Refused:
        return Trained(None, None, None, trials)
    final = float(screened.sums[best, COLUMNS.index("final")])
    return Trained(int(screened.number[best]), float(objective[best]), final, trials)


def walk(study: Study, how: WalkForward, train: Callable[[Study], Trained] = trained) -> Iterator[Window]:
    """Yield the windows, oldest first; the capital of each is what the one before left.

    The decision that the first bar of a test trades on falls at the close of the bar before it. What a test still holds
    at its last close is sold there, at its costs, as the next winner starts from cash; the last test's is marked.
    `train` searches the bars of a training.
    """
    capital = study.request.capital
    for stretch in stretches(study.first, len(study.bars), how):
        window = _window(study, train, stretch, capital)
        capital = float(window.equity[-1])
        yield window


def _window(study: Study, train: Callable[[Study], Trained], stretch: Stretch, capital: float) -> Window:
    past = replace(study, bars=study.bars[: stretch.train_end], first=stretch.train, gaps=stretch.gaps)
    found, traded = train(past), past.traded
    about = (stretch, found.trials, len(traded), found.number, found.objective)
    if found.number is None or found.final is None:
        return Window(*about, None, 0.0, 0, np.full(stretch.test_end - stretch.test, capital))
    unseen = replace(study, bars=study.bars[: stretch.test_end], first=stretch.test - 1)
    targets = unseen.targets(found.number)
    if isinstance(targets, NoTargets):
        flat = np.full(stretch.test_end - stretch.test, capital)
        return Window(*about, None, 0.0, 0, flat, targets.reason)
    curve, terms = kernel.Curve.empty(len(targets)), kernel.terms_of(study.request)
    tally = kernel.run(kernel.prices_of(unseen.bars[unseen.first :]), targets, capital, terms, curve)
    equity = curve.equity[1:].copy()
    if stretch.test_end < len(study.bars):  # the next winner starts from cash
        equity[-1] = kernel.sold(equity[-1], curve.position[-1], unseen.bars.close[-1], terms)
    year = traded.periods_a_year
    yearly = measure.annualized_return(found.final, study.request.capital, len(traded), year)
    made = float(equity[-1]) / capital - 1.0 if capital > 0 else 0.0
    return Window(*about, yearly, made, tally.entries, equity)


def document(study: Study, windows: list[Window]) -> dict[str, Any]:
    """Return the walk JSON-ready: its measures, the metrics of the stitched equity, and a row a window.

    - `efficiency`: annualized return of the stitched tests over the mean annualized return of the trainings (Pardo's
      walk-forward efficiency); None where the trainings made nothing.
    - `consistency`: share of the tests that gained.
    - `robustness`: share of the tests that made at least half of their training's pace; a training that lost has none.
    """
    year, capital = study.bars.periods_a_year, study.request.capital
    how = study.request.walk_forward or WalkForward()
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
        "anchored": how.anchored,
        "purge": how.purge,
        "embargo": how.embargo,
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
    if window.train_yearly is None or window.train_yearly <= 0.0:
        return False
    tested = measure.annualized_return(1.0 + window.test_return, 1.0, len(window.equity), year)
    return tested is not None and tested >= window.train_yearly / 2


def _row(study: Study, window: Window) -> dict[str, Any]:
    time, stretch = study.bars.time, window.stretch
    return {
        "train": [iso(time[stretch.train]), iso(time[stretch.train_end - 1])],
        "train_bars": window.train_bars,
        "trials": window.trials,
        "test": [iso(time[stretch.test]), iso(time[stretch.test_end - 1])],
        "params": None if window.number is None else study.space.at(window.number),
        "failed": window.failed,
        "train_objective": window.train_objective,
        "train_annualized_return": window.train_yearly,
        "test_return": window.test_return,
        "trades": window.trades,
    }
