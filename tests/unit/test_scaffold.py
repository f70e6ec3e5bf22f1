"""A scaffold works at once, and its test fails when the strategy is made to look ahead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_trader.backtesting.strategy_check import check_strategy
from gpt_trader.errors import Refused, UnknownName
from gpt_trader.strategies import user
from gpt_trader.strategies.scaffold import scaffold
from gpt_trader.testing import assert_sound, bars_of, load_strategy, sample_bars
from tests import sample_bars as samples

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    files = scaffold("my-trend")
    (tmp_path / files.file).write_text(files.source)
    (tmp_path / files.test_file).write_text(files.test)
    return tmp_path / files.file


def pytest_beside(path: Path) -> subprocess.CompletedProcess[str]:
    """Run the test as a person does, with nothing of ours but the package."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        f"test_{path.name}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        command, cwd=path.parent, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_its_test_passes(made: Path) -> None:
    done = pytest_beside(made)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_its_test_fails_when_it_looks_ahead(made: Path) -> None:
    honest = "bars.close > average"
    assert honest in made.read_text()
    made.write_text(made.read_text().replace(honest, "np.roll(bars.close, -1) > average"))
    done = pytest_beside(made)
    assert done.returncode == 1
    assert "it reads the close of bars to come" in done.stdout


def test_its_test_fails_when_its_warm_up_is_too_short(made: Path) -> None:
    made.write_text(made.read_text().replace("return self.period", "return 2"))
    done = pytest_beside(made)
    assert done.returncode == 1
    assert "the declared warm-up of 2 bars is too short" in done.stdout


@pytest.mark.parametrize("direction", ["long", "short", "both"])
@pytest.mark.parametrize("symbol", ["AAPL", "MSFT"])
def test_it_is_sound_whatever_is_asked(made: Path, symbol: str, direction: str) -> None:
    strategy = user.load_file(made, "MyTrend")(direction=direction)
    assert check_strategy(strategy, sample_bars(symbol), 0).findings == ()


def test_its_one_class_needs_no_name(made: Path) -> None:
    assert user.split_reference(str(made)) == (made, "MyTrend")


def test_a_class_that_is_a_base_is_not_the_one(made: Path) -> None:
    made.write_text(
        "from gpt_trader.strategies import base\n\n\n"
        "class Shared(base.Strategy):\n    pass\n\n\nclass Other:\n    pass\n\n\nclass Final(Shared):\n    pass\n"
    )
    assert user.split_reference(str(made))[1] == "Final"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\n", r"names no class: write it as \./mine\.py:MyStrategy$"),
        ("class A(Strategy): ...\nclass B(Strategy): ...\n", r"it defines .*:A, .*:B"),
        ("def f(:\n", "line 1, is not Python"),
    ],
)
def test_a_file_that_does_not_say_which_is_refused(made: Path, source: str, said: str) -> None:
    made.write_text(source)
    with pytest.raises(Refused, match=said):
        user.split_reference(str(made))


def test_names_become_files_and_classes() -> None:
    files = scaffold("rsi-2-bands")
    assert (files.file, files.test_file, files.class_name) == (
        "rsi_2_bands.py",
        "test_rsi_2_bands.py",
        "Rsi2Bands",
    )
    assert 'name = "rsi_2_bands"' in files.source


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("", "strategy"),
        ("Ünder Wäter", "under-water"),
        ("_x", "x"),
        ("a__b", "a-b"),
        ("x" * 50, "x" * 40),
        ("test_it", "it"),
        ("ma-crossover", "my-ma-crossover"),
        ("123", "strategy"),
        ("match", "my-match"),
        ("gpt_trader", "my-gpt-trader"),
        ("日本", "strategy"),
    ],
)
def test_a_bad_name_is_refused_with_a_nearest_that_is_taken(name: str, nearest: str) -> None:
    with pytest.raises(Refused) as refusal:
        scaffold(name)
    (problem,) = refusal.value.problems
    assert (problem.field, problem.value, problem.nearest) == ("name", name, nearest)
    assert scaffold(nearest).name == nearest.replace("-", "_")


def test_the_bars_for_tests_are_those_of_the_sample_source() -> None:
    mine, ours = sample_bars("aapl"), samples.sample_bars("AAPL")
    assert mine.close == pytest.approx(ours.close)
    with pytest.raises(UnknownName):
        sample_bars("ACME")
    made_up = bars_of([1, 2, 1.5])
    assert made_up.open.tolist() == [1, 1, 2]
    assert made_up.high.tolist() == [1, 2, 2]


def test_assert_sound_tells_all_that_is_wrong(made: Path) -> None:
    strategy = load_strategy(made, "MyTrend")
    assert_sound(strategy(), sample_bars("IBM"))
    assert_sound(strategy(period=3), bars_of([10, 11, 12, 9, 8, 11, 12, 13, 9, 8]))
    with pytest.raises(AssertionError, match=r"warning \(activity\): no position is ever taken"):
        assert_sound(strategy(period=30), bars_of([10.0] * 300))
