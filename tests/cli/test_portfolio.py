"""`portfolio backtest` against a server that speaks the contract: options, what is sent, and what is written."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from gpt_trader.strategies.user import stored_id
from tests.cli.conftest import Command
from tests.cli.contract_server import METRICS, Contract

PAIR = "portfolio backtest --symbol MSFT --symbol aapl"

STRATEGY = """
from gpt_trader.strategies.base import Strategy

class Mine(Strategy):
    n: int = 3

    def targets(self, bars, first=0):
        import numpy as np
        return np.zeros(len(bars))
"""


def test_the_contract_for_scripts(server: Contract, process: Command) -> None:
    done = process(
        f"--output json {PAIR} --weights equal --rebalance month --start 2005-01-03 --end 2012-12-31"
    )
    assert (done.code, done.err) == (0, "")
    (run,) = server.runs.values()
    result = json.loads(done.out)
    assert result["run_id"] == run.id
    assert result["symbols"] == ["AAPL", "MSFT"]
    assert result.keys() >= {
        "metrics", "final_equity", "rebalances", "turnover", "snapshot_id", "result_hash", "artifacts",
    }  # fmt: skip
    assert server.bodies[0] == {
        "symbols": ["AAPL", "MSFT"],
        "weights": "equal",
        "rebalance": "month",
        "start": "2005-01-03",
        "end": "2012-12-31",
    }
    assert server.asked == [
        ("POST", "/api/v1/portfolio/backtest"),
        ("GET", f"/api/v1/workflows/runs/{run.id}/events"),
        ("GET", f"/api/v1/workflows/runs/{run.id}/result"),
    ]


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("--weights inverse-volatility", {"weights": "inverse_volatility"}),
        ("--volatility-window 20", {"weights": "inverse_volatility", "volatility_window": 20}),
        (
            "--weight AAPL=0.6 --weight MSFT=0.3",
            {"weights": "given", "weight": {"AAPL": 0.6, "MSFT": 0.3}},
        ),
        (
            "--strategy ma-crossover --param fast=5",
            {"weights": "strategy", "strategy": "ma_crossover", "params": {"fast": 5}},
        ),
        ("--rebalance none --drift 0.05", {"rebalance": "none", "drift": 0.05}),
        (
            "--max-weight 0.6 --exposure 0.9 --min-trade 0.001",
            {"max_weight": 0.6, "exposure": 0.9, "min_trade": 0.001},
        ),
        ("--capital 5000 --slippage 0 --no-report", {"capital": 5000, "slippage": 0, "report": False}),
        ("--commission per_order=1", {"commission": {"per_order": 1.0}}),
    ],
)
def test_options_are_fields_and_what_is_not_given_is_not_sent(
    server: Contract, cli: Command, words: str, fields: dict[str, Any]
) -> None:
    assert cli(f"--quiet {PAIR} {words}").code == 0
    assert server.bodies[0] == {"symbols": ["AAPL", "MSFT"], **fields}


def test_symbols_may_be_named_by_their_weights_alone(server: Contract, cli: Command) -> None:
    assert cli("--quiet portfolio backtest --weight IBM=0.5 --weight AAPL=0.5").code == 0
    assert server.bodies[0]["symbols"] == ["AAPL", "IBM"]


def test_as_a_workflow_it_is_the_same(server: Contract, cli: Command) -> None:
    words = "--param symbols=MSFT,AAPL --param weight.AAPL=0.6 --param weight.MSFT=0.3"
    assert cli(f"--quiet workflow run portfolio {words} --follow").code == 0
    assert server.bodies[0] == {
        "symbols": ["AAPL", "MSFT"],
        "weights": "given",
        "weight": {"AAPL": 0.6, "MSFT": 0.3},
    }


def test_a_strategy_file_is_stored_first(server: Contract, cli: Command, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(STRATEGY)
    assert cli("--quiet", *PAIR.split(), "--strategy", f"{file}:Mine", "--param", "n=7").code == 0
    assert server.strategies["mine.py"] == STRATEGY
    (run,) = server.runs.values()
    assert run.request["strategy"] == stored_id(STRATEGY.encode(), "Mine")
    assert run.request["params"] == {"n": 7}


def test_the_table_has_metrics_and_a_row_a_symbol(server: Contract, cli: Command) -> None:
    done = cli(f"{PAIR} --symbol IBM --drift 0.1")
    lines = done.out.splitlines()
    assert lines[0] == "AAPL, IBM, MSFT  equal weights"
    assert lines[2] == "rebalanced every month and at a drift of 10 %: 96 times, 192 fills"
    assert any(line.split() == ["total", "return", "50.00", "%", "90.00", "%"] for line in lines)
    rows = [line.split() for line in lines if line.startswith(("AAPL ", "IBM ", "MSFT "))]
    assert [row[0] for row in rows] == ["MSFT", "IBM", "AAPL"], "those first that made or lost most"
    assert rows[0] == ["MSFT", "33.33", "%", "33.33", "%", "2,000.00", "12.50", "96"]
    assert "/runs/report.html" in done.out


def test_many_symbols_are_counted(server: Contract, cli: Command) -> None:
    done = cli("portfolio backtest " + " ".join(f"--symbol S{number}" for number in range(30)))
    assert done.out.startswith("30 symbols  equal weights\n")
    assert "and 10 more" in done.out
    assert "S0, S1, S10 and 27 more" in cli("workflow runs").out


def test_csv_has_the_metrics(server: Contract, cli: Command) -> None:
    rows = list(csv.DictReader(io.StringIO(cli(f"--output csv {PAIR}").out)))
    assert {row["metric"] for row in rows} == set(METRICS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("portfolio backtest", "symbol: is missing: give --symbol twice or more"),
        ("portfolio backtest --symbol AAPL", "symbols: a portfolio has 2 to 1,000 symbols, 1 given"),
        (f"{PAIR} --symbol AAPL", "symbols: AAPL is given twice"),
        (f"{PAIR} --weights markowitz", "allowed: equal, inverse_volatility, given, strategy"),
        (f"{PAIR} --weights equl", "did you mean 'equal'?"),
        (f"{PAIR} --weight AAPL=0.7 --weight MSFT=0.7", "the weights add up to 1.4, more than exposure 1"),
        (
            f"{PAIR} --weight AAPL=-1 --weight MSFT=0.7",
            "weight.AAPL: Input should be greater than or equal to 0",
        ),
        (f"{PAIR} --weight AAPLE=0.3 --weight MSFT=0.7", "did you mean 'AAPL'?"),
        (f"{PAIR} --weight AAPL", "weight: is not NAME=VALUE"),
        (f"{PAIR} --strategy momentm", "did you mean 'momentum'?"),
        (f"{PAIR} --strategy momentum --param lookbck=3", "did you mean 'lookback'?"),
        (f"{PAIR} --param fast=5", "params is for weights strategy"),
        (f"{PAIR} --drift 2", "drift: Input should be less than 1"),
        (f"{PAIR} --exposure 1.5", "exposure: Input should be less than or equal to 1"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_sent(
    server: Contract, cli: Command, words: str, said: str
) -> None:
    done = cli(words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert server.runs == {}
