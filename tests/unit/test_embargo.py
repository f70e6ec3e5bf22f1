"""The embargo of a walk: what follows a test is measured in no later training, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpt_trader.backtesting import metrics as measure
from gpt_trader.bars import Bars, Floats
from gpt_trader.errors import NotEnoughBars
from gpt_trader.optimization.ranking import objectives
from gpt_trader.optimization.screening import COLUMNS
from gpt_trader.optimization.space import search_space
from gpt_trader.optimization.study import Study
from gpt_trader.optimization.walk_forward import document, stretches, walk
from gpt_trader.requests import OptimizeRequest, WalkForward
from gpt_trader.simulation import kernel
from gpt_trader.strategies.base import Strategy
from tests.unit.test_study import walking_bars

GAPS = ((200, 230), (400, 401), (500, 640))


class Periodic(Strategy):
    """Is long `hold` of every `period` bars, whatever the prices."""

    name = "periodic"
    period: int = 7
    hold: int = 3

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        return (np.arange(len(bars)) % self.period < self.hold).astype(float)


class Short(Periodic):
    """Is short from the first bar on."""

    name = "short"

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        return np.full(len(bars), -1.0)


def study(bars: Bars | None = None, **values: Any) -> Study:
    space = {"period": [7, 20, 90], "hold": [2, 6]}
    request = OptimizeRequest(symbol="T", strategy="periodic", space=space, **values)
    return Study(bars or walking_bars(), 60, Periodic, search_space(Periodic, request), request)


def elsewhere(bars: Bars, start: int, stop: int, factor: float) -> Bars:
    """Return the bars with other prices in a stretch."""
    scale = np.ones(len(bars))
    scale[start:stop] = factor
    return replace(bars, **{name: getattr(bars, name) * scale for name in ("open", "high", "low", "close")})


def test_without_an_embargo_nothing_is_left_out() -> None:
    for anchored in (False, True):
        found = stretches(60, 800, WalkForward(windows=6, train=3, anchored=anchored, purge=5))
        assert all(stretch.gaps == () for stretch in found)


@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize(("purge", "embargo"), [(0, 1), (0, 10), (7, 10), (25, 10), (0, 30)])
def test_each_training_leaves_out_what_follows_the_tests_before_it(
    anchored: bool, purge: int, embargo: int
) -> None:
    how = WalkForward(windows=8, train=3, anchored=anchored, purge=purge, embargo=embargo)
    found = stretches(60, 800, how)
    for place, stretch in enumerate(found):
        expected = {
            bar
            for before in found[:place]
            for bar in range(before.test_end, before.test_end + embargo)
            if stretch.train <= bar < stretch.train_end
        }
        assert {bar for start, stop in stretch.gaps for bar in range(start, stop)} == expected
    assert found[1].gaps == (), "what follows the first test is the second's own test"
    assert found[2].gaps != () or purge + embargo > 60
    plain = stretches(60, 800, how.model_copy(update={"embargo": 0}))
    assert [replace(stretch, gaps=()) for stretch in found] == plain, (
        "tests and trainings stay where they were"
    )


def test_a_long_embargo_leaves_the_bars_before_the_first_test_and_the_first_test() -> None:
    found = stretches(0, 700, WalkForward(windows=5, train=2, anchored=True, embargo=100))
    assert [stretch.gaps for stretch in found] == [(), (), ((300, 400),), ((300, 500),), ((300, 600),)]


def test_an_embargo_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(NotEnoughBars) as refused:
        stretches(0, 700, WalkForward(windows=5, train=2, embargo=100))
    (problem,) = refused.value.problems
    assert (problem.field, problem.value) == ("walk_forward.embargo", 100)
    assert "less than 100, or anchored" in str(problem.allowed)


def test_pieces_lie_between_the_gaps() -> None:
    whole, parted = study(), replace(study(), gaps=GAPS)
    assert whole.pieces == [slice(60, 800)]
    assert parted.pieces == [slice(60, 200), slice(230, 400), slice(401, 500), slice(640, 800)]
    kept = [bar for piece in parted.pieces for bar in range(piece.start, piece.stop)]
    np.testing.assert_array_equal(parted.traded.close, parted.bars.close[kept])
    np.testing.assert_array_equal(parted.traded.time, parted.bars.time[kept])
    ends = replace(study(), gaps=((60, 70), (790, 799)))
    assert ends.pieces == [slice(70, 790)], "one bar alone is no piece"


def test_a_trial_with_gaps_is_its_pieces_one_after_another() -> None:
    found = replace(study(), gaps=GAPS)
    screened = found.screen(range(6))
    for number in range(6):
        targets = found.candidate(number).targets(found.bars, 60)
        capital, curves, entries = found.request.capital, [], 0
        for piece in found.pieces:
            prices = kernel.prices_of(found.bars[piece])
            curve = kernel.Curve.empty(len(prices.close))
            tally = kernel.run(prices, targets[piece], capital, kernel.terms_of(found.request), curve)
            entries += tally.entries
            if piece.stop < len(found.bars) and curve.position[-1]:
                curve.equity[-1] -= abs(curve.position[-1]) * prices.close[-1] * (1 - 0.9995 * 0.999)
            capital = float(curve.equity[-1])
            curves.append(curve.equity)
        equity = np.concatenate(curves)
        row = dict(zip(COLUMNS, screened.rows[number], strict=False))
        assert (row["final"], row["entries"]) == (pytest.approx(capital, rel=1e-12), entries)
        assert row["depth"] == pytest.approx(measure.deepest_drawdown(equity)[0], rel=1e-12)
        sharpe = measure.sharpe(measure.returns(equity), found.bars.periods_a_year)
        assert objectives(screened, found.traded, found.request)[number] == pytest.approx(sharpe, rel=1e-9)


def test_nothing_is_measured_in_a_gap() -> None:
    found = replace(study(), gaps=((300, 400),))
    crashed = replace(found, bars=elsewhere(found.bars, 300, 400, 0.1))
    assert found.screen(range(6)).rows.tobytes() == crashed.screen(range(6)).rows.tobytes()
    for start, stop in ((280, 300), (400, 420)):
        other = replace(found, bars=elsewhere(found.bars, start, stop, 0.9))
        assert found.screen(range(6)).rows.tobytes() != other.screen(range(6)).rows.tobytes()


def test_a_piece_after_ruin_makes_nothing() -> None:
    short = study(direction="short", stop_loss=None, size=1.0)
    side = replace(short, strategy=Short, gaps=((300, 320),))
    rows = replace(side, bars=elsewhere(side.bars, 250, 300, 50.0)).screen([0]).rows[0]
    assert rows[COLUMNS.index("final")] == 0.0
    assert rows[COLUMNS.index("entries")] == 1
    assert np.isfinite(rows).all()


def test_later_choices_do_not_depend_on_embargoed_bars_and_say_how_many_they_used() -> None:
    how = {"windows": 6, "train": 3, "embargo": 20}
    found = study(walk_forward=how)
    walked = found.request.walk_forward
    assert walked is not None
    windows = list(walk(found, walked))
    first = windows[0].stretch.test_end
    changed = replace(found, bars=elsewhere(found.bars, first, first + 20, 0.5))
    for before, after in zip(windows, walk(changed, walked), strict=True):
        if before.stretch.test != first:  # that test is traded on these very bars
            assert (before.number, before.train_objective) == (after.number, after.train_objective)
    rows = document(found, windows)
    assert (rows["embargo"], rows["purge"]) == (20, 0)
    lengths = [stretch.train_end - stretch.train for stretch in (window.stretch for window in windows)]
    left_out = [length - row["train_bars"] for length, row in zip(lengths, rows["each"], strict=True)]
    assert left_out[:4] == [0, 0, 20, 40]
    plain = study(walk_forward={**how, "embargo": 0})
    assert plain.request.walk_forward is not None
    others = list(walk(plain, plain.request.walk_forward))
    assert [one.train_objective for one in others[:2]] == [one.train_objective for one in windows[:2]]
    assert [one.train_objective for one in others[2:]] != [one.train_objective for one in windows[2:]]
