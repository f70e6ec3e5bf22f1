"""`optimize` against a server that speaks the contract: options, spaces, resuming, and what is written."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpt_trader.strategies.user import stored_id
from tests.cli.conftest import Command
from tests.cli.contract_server import METRICS, Contract

AAPL = "optimize --symbol AAPL --strategy ma_crossover"

STRATEGY = """
from gpt_trader.strategies.base import Strategy

class Mine(Strategy):
    label: str = "a"
    n: int = 3

    def targets(self, bars, first=0):
        import numpy as np
        return np.zeros(len(bars))
"""


def test_the_contract_for_scripts(server: Contract, process: Command) -> None:
    done = process(
        "--output json optimize --symbol AAPL --strategy ma_crossover --method grid --objective total_return "
        "--start 2005-01-03 --end 2012-12-31 --commission 0.001 --slippage 0 --capital 10000"
    )
    assert (done.code, done.err) == (0, "")
    (run,) = server.runs.values()
    result = json.loads(done.out)
    assert result["run_id"] == run.id
    assert result["trials"].keys() == {"run", "skipped", "failed"}
    assert server.bodies[0] == {
        "symbol": "AAPL",
        "strategy": "ma_crossover",
        "method": "grid",
        "objective": "total_return",
        "start": "2005-01-03",
        "end": "2012-12-31",
        "commission": 0.001,
        "slippage": 0,
        "capital": 10000,
    }


def test_one_request_each_way(server: Contract, cli: Command) -> None:
    assert cli(f"--quiet {AAPL}").code == 0
    (run,) = server.runs
    assert server.asked == [
        ("POST", "/api/v1/strategies/optimize"),
        ("GET", f"/api/v1/workflows/runs/{run}/events"),
        ("GET", f"/api/v1/workflows/runs/{run}/result"),
    ]


def test_what_is_not_given_is_not_sent(server: Contract, cli: Command) -> None:
    assert cli("optimize --symbol aapl --no-report").code == 0
    assert server.bodies[0] == {"symbol": "AAPL", "strategy": "momentum", "report": False}


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("--method random --trials 50 --seed 7", {"method": "random", "trials": 50, "seed": 7}),
        ("--method tpe", {"method": "tpe"}),
        (
            "--method tpe --trials 400 --patience 100",
            {"method": "tpe", "trials": 400, "patience": 100},
        ),
        ("--min-trades 5 --max-drawdown 0.3 --top 3", {"min_trades": 5, "max_drawdown": 0.3, "top": 3}),
        ("--objective max_drawdown", {"objective": "max_drawdown"}),
        ("--walk-forward", {"walk_forward": {}}),
        (
            "--walk-forward --windows 4 --train 2.5 --anchored --purge 10 --embargo 20",
            {"walk_forward": {"windows": 4, "train": 2.5, "anchored": True, "purge": 10, "embargo": 20}},
        ),
        ("--as-of 2026-01-02", {"snapshot": "2026-01-02"}),
        ("--param slow=60", {"params": {"slow": 60}}),
        ("--stop-loss 0.05 --take-profit 2 --size 0.5", {"stop_loss": 0.05, "take_profit": 2, "size": 0.5}),
        (
            "--timeframe 1h --direction both --on-gaps refuse",
            {"timeframe": "1h", "direction": "both", "on_gaps": "refuse"},
        ),
    ],
)
def test_options_are_fields_of_the_request(
    server: Contract, cli: Command, words: str, fields: dict[str, Any]
) -> None:
    done = cli(f"{AAPL} {words}")
    assert done.code == 0, done.err
    assert server.bodies[0] == {"symbol": "AAPL", "strategy": "ma_crossover", **fields}


@pytest.mark.parametrize(
    ("words", "space"),
    [
        ("--space fast=5,10,20", {"fast": [5, 10, 20]}),
        ("--space fast=5", {"fast": [5]}),
        ("--space fast=5:20", {"fast": {"low": 5, "high": 20}}),
        (
            "--space fast=5:20:5 --space slow=30,60",
            {"fast": {"low": 5, "high": 20, "step": 5}, "slow": [30, 60]},
        ),
        ("--space 'fast= 5 , 10'", {"fast": [5, 10]}),
        ("--space 'fast=5 : 7'", {"fast": {"low": 5, "high": 7}}),
    ],
)
def test_a_space_is_lists_and_ranges(
    server: Contract, cli: Command, words: str, space: dict[str, Any]
) -> None:
    done = cli(f"{AAPL} {words}")
    assert done.code == 0, done.err
    assert server.bodies[0]["space"] == space


def test_fractions_stay_fractions(server: Contract, cli: Command) -> None:
    assert cli("optimize --symbol AAPL --space threshold=0.01:0.03:0.01 --space hold=5").code == 0
    assert server.bodies[0]["space"] == {
        "threshold": {"low": 0.01, "high": 0.03, "step": 0.01},
        "hold": [5],
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--space fast", "space: is not NAME=VALUE"),
        ("--space =5", "space: is not NAME=VALUE"),
        ("--space fast=", "space: is not NAME=VALUE"),
        ("--space fast=,", "space.fast: has no values"),
        ("--space fast=5 --space fast=10", "fast is given twice"),
        ("--space fast=5:", "space.fast: is neither a list nor low:high:step"),
        ("--space fast=a:b", "space.fast: is neither a list nor low:high:step"),
        ("--space fast=true:false", "space.fast: is neither a list nor low:high:step"),
        ("--space fast=1:2:3:4", "space.fast: is neither a list nor low:high:step"),
        ("--space fast=20:5", "low 20 is above high 5"),
        ("--space fast=5:20:0", "space.fast.step: Input should be greater than 0"),
        ("--space fast=5:20:-5", "space.fast.step: Input should be greater than 0"),
        ("--space fast=1:inf", "space.fast.high: Input should be a finite number"),
        ("--space fast=nan", "space.fast.0: Input should be a finite number"),
        (f"--space fast=1:1{'0' * 400}", "space.fast: has more than 250,000 values"),
        ("--space fast=1:500 --space slow=501:1001", "space: has 250,500 combinations"),
        ("--space fats=5", "space.fats: 'fats' is not known; allowed: fast, slow; did you mean 'fast'?"),
        ("--space fast=five", "space.fast: Input should be a valid integer"),
        ("--space fast=5,0", "space.fast: Input should be greater than or equal to 1"),
        ("--space direction=long", "space.direction: 'direction' is not known"),
        ("--param slo=5", "params.slo: 'slo' is not known; allowed: fast, slow; did you mean 'slow'?"),
        ("--param slow=many", "params.slow: Input should be a valid integer"),
        ("--param slow=60 --space slow=60,70", "slow is both fixed by params and searched by space"),
        ("--param slow=60 --param fast=5", "space: names nothing to search"),
        ("--trials 10", "trials is for method random or tpe"),
        ("--patience 10", "patience is for method random or tpe"),
        ("--method tpe --patience 0", "patience: Input should be greater than or equal to 1"),
        ("--method tpe --patience soon", "patience: Input should be a valid integer"),
        ("--method tpe --trials 9000", "trials 9,000 are more than tpe takes"),
        ("--method random --trials 0", "trials: Input should be greater than or equal to 1"),
        ("--method bayes", "'grid', 'random', 'tpe'"),
        ("--objective sharp", "did you mean 'sharpe'?"),
        ("--top 0", "top: Input should be greater than or equal to 1"),
        ("--max-drawdown 1.5", "max_drawdown: Input should be less than or equal to 1"),
        ("--min-trades -1", "min_trades: Input should be greater than or equal to 0"),
        ("--windows 4", "windows: is for walking forward: add --walk-forward"),
        ("--train 2", "train: is for walking forward: add --walk-forward"),
        ("--anchored", "anchored: is for walking forward: add --walk-forward"),
        ("--purge 5", "purge: is for walking forward: add --walk-forward"),
        ("--embargo 5", "embargo: is for walking forward: add --walk-forward"),
        ("--walk-forward --embargo -5", "walk_forward.embargo: Input should be greater than or equal to 0"),
        ("--walk-forward --windows 1", "walk_forward.windows: Input should be greater than or equal to 2"),
        ("--walk-forward --train nan", "walk_forward.train"),
        ("--strategy momentun", "did you mean 'momentum'?"),
        ("--start 2012-01-02 --end 2005-01-02", "start 2012-01-02 is after end 2005-01-02"),
        ("--sybmol MSFT", "--sybmol"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_sent(
    server: Contract, cli: Command, words: str, said: str
) -> None:
    refused = cli(f"{AAPL} {words}")
    assert (refused.code, refused.out) == (2, "")
    assert said in " ".join(refused.err.split())
    assert "Traceback" not in refused.err
    assert server.asked == []


def test_a_symbol_is_needed(server: Contract, cli: Command) -> None:
    refused = cli("--output json optimize --strategy ma_crossover")
    assert (refused.code, refused.out) == (2, "")
    assert json.loads(refused.err)["problems"][0]["field"] == "symbol"
    assert server.asked == []


def test_a_remote_server_may_know_strategies_that_we_do_not(remote: Contract, cli: Command) -> None:
    done = cli("--output json optimize --symbol AAPL --strategy theirs --space edge=1,2 --param side=left")
    assert done.code == 0, done.err
    assert remote.bodies[0]["space"] == {"edge": [1, 2]}
    assert remote.bodies[0]["params"] == {"side": "left"}


def test_a_table_tells_that_a_search_stopped_early(server: Contract, cli: Command) -> None:
    shown = cli(f"{AAPL} --method tpe --patience 10 --walk-forward --embargo 20")
    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[2].strip() == (
        "stopped early, after 16 of 200 trials: none after trial 6 was better (patience 10)"
    )
    assert "walk-forward, 8 windows (rolling, embargo 20)" in shown.out
    assert "AAPL ma_crossover 0123456789abcdef" in shown.out
    plain = cli(AAPL)
    assert "stopped" not in plain.out
    assert "Optuna" not in plain.out


def test_a_table_tells_the_verdict_first(server: Contract, cli: Command) -> None:
    shown = cli(f"{AAPL} --walk-forward")
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert lines[0].strip() == "AAPL  ma_crossover"
    assert "13 combinations tried, 2 skipped, 1 failed; 12 verified by vectorbt" in lines[1]
    said = [line.strip() for line in lines]
    verdict = said.index("verdict: reject")
    assert "more than luck is 93%" in said[verdict + 1]
    heading = next(at for at, line in enumerate(said) if line.startswith("parameters"))
    assert verdict < heading
    assert "sharpe" in said[heading]
    first = said[heading + 2]
    assert first.startswith("fast=10, slow=30")
    assert "50.00 %" in first
    assert "42" in first
    assert "2 not run: params: fast 20 must be below slow 20" in shown.out
    assert "walk-forward, 8 windows (rolling), 1336 bars unseen when choosing" in shown.out
    assert "62 % of the tests gained" in shown.out
    assert "⚠ [2 bars] are missing" in shown.out, "brackets are no markup"
    for fact in ("/runs/report.html", "/runs/trials.parquet", "f" * 64, *server.runs):
        assert fact in shown.out
    assert "\x1b" not in shown.out


def test_without_a_walk_none_is_shown(server: Contract, cli: Command) -> None:
    assert "walk-forward" not in cli(AAPL).out


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_machine_output_is_the_result_and_nothing_else(
    server: Contract, cli: Command, form: str, read: Any
) -> None:
    done = cli(f"--output {form} {AAPL} --walk-forward")
    assert (done.code, done.err) == (0, "")
    result = read(done.out)
    assert result["best"] == result["top"][0]
    assert result["best"]["metrics"] == METRICS
    assert result["overfitting"]["verdict"] == "reject"
    assert result["overfitting"]["min_track_record"] is None
    assert result["walk_forward"]["windows"] == 8


def test_csv_is_a_row_a_combination(server: Contract, cli: Command) -> None:
    done = cli(f"--output csv {AAPL}")
    assert (done.code, done.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [(row["param_fast"], row["param_slow"], row["objective"]) for row in rows] == [
        ("10", "30", "0.75"),
        ("5", "30", "0.5"),
    ]
    shown = {name: "" if value is None else str(value) for name, value in METRICS.items()}
    assert {name: rows[0][name] for name in METRICS} == shown


def test_a_failed_search_says_why(server: Contract, cli: Command) -> None:
    failed = cli("--output json optimize --symbol FAIL --strategy ma_crossover")
    assert (failed.code, failed.out) == (1, "")
    assert json.loads(failed.err)["type"] == "run-failed"


def test_resume_sends_the_same_request_again(server: Contract, cli: Command) -> None:
    words = "--space fast=5:20:5 --param slow=60 --walk-forward --windows 3 --no-report --seed 9"
    first = json.loads(cli(f"--output json {AAPL} {words}").out)
    again = cli("--output", "json", "optimize", "--resume", first["run_id"])
    assert (again.code, again.err) == (0, "")
    assert json.loads(again.out)["run_id"] != first["run_id"]
    one, other = server.runs.values()
    assert other.request == {**one.request, "snapshot": "s1"}, "on the bars that the first one read"
    assert (one.flow, other.flow) == ("optimize", "optimize")


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("--symbol MSFT", "symbol"),
        ("--space fast=5", "space"),
        ("--param slow=5", "param"),
        ("--seed 0", "seed"),
        ("--min-trades 0", "min-trades"),
        ("--as-of 2020-01-01", "as-of"),
        ("--no-report", "no-report"),
        ("--walk-forward", "walk-forward"),
        ("--windows 4", "windows"),
        ("--anchored", "anchored"),
        ("--on-gaps mark", "on-gaps"),
    ],
)
def test_resume_takes_no_other_option(server: Contract, cli: Command, words: str, option: str) -> None:
    run_id = json.loads(cli(f"--output json {AAPL}").out)["run_id"]
    asked = len(server.asked)
    refused = cli(f"--output json optimize --resume {run_id} {words}")
    assert (refused.code, refused.out) == (2, "")
    (problem,) = json.loads(refused.err)["problems"]
    assert problem["field"] == option
    assert "stands in the run that is resumed" in problem["message"]
    assert len(server.asked) == asked


def test_resume_is_for_optimizations_that_there_are(server: Contract, cli: Command) -> None:
    run_id = json.loads(cli("--output json backtest --symbol AAPL").out)["run_id"]
    refused = cli(f"--output json optimize --resume {run_id}")
    assert (refused.code, refused.out) == (2, "")
    (problem,) = json.loads(refused.err)["problems"]
    assert (problem["field"], problem["value"]) == ("resume", run_id)
    assert "is a run of backtest" in problem["message"]
    nowhere = cli("--output json optimize --resume 00000000-0000-4000-8000-000000000000")
    assert (nowhere.code, json.loads(nowhere.err)["type"]) == (2, "not-found")
    assert len(server.runs) == 1


def test_the_workflows_name_takes_spaces_and_walks_too(server: Contract, cli: Command) -> None:
    done = cli(
        "--output json workflow run optimize --follow --param symbol=AAPL --param strategy=ma_crossover "
        "--param space.fast=5:20:5 --param slow=30 --param walk_forward.windows=4 --param objective=calmar"
    )
    assert (done.code, done.err) == (0, "")
    assert server.bodies[0] == {
        "symbol": "AAPL",
        "strategy": "ma_crossover",
        "params": {"slow": 30},
        "space": {"fast": {"low": 5, "high": 20, "step": 5}},
        "walk_forward": {"windows": 4},
        "objective": "calmar",
    }
    assert json.loads(done.out)["overfitting"]["verdict"] == "reject"


def test_a_strategy_file_is_checked_here_and_sent_with_the_run(
    server: Contract, process: Command, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(STRATEGY)
    words = "optimize --symbol AAPL --strategy ./mine.py:Mine"
    done = process(f"{words} --space n=1:5 --param label=b", cwd=tmp_path)
    assert done.code == 0, done.err
    assert server.strategies == {"mine.py": STRATEGY}
    (run,) = server.runs.values()
    assert run.request["strategy"] == stored_id(STRATEGY.encode(), "Mine")
    assert done.out.splitlines()[0].startswith("AAPL  Mine [")
    for wrong in ("--space m=1,2", "--space n=x", ""):
        refused = process(f"{words} {wrong}", cwd=tmp_path)
        assert (refused.code, refused.out) == (2, "")
        assert "space" in refused.err
    assert len(server.runs) == 1
