"""Studies: the sweep's numbers are the engine's, odd combinations stop nobody, the best is the best."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from gpt_trader.backtesting import engine
from gpt_trader.bars import Bars, Floats
from gpt_trader.errors import NotEnoughBars, Refused
from gpt_trader.optimization import walk_forward
from gpt_trader.optimization.ranking import objectives, ranked
from gpt_trader.optimization.result import choose, require_causal_best, rules
from gpt_trader.optimization.screening import BLOCKS, COLUMNS, WIDTH
from gpt_trader.optimization.space import search_space, trial_numbers
from gpt_trader.optimization.study import FAILED, RUN, SKIPPED, Screened, Study
from gpt_trader.optimization.walk_forward import Stretch, Window, document, stretches, walk
from gpt_trader.requests import OptimizeRequest, WalkForward
from gpt_trader.simulation import kernel
from gpt_trader.strategies.base import CompiledTargets, Strategy
from gpt_trader.strategies.registry import strategy_type
from tests.bars_factory import STOCK

OBJECTIVES = (
    "sharpe",
    "sortino",
    "calmar",
    "total_return",
    "annualized_return",
    "max_drawdown",
    "win_rate",
    "profit_factor",
    "expectancy",
)


def walking_bars(n: int = 800, seed: int = 3) -> Bars:
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0.0003, 0.02, n)))
    open_ = close * np.exp(random.normal(0, 0.004, n))
    time = np.datetime64("2010-01-04", "us") + np.arange(n) * np.timedelta64(1, "D")
    high, low = np.maximum(open_, close) * 1.01, np.minimum(open_, close) * 0.99
    return Bars(STOCK, "1d", time, open_, high, low, close, np.full(n, 1e6), logical_hash="walk")


def study(strategy: type[Strategy] | None = None, bars: Bars | None = None, **values: Any) -> Study:
    request = OptimizeRequest(symbol="TEST", strategy="ma_crossover", **values)
    chosen = strategy or strategy_type("ma_crossover")
    return Study(bars or walking_bars(), 60, chosen, search_space(chosen, request), request)


def screened(found: Study) -> Screened:
    return found.screen(trial_numbers(found.space, found.request))


@pytest.mark.parametrize("direction", ["long", "both"])
@pytest.mark.parametrize("stop", [None, 0.03])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_of_a_sweep_is_the_engines(objective: str, direction: str, stop: float | None):
    found = study(objective=objective, direction=direction, stop_loss=stop)
    trials = screened(found)
    values = objectives(trials, found.bars[found.first :], found.request)
    for number, value in zip(trials.number, values, strict=True):
        if trials.state[number] != RUN:
            continue
        terms = found.request.backtest(dict(found.space.at(int(number))))
        metrics = engine.simulate(found.bars, found.first, found.candidate(int(number)), terms).metrics
        expected = metrics.as_dict()[objective]
        assert value == pytest.approx(np.nan if expected is None else expected, rel=1e-9, nan_ok=True)


def test_the_blocks_sums_are_those_of_the_returns():
    found = study()
    trials = screened(found)
    row = trials.rows[0]
    terms = found.request.backtest(dict(found.space.at(0)))
    equity = engine.simulate(found.bars, found.first, found.candidate(0), terms).equity
    change = np.concatenate([[0.0], equity[1:] / equity[:-1] - 1])
    block = np.arange(len(change)) * BLOCKS // len(change)
    base = len(COLUMNS)
    sums, squares, downside, growth = np.split(row[base:], 4)
    np.testing.assert_allclose(sums, np.bincount(block, change), atol=1e-12)
    np.testing.assert_allclose(squares, np.bincount(block, change**2), rtol=1e-9)
    np.testing.assert_allclose(downside, np.bincount(block, np.minimum(change, 0) ** 2), rtol=1e-9)
    np.testing.assert_allclose(growth, np.bincount(block, np.log1p(change)), atol=1e-12)
    assert row[COLUMNS.index("m2")] == pytest.approx(((change - change.mean()) ** 2).sum(), rel=1e-9)


def test_reasons_that_differ_in_values_are_one_rule_with_an_example():
    found = study(space={"fast": [10, 30, 35, 40], "slow": [20, 25, 50]})
    trials = screened(found)
    assert len(set(trials.reasons.values())) == 6
    assert rules(found, trials) == [
        {
            "rule": "params: fast … must be below slow …",
            "trials": 6,
            "first": 3,
            "reason": "params: fast 30 must be below slow 20",
            "params": {"fast": 30, "slow": 20},
        }
    ]


def test_numbers_that_are_the_same_in_all_stay_in_the_rule():
    found = study(Fussy, space={"number": [14, 13]})
    (one, other) = rules(found, screened(found))
    assert one["rule"] == one["reason"] == "ZeroDivisionError: bad luck"
    assert "targets()[60] is nan" in other["rule"]
    assert other["rule"].endswith("one finite number of [-1, 1] a bar")


@pytest.mark.parametrize("stop", [None, 0.03])
@pytest.mark.parametrize("direction", ["long", "short", "both"])
def test_rows_added_up_while_trading_are_those_of_the_curve(direction: str, stop: float | None):
    found = study(direction=direction, stop_loss=stop, commission=0.001)
    trials, terms = screened(found), kernel.terms_of(found.request)
    prices = kernel.prices_of(found.bars[found.first :])
    for number in np.flatnonzero(trials.state == RUN).tolist():
        targets = found.targets(number)
        assert isinstance(targets, np.ndarray)
        curve, row = kernel.Curve.empty(len(targets)), np.empty(WIDTH)
        tally = kernel.run(prices, targets, found.request.capital, terms, curve)
        kernel.summarize(curve.equity, found.request.capital, tally, row)
        np.testing.assert_allclose(row, trials.rows[number], rtol=1e-10, atol=1e-13)


class Leaning(Strategy):
    """Compiled targets that are out of bounds (2), no numbers (3), or of a side that is not traded (4)."""

    name = "leaning"
    number: int = 1

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        return self.compiled(bars).of(len(bars), first)

    def compiled(self, bars: Bars) -> CompiledTargets:
        return CompiledTargets(leaning, (self.number,))


def leaning(number: int, first: int, found: Floats) -> None:
    found[:] = 0.0
    found[::7] = {2: 1.5, 3: np.nan, 4: -1.0, 5: 0.5}.get(number, 1.0)


def test_compiled_targets_are_checked_as_others_are():
    found = study(Leaning, space={"number": [1, 2, 3, 4, 5]})
    trials = screened(found)
    assert trials.state.tolist() == [RUN, FAILED, FAILED, RUN, RUN]
    assert "targets()[60] is 1.5" in trials.reasons[1]
    assert "is nan" in trials.reasons[2]
    assert trials.rows[3, COLUMNS.index("entries")] == 0, "what it would have sold is not traded"
    assert trials.rows[3, 0] == found.request.capital
    alone = [found.screen([number]).rows[0] for number in range(5)]
    np.testing.assert_array_equal(trials.rows, np.array(alone))


class Fussy(Strategy):
    """Raises on 13, gives nonsense on 14, is never long on 15."""

    name = "fussy"
    number: int = 1

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        if self.number == 13:
            raise ZeroDivisionError("bad luck")
        side = np.zeros(len(bars))
        side[first::2] = {14: np.nan, 15: 0.0}.get(self.number, 1.0)
        return side


def test_a_combination_that_fails_is_counted_and_the_others_go_on():
    found = study(Fussy, space={"number": [12, 13, 14, 15]})
    trials = screened(found)
    assert trials.state.tolist() == [RUN, FAILED, FAILED, RUN]
    assert trials.reasons[1] == "ZeroDivisionError: bad luck"
    assert "targets()" in trials.reasons[2]
    assert trials.counts() == {"run": 2, "skipped": 0, "failed": 2}


def test_what_the_strategy_refuses_is_skipped():
    trials = screened(study(space={"fast": [10, 30], "slow": [20, 40]}))
    assert trials.state.tolist() == [RUN, RUN, SKIPPED, RUN]
    assert "must be below" in trials.reasons[2]


def test_the_best_comes_first_and_is_verified():
    found = study(top=5)
    trials = screened(found)
    objective, numbers, backtests, verified = choose(found, trials, snapshot_id="s")
    values = [objective[number] for number in numbers]
    assert values == sorted(values, reverse=True)
    assert values[0] == np.nanmax(objective)
    assert [b.metrics.sharpe for b in backtests] == pytest.approx(values)
    assert verified == 15


def test_constraints_keep_combinations_out():
    free, bound = study(), study(min_trades=20, max_drawdown=0.4)
    trials = screened(bound)
    objective = objectives(trials, bound.bars[bound.first :], bound.request)
    for place in ranked(trials, objective, bound.request):
        assert trials.rows[place, COLUMNS.index("entries")] >= 20
        assert trials.rows[place, COLUMNS.index("depth")] >= -0.4
    assert len(ranked(trials, objective, free.request)) > len(ranked(trials, objective, bound.request))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"min_trades": 10_000}, "keeps the constraints"),
        ({"space": {"fast": [50], "slow": [20]}}, "no combination could be tried"),
    ],
)
def test_a_study_without_a_choice_says_why(values: dict[str, Any], said: str):
    found = study(**values)
    with pytest.raises(Refused, match=said):
        choose(found, screened(found), snapshot_id="s")


def test_an_objective_that_is_nowhere_defined_says_so():
    found = study(Fussy, space={"number": [15]})
    with pytest.raises(Refused, match="sharpe is undefined for every combination"):
        choose(found, screened(found), snapshot_id="s")


def test_a_sweep_in_parts_is_the_sweep_as_one():
    found = study()
    whole = screened(found)
    parts = Screened.of([found.screen([0, 1, 2]), found.screen(list(range(3, 16)))])
    assert whole.rows.tobytes() == parts.rows.tobytes()
    assert (whole.state.tolist(), whole.reasons) == (parts.state.tolist(), parts.reasons)


@pytest.mark.parametrize("anchored", [False, True])
def test_stretches_cover_the_range_and_never_look_ahead(anchored: bool):
    how = WalkForward(windows=6, train=3, anchored=anchored, purge=5)
    found = stretches(60, 800, how)
    assert len(found) == 6
    assert found[-1].test_end == 800
    for before, after in pairwise(found):
        assert after.test == before.test_end
    for stretch in found:
        assert stretch.train >= 60
        assert stretch.train_end == stretch.test - 5
    assert (found[-1].train == 60) is anchored


def test_too_short_a_range_to_walk_is_refused():
    with pytest.raises(NotEnoughBars, match="needs at least 2 bars in each stretch"):
        stretches(0, 20, WalkForward(windows=10))


def test_a_training_in_parts_chooses_the_same(monkeypatch: pytest.MonkeyPatch):
    found = study(top=1)
    whole = walk_forward.trained(found)
    monkeypatch.setattr(walk_forward, "_TOGETHER", 3)
    assert walk_forward.trained(found) == whole
    assert whole.number is not None


def test_each_test_trades_with_what_its_past_chose_and_nothing_later():
    found = study(walk_forward={"windows": 4})
    numbers = trial_numbers(found.space, found.request)
    how = found.request.walk_forward
    assert how is not None
    windows = list(walk(found, how))
    past = Study(
        found.bars[: windows[1].stretch.train_end],
        windows[1].stretch.train,
        found.strategy,
        found.space,
        found.request,
    )
    trials = past.screen(numbers)
    objective = objectives(trials, past.bars[past.first :], past.request)
    assert windows[1].number == trials.number[ranked(trials, objective, past.request)[0]]


def test_the_walks_equity_is_one_curve():
    found = study(walk_forward={"windows": 5}, min_trades=0)
    how = found.request.walk_forward
    assert how is not None
    windows = list(walk(found, how))
    shown = document(found, windows)
    growth = np.prod([1 + window.test_return for window in windows])
    assert shown["total_return"] == pytest.approx(growth - 1, rel=1e-12)
    assert shown["bars"] == sum(len(window.equity) for window in windows)
    assert len(shown["each"]) == 5
    assert 0 <= shown["consistency"] <= 1


@pytest.mark.parametrize(
    ("trained", "tested", "kept"),
    [
        (0.2, 0.11, 1.0),
        (0.2, 0.09, 0.0),
        (-0.4, -0.01, 0.0),
        (-0.4, 0.01, 0.0),
        (0.0, 0.01, 0.0),
        (None, 0.3, 0.0),
    ],
)
def test_a_training_that_lost_has_no_pace_to_keep(trained: float | None, tested: float, kept: float):
    found = study(walk_forward={"windows": 2})
    year = round(found.bars.periods_a_year)
    stretch = Stretch(0, 1, 2, 2 + year)
    window = Window(stretch, 1, 1, 0, None, trained, tested, 1, np.full(year, 10_000.0 * (1 + tested)))
    assert document(found, [window])["robustness"] == kept


class Peeking(Strategy):
    """Looks one bar ahead at level 2 and 3 alone."""

    name = "peeking"
    level: int = 1

    def targets(self, bars: Bars, first: int = 0) -> Floats:
        ahead = np.append(bars.close[1:], bars.close[-1]) if self.level in (2, 3) else bars.close
        return (ahead > bars.close).astype(float)


def test_not_the_best_alone_is_tried_for_look_ahead():
    found = study(Peeking, space={"level": [1, 2, 3, 4, 5, 6]})
    assert require_causal_best(found, [0, 3, 4]) == 3
    with pytest.raises(Refused, match=r"it looks into the future.*\(of \{'level': 3\}\)"):
        require_causal_best(found, [0, 3, 4, 5, 2])
    assert require_causal_best(found, [0, 3, 4, 5, 0, 2]) == 5, "which bounds the cost"
    assert require_causal_best(study(), [0, 1]) == 0, "our own are proven"
