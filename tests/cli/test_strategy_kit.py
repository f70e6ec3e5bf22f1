"""`strategy new`, `strategy check` and `backtest --watch` against a server that speaks the contract."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpt_trader.strategies.user import stored_id
from tests.cli.conftest import Command, environment
from tests.cli.contract_server import Contract
from tests.waiting import eventually


@pytest.fixture
def mine(tmp_path: Path, cli: Command) -> Path:
    """A scaffolded strategy's file."""
    assert cli("strategy", "new", "mine", "--folder", tmp_path / "work").code == 0
    return tmp_path / "work" / "mine.py"


def test_new_writes_a_strategy_and_its_test_and_says_what_next(cli: Command, tmp_path: Path) -> None:
    folder = tmp_path / "a folder" / "deep"
    made = cli("strategy", "new", "my-trend", "--folder", folder)
    assert (made.code, made.err) == (0, "")
    assert sorted(path.name for path in folder.iterdir()) == ["my_trend.py", "test_my_trend.py"]
    assert "class MyTrend(Strategy):" in (folder / "my_trend.py").read_text()
    assert f"gpt-trader strategy check '{folder}/my_trend.py'" in made.out
    assert f"gpt-trader backtest --strategy '{folder}/my_trend.py' --symbol AAPL" in made.out


def test_new_is_for_scripts_too_and_writes_into_the_current_folder(process: Command, tmp_path: Path) -> None:
    made = process("--output json strategy new trend_2", cwd=tmp_path)
    assert (made.code, made.err) == (0, "")
    told = json.loads(made.out)
    assert (told["strategy"], told["file"], told["test_file"]) == ("Trend2", "trend_2.py", "test_trend_2.py")
    assert told["next"]["check"] == "gpt-trader strategy check ./trend_2.py"
    assert (tmp_path / "trend_2.py").is_file()


@pytest.mark.parametrize("taken", ["my_trend.py", "test_my_trend.py"])
def test_new_overwrites_nothing(cli: Command, tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    refused = cli("strategy", "new", "my-trend", "--folder", tmp_path)
    assert (refused.code, refused.out) == (2, "")
    assert f"{tmp_path / taken} exists already" in refused.err
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("My Trend", "my-trend"), ("MyTrend", "my-trend"), ("class", "my-class"), ("momentum", "my-momentum"),
     ("random", "my-random"), ("numpy", "my-numpy"), ("9lives", "lives"), ("../up", "up"), ("épée", "epee")],
)  # fmt: skip
def test_new_refuses_a_bad_name_with_the_nearest(
    cli: Command, tmp_path: Path, name: str, nearest: str
) -> None:
    refused = cli("strategy", "new", name, "--folder", tmp_path / "none")
    assert refused.code == 2
    assert f"did you mean '{nearest}'?" in refused.err
    assert not (tmp_path / "none").exists()


def test_new_into_a_file_or_a_place_without_permission(cli: Command, mine: Path) -> None:
    refused = cli("strategy", "new", "other", "--folder", mine)
    assert (refused.code, "is a file, not a folder" in refused.err) == (2, True)
    refused = cli("strategy", "new", "other", "--folder", mine / "below")
    assert refused.code != 0
    assert "Traceback" not in refused.err


def test_check_shows_verdict_findings_and_lengths(server: Contract, cli: Command) -> None:
    shown = cli(
        "strategy check ma_crossover --symbol msft --param fast=5 --start 2005-01-03 --direction both"
    )
    assert (shown.code, shown.err) == (0, ""), "problems are an answer"
    assert "verdict: problems" in shown.out
    assert "error (look-ahead) 2005-01-04T00:00:00Z, close: it reads the close" in shown.out
    assert "warm-up 20 bars: too short, stable from 100 on" in shown.out
    assert "MSFT  ma_crossover(fast=5)" in shown.out
    assert server.asked == [("POST", "/api/v1/strategies/ma_crossover/check")]
    assert server.bodies == [
        {"symbol": "MSFT", "start": "2005-01-03", "direction": "both", "params": {"fast": 5}}
    ]


def test_check_for_scripts(server: Contract, cli: Command) -> None:
    found = json.loads(cli("--output json strategy check momentum").out)
    assert (found["verdict"], found["symbol"], found["warmup"]["stable_from"]) == ("problems", "AAPL", 100)
    rows = list(csv.DictReader(io.StringIO(cli("--output csv strategy check momentum").out)))
    assert rows[0]["column"] == "close"


@pytest.mark.parametrize("word", ["{}", "{}:Mine"])
def test_check_sends_the_file_and_asks_by_its_hash(
    server: Contract, cli: Command, mine: Path, word: str
) -> None:
    found = json.loads(cli("--output", "json", "strategy", "check", word.format(mine)).out)
    assert server.strategies == {"mine.py": mine.read_text()}
    assert found["strategy"] == stored_id(mine.read_bytes(), "Mine")


def test_check_ingests_what_the_lake_lacks(server: Contract, cli: Command) -> None:
    server.lacking = {"AAPL"}
    shown = cli("strategy check momentum")
    assert shown.code == 0, shown.err
    assert "AAPL is not in the lake as 1d bars: ingesting it first" in shown.err
    (run,) = server.runs.values()
    assert (run.flow, run.request["symbols"], run.request["timeframes"]) == ("data", ["AAPL"], ["1d"])


def test_check_of_an_old_snapshot_ingests_nothing(server: Contract, cli: Command) -> None:
    server.lacking = {"AAPL"}
    refused = cli("strategy check momentum --as-of 2020-01-01")
    assert (refused.code, "AAPL" in refused.err, server.runs) == (2, True, {})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("momentun", "did you mean 'momentum'?"),
        ("momentum --param lokback=5", "did you mean 'lookback'?"),
        ("momentum --param lookback=0", "greater than or equal to 1"),
        ("momentum --timeframe 1day", "did you mean '1d'?"),
        ("momentum --start 2012-01-02 --end 2005-01-02", "start 2012-01-02 is after end 2005-01-02"),
        ("momentum --symbol ../x", "a symbol is 1 to 32 letters"),
        ("./nowhere.py", "names no class"),
        ("./nowhere.py:Mine", "does not exist"),
    ],
)
def test_check_refuses_wrong_input_before_anything_is_sent(
    server: Contract, cli: Command, words: str, said: str
) -> None:
    refused = cli(f"strategy check {words}")
    assert (refused.code, refused.out, server.asked) == (2, "", [])
    assert said in refused.err


def test_a_file_that_defines_several_strategies_must_be_told_which(
    server: Contract, cli: Command, mine: Path
) -> None:
    mine.write_text(mine.read_text() + "\n\nclass Second(Strategy):\n    pass\n")
    refused = cli("strategy", "check", mine)
    assert refused.code == 2
    assert f"it defines {mine}:Mine, {mine}:Second" in refused.err


@dataclass(frozen=True)
class Watch:
    """A watch that goes on, and what it has written so far."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def await_rounds(self, count: int) -> str:
        eventually(lambda: self.said().count(": save it to run again") >= count, what=f"round {count}")
        return self.said()

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)


@contextmanager
def watching(path: Path, *words: str) -> Iterator[Watch]:
    # A child of a background job ignores SIGINT: a terminal's child does not.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from cli.main import app; "
    given = ["backtest", "--strategy", path.name, "--watch", *(words or ("--symbol", "AAPL"))]
    log = path.with_name("log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"{code}sys.exit(app())", *given],
            cwd=path.parent, env=environment(), stdout=out, stderr=out,
        )  # fmt: skip
    try:
        yield Watch(process, log)
    finally:
        process.kill()
        process.wait(10)


def test_watch_runs_again_after_each_change_and_shows_the_run_before(server: Contract, mine: Path) -> None:
    with watching(mine) as watch:
        first = watch.await_rounds(1)
        assert "50.00 %" in first
        assert "run before" not in first
        mine.write_text(mine.read_text().replace("default=100", "default=50"))
        assert "run before" in watch.await_rounds(2)[len(first) :]
        one, two = server.runs.values()
        assert one.request["strategy"] != two.request["strategy"]
        assert (one.request["report"], two.request["report"]) == (False, False)
        assert watch.end() == 0
        assert "no longer watching" in watch.said()


def test_watch_goes_on_after_an_error_in_the_file(server: Contract, mine: Path) -> None:
    good = mine.read_text()
    mine.write_text("def broken(:\n")
    with watching(mine) as watch:
        assert "line 1" in watch.await_rounds(1)
        assert server.runs == {}
        replaced = mine.with_suffix(".new")
        replaced.write_text(good)
        replaced.replace(mine)  # as many an editor saves
        assert "total return" in watch.await_rounds(2)
        assert len(server.runs) == 1
        assert watch.end() == 0


def test_a_file_that_is_only_touched_runs_nothing(server: Contract, mine: Path) -> None:
    with watching(mine) as watch:
        watch.await_rounds(1)
        mine.touch()
        mine.write_text(mine.read_text().replace("default=100", "default=60"))
        watch.await_rounds(2)
        assert len(server.runs) == 2
        assert watch.end() == 0


def test_an_interrupt_during_a_watched_run_cancels_it(server: Contract, mine: Path) -> None:
    with watching(mine, "--symbol", "SLOW") as watch:
        eventually(lambda: server.resumed_after, what="the run is followed")
        assert watch.end() == 130
    (run,) = server.runs.values()
    assert run.state == "CANCELLED"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--strategy momentum --symbol AAPL", "watch: is for a strategy file"),
        ("--symbol AAPL", "watch: is for a strategy file"),
        ("--strategy ./nowhere.py --symbol AAPL", "there is no file"),
        ("--strategy ./nowhere.py:Mine --symbol AAPL", "there is no file"),
        ("--strategy {} ", "symbol: is missing"),
        ("--strategy {} --symbol AAPL --capital 0", "capital: Input should be greater than 0"),
        ("--strategy {} --symbol AAPL --output json", "leave --output out"),
        ("--strategy {} --symbol AAPL --in-process", "leave --in-process out"),
        ("--strategy {} --symbol AAPL --open-report", "leave --open-report out"),
    ],
)
def test_watch_refuses_what_it_cannot_do(
    server: Contract, cli: Command, mine: Path, words: str, said: str
) -> None:
    refused = cli(f"backtest --watch {words.format(mine)}")
    assert (refused.code, refused.out, server.asked) == (2, "", [])
    assert said in refused.err
