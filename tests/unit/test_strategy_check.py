"""The check of a strategy finds each thing that can be wrong, where it is, and nothing where nothing is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import Field, model_validator

from gpt_trader.backtesting.other_futures import COLUMNS, other_column, other_future
from gpt_trader.backtesting.strategy_check import check_strategy, count_entries
from gpt_trader.strategies import registry, user
from gpt_trader.strategies.base import Strategy
from tests.bars_factory import bars_of
from tests.sample_bars import sample_bars

AAPL = sample_bars("AAPL", start="2004-01-01", end="2009-12-31")


def found(strategy: Strategy, bars: Any = AAPL, first: int = 0) -> list[tuple[str, str, str | None]]:
    """Return check, severity and column of each finding."""
    return [(f.check, f.severity, f.column) for f in check_strategy(strategy, bars, first).findings]


def message(strategy: Strategy, bars: Any = AAPL, first: int = 0) -> str:
    (finding,) = check_strategy(strategy, bars, first).findings
    return finding.message


class Rises(Strategy):
    """In after a close above the one before: sound, and the base of what is not."""

    name = "rises"

    @property
    def warmup(self):
        return 2

    def wanted(self, bars: Any) -> Any:
        rises = np.zeros(len(bars))
        rises[1:] = bars.close[1:] > bars.close[:-1]
        return rises

    def targets(self, bars, first=0):
        wanted = np.array(self.wanted(bars), dtype=float)
        wanted[:first] = 0
        return wanted


@pytest.mark.parametrize("name", registry.strategy_names())
@pytest.mark.parametrize("direction", ["long", "both"])
@pytest.mark.parametrize("first", [0, 200])
def test_our_own_strategies_are_sound(name, direction, first):
    strategy = registry.build(registry.strategy_type(name), {}, direction)
    check = check_strategy(strategy, AAPL, first)
    assert (check.verdict, check.findings) == ("ok", ()), str(check)
    assert check.entries > 0
    assert check.cuts == 64
    assert check.warmup.suffices
    assert check.warmup.stable_from == strategy.warmup
    assert (check.bars, check.history) == (len(AAPL) - first, first)


def test_a_sound_strategy_on_a_few_bars():
    check = check_strategy(Rises(), AAPL[:9], 5)
    assert (check.verdict, check.warmup.suffices) == ("ok", True)
    one = check_strategy(Rises(), AAPL[:1], 0)
    assert {f.check: f.severity for f in one.findings} == {"activity": "warning", "warm-up": "note"}
    assert one.verdict == "ok"


# Look-ahead.


@pytest.mark.parametrize("column", COLUMNS)
def test_look_ahead_names_the_column_and_the_first_bar(column):
    class Tomorrows(Rises):
        def wanted(self, bars):
            values = getattr(bars, column)
            rises = np.zeros(len(bars))
            rises[:-1] = values[1:] > values[:-1]
            return rises

    check = check_strategy(Tomorrows(), AAPL, 100)
    assert check.verdict == "problems"
    (finding,) = [f for f in check.findings if f.check == "look-ahead"]
    assert finding.column == column
    assert finding.bar == f"{AAPL.time[100].astype('datetime64[s]')}Z" or finding.bar > "2004-05"
    assert f"it reads the {column} of bars to come" in finding.message
    assert check.warmup is None, "with the future in them, histories cannot be compared"


def test_several_columns_are_each_named():
    class Middle(Rises):
        def wanted(self, bars):
            middle = (bars.high + bars.low) / 2
            return np.append(middle[1:] > middle[:-1], False)

    assert {c for check, _, c in found(Middle()) if check == "look-ahead"} == {"high", "low"}


def test_the_mean_of_the_whole_series_is_the_future():
    class Hindsight(Rises):
        def wanted(self, bars):
            return bars.close < bars.close.mean()

    assert found(Hindsight()) == [("look-ahead", "error", "close")]


def test_a_wrapped_shift_is_the_future():
    class Wrapped(Rises):
        def wanted(self, bars):
            return np.roll(bars.close, -1) > bars.close

    assert found(Wrapped()) == [("look-ahead", "error", "close")]


def test_a_future_that_hides_from_cuts_shows_in_other_prices():
    """It knows by heart what to say where history ends early; only other prices behind a bar give it away."""

    def rises_in_five(bars):
        return np.append(bars.close[5:] > bars.close[:-5], np.zeros(5))

    by_heart = rises_in_five(AAPL)

    class Sneaky(Rises):
        def wanted(self, bars):
            return rises_in_five(bars) if len(bars) == len(AAPL) else by_heart[: len(bars)]

    (finding,) = check_strategy(Sneaky(), AAPL, 0).findings
    assert (finding.check, finding.column) == ("look-ahead", "close")


def test_how_many_bars_are_to_come_is_the_future_too():
    class Countdown(Rises):
        def wanted(self, bars):
            return np.arange(len(bars)) < len(bars) - 30

    (finding,) = check_strategy(Countdown(), AAPL, 0).findings
    assert (finding.check, finding.column) == ("look-ahead", None)


@pytest.mark.parametrize("column", COLUMNS)
def test_other_futures_are_valid_bars_with_the_same_past(column):
    for other in (
        other_future(AAPL, 700, 2.0),
        other_future(AAPL, 700, 0.5),
        other_column(AAPL, 700, column),
    ):
        for name in COLUMNS:
            assert (getattr(other, name)[:700] == getattr(AAPL, name)[:700]).all()
        later = other[700:]
        slack = 1 + 1e-9
        assert (later.low <= np.minimum(later.open, later.close) * slack).all()
        assert (np.maximum(later.open, later.close) <= later.high * slack).all()
        assert (later.volume >= 0).all()
        assert (other.time == AAPL.time).all()
    changed = [n for n in COLUMNS if (getattr(other, n)[700:] != getattr(AAPL, n)[700:]).mean() > 0.9]
    assert changed == [column]


# Warm-up.


class AboveEma(Rises):
    name = "above_ema"
    period: int = 20
    declared: int = 20

    @property
    def warmup(self):
        return self.declared

    def wanted(self, bars):
        from gpt_trader import technical

        return bars.close > technical.ema(bars, self.period)


def test_an_ema_that_declares_its_period_alone_is_found():
    check = check_strategy(AboveEma(), AAPL, 0)
    (finding,) = check.findings
    assert (finding.check, finding.severity) == ("warm-up", "error")
    assert finding.bar is not None
    assert "the declared warm-up of 20 bars is too short" in finding.message
    assert check.warmup.suffices is False
    assert check.warmup.stable_from in (100, 200)
    assert [length.bars for length in check.warmup.lengths] == [20, 40, 100, 200, 400]
    assert check.warmup.lengths[0].differing > check.warmup.lengths[1].differing > 0
    assert check.warmup.lengths[0].largest == 1


def test_an_ema_that_declares_what_technical_says_is_not():
    from gpt_trader import technical

    enough = technical.warmup_of("EMA", timeperiod=20)
    assert found(AboveEma(declared=enough)) == []


def test_a_window_longer_than_declared_is_found_with_the_length_that_is_enough():
    class Patient(Rises):
        @property
        def warmup(self):
            return 10

        def wanted(self, bars):
            from gpt_trader.indicators import sma

            return bars.close > sma(bars.close, 45)

    check = check_strategy(Patient(), AAPL, 0)
    assert [f.check for f in check.findings] == ["warm-up"]
    assert check.warmup.stable_from == 50


def test_a_total_since_the_first_bar_is_never_stable():
    class Total(Rises):
        def wanted(self, bars):
            from gpt_trader import technical

            return technical.obv(bars) > 0

    check = check_strategy(Total(), AAPL, 0)
    assert check.warmup.stable_from is None
    assert "depends on all history" in check.findings[0].message


def test_a_state_carried_over_from_before_the_range_is_found():
    class Carried(Rises):
        """Toggles at each large fall, from its first bar on instead of from `first` on."""

        def wanted(self, bars):
            falls = np.zeros(len(bars))
            falls[1:] = bars.close[1:] < 0.97 * bars.close[:-1]
            return np.cumsum(falls) % 2

    assert ("warm-up", "error", None) in found(Carried())


@pytest.mark.parametrize("warmup", [0, -1, 2.0, "20", None, True])
def test_a_warm_up_that_is_no_number_of_bars_is_found(warmup):
    class Odd(Rises):
        @property
        def warmup(self):
            return warmup

    assert f"warmup is {warmup!r}; allowed: a whole number of bars" in message(Odd())


def test_numpys_whole_numbers_are_bars():
    class Numpy(Rises):
        @property
        def warmup(self):
            return np.int64(2)

    assert found(Numpy()) == []


# Determinism.


def test_a_random_strategy_is_found_and_nothing_else_is_tried():
    class Moody(Rises):
        def wanted(self, bars):
            return np.random.default_rng().integers(0, 2, len(bars))

    check = check_strategy(Moody(), AAPL, 0)
    assert [(f.check, f.severity) for f in check.findings] == [("determinism", "error")]
    assert (check.verdict, check.cuts, check.warmup) == ("problems", 0, None)


def test_one_that_remembers_other_calls_is_found():
    seen: list[int] = []

    class Remembers(Rises):
        def wanted(self, bars):
            seen.append(len(bars))
            return np.full(len(bars), len(set(seen)) % 2)

    assert [check for check, _, _ in found(Remembers())] == ["determinism"]


def test_one_that_changes_the_bars_is_found():
    close = np.array(AAPL.close)
    bars = bars_of(close)

    class Changes(Rises):
        def wanted(self, bars):
            base = bars.close
            while base.base is not None:
                base = base.base
            base[-1] *= 1.5
            return np.zeros(len(bars))

    assert "changes the bars that it is given" in message(Changes(), bars)


def test_one_that_writes_into_its_bars_is_told_its_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from gpt_trader.strategies.base import Strategy\n\n\n"
        "class Mine(Strategy):\n"
        "    def targets(self, bars, first=0):\n"
        "        bars.close[0] = 1\n"
    )
    said = message(user.load_file(path, "Mine")())
    assert said.startswith("line 6, in targets: `bars.close[0] = 1`: ValueError: assignment destination")


# What raises, what is no target.


def test_what_raises_somewhere_below_is_told_by_the_last_line_of_the_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\nfrom gpt_trader.strategies.base import Strategy\n\n\n"
        "class Mine(Strategy):\n"
        "    def targets(self, bars, first=0):\n"
        "        return self.mean(bars)\n\n"
        "    def mean(self, bars):\n"
        "        return np.reshape(bars.close, (3, 7, 11))\n"
    )
    check = check_strategy(user.load_file(path, "Mine")(), AAPL, 0)
    (finding,) = check.findings
    assert (finding.check, finding.severity, check.verdict) == ("runs", "error", "problems")
    assert "line 10, in mean: `return np.reshape(bars.close, (3, 7, 11))`: ValueError" in finding.message
    assert f"with {len(AAPL)} bars of history" in finding.message


def test_one_that_wants_more_history_than_there_is_raises_on_a_cut():
    class Greedy(Rises):
        def wanted(self, bars):
            bars.close[49]
            return super().wanted(bars)

    said = message(Greedy())
    assert "IndexError" in said
    assert "bars of history" in said


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda bars: np.zeros(len(bars) - 1), "returned shape"),
        (lambda bars: None, "returned None for"),
        (lambda bars: ["in"] * len(bars), "returned list, not numbers"),
        (lambda bars: 1.0, "returned shape ()"),
    ],
)
def test_what_is_no_number_a_bar_is_found(returned, said):
    class Odd(Rises):
        def targets(self, bars, first=0):
            return returned(bars)

    (finding,) = check_strategy(Odd(), AAPL, 0).findings
    assert finding.check == "targets"
    assert said in finding.message


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.5, 2.0])
def test_what_is_beyond_a_position_is_found_with_its_bar(value):
    class Odd(Rises):
        def wanted(self, bars):
            wanted = np.array(super().wanted(bars), dtype=float)
            wanted[7:9] = value
            return wanted

    (finding,) = [f for f in check_strategy(Odd(), AAPL, 0).findings if "no finite number" in f.message]
    assert (finding.check, finding.bar) == ("targets", "2004-01-13T00:00:00Z")
    assert "and 2 in all" in finding.message


def test_a_position_before_the_range_is_found():
    class Early(Strategy):
        name = "early"

        def targets(self, bars, first=0):
            return np.ones(len(bars))

    assert found(Early(), AAPL, 50)[0] == ("targets", "error", None)


def test_a_side_that_was_not_asked_for_is_a_warning():
    class Short(Rises):
        def wanted(self, bars):
            return -super().wanted(bars)

    assert ("targets", "warning", None) in found(Short())
    assert found(Short(direction="short")) == []


# Parameters, activity.


class Tuned(Rises):
    name = "tuned"
    search_space = {"fast": (5, 10), "slow": (10, 20, 40)}

    fast: int = Field(default=5, ge=1)
    slow: int = Field(default=20, le=50)

    @model_validator(mode="after")
    def _in_order(self):
        if self.fast >= self.slow:
            raise ValueError("fast must be below slow")
        return self


def test_a_search_space_whose_values_are_all_taken_is_sound():
    """slow=10 is refused with fast=10, and taken with fast=5."""
    assert found(Tuned()) == []


@pytest.mark.parametrize(
    ("space", "severity", "said"),
    [
        ({"fast": (0, 5)}, "error", "fast=0, which is never taken: Input should be greater than or equal"),
        ({"slow": (3, 20)}, "error", "slow=3, which is never taken: fast must be below slow"),
        ({"fast": ("many", 5)}, "error", "fast='many', which is never taken"),
        ({"fats": (5,)}, "error", "names 'fats', which is no parameter; there are: fast, slow"),
        ({"slow": (30, 40)}, "warning", "the default slow=20 is outside of its search space 30 to 40"),
    ],
)
def test_a_wrong_search_space_is_found(space, severity, said):
    class Wrong(Tuned):
        search_space = space

    (finding,) = check_strategy(Wrong(), AAPL, 0).findings
    assert (finding.check, finding.severity) == ("params", severity)
    assert said in finding.message


def test_a_parameter_without_a_default_is_no_problem():
    class Required(Tuned):
        name = "required"
        search_space = {"fast": (1, 5)}
        gate: str

    assert found(Required(gate="x")) == []


def test_zero_trades_are_said():
    class Never(Rises):
        def wanted(self, bars):
            return np.zeros(len(bars))

    check = check_strategy(Never(), AAPL, 0)
    assert (check.verdict, check.entries) == ("ok", 0)
    assert [(f.check, f.severity) for f in check.findings] == [("activity", "warning")]
    assert "zero trades" in check.findings[0].message


@pytest.mark.parametrize(
    ("targets", "entries"),
    [
        ([0, 0, 0], 0),
        ([1, 1, 1], 1),
        ([0, 1, 0, 1, 0], 2),
        ([1, -1, 1, 0], 3),
        ([0.2, 0.5, 0], 1),
        ([0, 0, 1], 0),
        ([np.nan, 1, 0], 1),
    ],
)
def test_entries_count_sides_that_can_be_filled(targets, entries):
    assert count_entries(np.array(targets, dtype=float)) == entries


def test_the_document_reads_as_lines():
    class Tomorrow(Rises):
        def wanted(self, bars):
            return np.append(bars.close[1:] > bars.close[:-1], False)

    lines = str(check_strategy(Tomorrow(), AAPL, 0, shown_as="mine")).splitlines()
    assert lines[0] == "mine on AAPL: problems"
    assert lines[1].startswith("error (look-ahead: 2004-")
    assert ", close): it reads the close" in lines[1]
