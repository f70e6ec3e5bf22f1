"""The contracts for scripts, word by word: what each command prints, and that one is the other's backtest."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import PAPER_RANGE, PAPER_TERMS, TERMS
from tests.e2e.house import House

pytestmark = pytest.mark.timeout(180)


def test_a_backtest(contract: dict[str, Any]) -> None:
    assert set(contract) >= {
        "run_id", "flow", "state", "symbol", "strategy", "params", "snapshot_id", "result_hash", "start", "end",
        "bars", "metrics", "artifacts",
    }  # fmt: skip
    told = {
        name: contract[name] for name in ("flow", "state", "symbol", "strategy", "params", "start", "end")
    }
    assert told == {
        "flow": "backtest",
        "state": "COMPLETED",
        "symbol": "AAPL",
        "strategy": "ma_crossover",
        "params": {"fast": 10, "slow": 30},
        "start": "2005-01-03",
        "end": "2012-12-31",
    }
    metrics = contract["metrics"]
    assert set(metrics) >= {
        "total_return", "annualized_return", "annualized_volatility", "sharpe", "sortino", "calmar", "max_drawdown",
        "win_rate", "profit_factor", "trades", "exposure", "final_equity", "benchmark_return",
    }  # fmt: skip
    assert (contract["bars"], metrics["trades"]) == (2013, 32)
    assert metrics["final_equity"] == pytest.approx(84119.30498754681, rel=1e-9)
    assert metrics["total_return"] == pytest.approx(7.411930498754681, rel=1e-9)
    assert metrics["sharpe"] == pytest.approx(1.14683617978665, rel=1e-9)
    assert metrics["max_drawdown"] == pytest.approx(-0.405697851156544, rel=1e-9)
    assert metrics["benchmark_return"] == pytest.approx(15.9689669896, rel=1e-6)


def test_the_artifacts_of_a_backtest_are_whole_files(contract: dict[str, Any]) -> None:
    paths = {name: Path(path) for name, path in contract["artifacts"].items()}
    assert set(paths) >= {"report", "equity", "trades"}
    equity = pq.read_table(paths["equity"])
    assert equity.num_rows == contract["bars"]
    assert equity["equity"][-1].as_py() == contract["metrics"]["final_equity"]
    assert pq.read_table(paths["trades"]).num_rows == contract["metrics"]["trades"]
    report = paths["report"].read_text(encoding="utf-8")
    assert report.lower().startswith("<!doctype html>")
    assert report.rstrip().endswith("</html>")
    assert contract["run_id"] in report
    assert paths["report"].stat().st_size < 2_000_000


def test_an_optimization(house: House, optimized: dict[str, Any]) -> None:
    assert optimized.keys() >= {
        "run_id",
        "trials",
        "best",
        "top",
        "overfitting",
        "snapshot_id",
        "result_hash",
    }
    assert optimized["trials"] == {"run": 15, "skipped": 1, "failed": 0}, "fast 20 with slow 20 is none"
    assert optimized["best"] == optimized["top"][0]
    assert optimized["best"].keys() >= {"params", "metrics"}
    assert len(optimized["top"]) == 10
    gains = [entry["metrics"]["total_return"] for entry in optimized["top"]]
    assert gains == sorted(gains, reverse=True)
    assert gains == [entry["objective"] for entry in optimized["top"]]
    judged = optimized["overfitting"]
    assert judged.keys() >= {
        "deflated_sharpe", "probabilistic_sharpe", "pbo", "neighborhood", "min_track_record", "verdict", "reasons",
    }  # fmt: skip
    assert judged["verdict"] in ("accept", "reject", "undecided")
    assert judged["trials"] == 15
    assert all(isinstance(reason, str) for reason in judged["reasons"])
    assert not any(isinstance(each, float) and not math.isfinite(each) for each in judged.values())
    assert house.state(optimized["run_id"]) == "COMPLETED"

    table = pq.read_table(optimized["artifacts"]["trials"])
    assert table.num_rows == 16
    assert Counter(table["state"].to_pylist()) == {"run": 15, "skipped": 1}
    best = max(value for value in table["objective"].to_pylist() if value is not None)
    assert best == pytest.approx(optimized["best"]["objective"], rel=1e-9)
    report = Path(optimized["artifacts"]["report"]).read_text(encoding="utf-8")
    assert optimized["run_id"] in report


def test_the_best_of_an_optimization_is_the_backtest_of_the_same_parameters(
    house: House, optimized: dict[str, Any]
) -> None:
    best = optimized["best"]
    params = [f"--param={name}={value}" for name, value in best["params"].items()]
    backtest = house.json("backtest", *TERMS, *params, "--no-report")
    assert backtest["metrics"] == best["metrics"]
    assert backtest["result_hash"] == best["result_hash"]


def test_a_paper_session(house: House, traded: dict[str, Any]) -> None:
    assert traded["session_id"] == traded["run_id"]
    assert (traded["state"], traded["bars"]) == ("completed", 250)
    assert traded["orders"] > traded["fills"] > 0, "stops that were cancelled are orders too"
    certificate = house.json("paper", "certificate", traded["session_id"])
    assert (certificate["verdict"], certificate["first_divergence"]) == ("equal", None)
    assert (certificate["replay_equal"], certificate["backtest_equal"]) == (True, True)
    assert certificate["ledger_hash"] == traded["ledger_hash"]
    assert (certificate["current"], certificate["fills"]) == (True, traded["fills"])

    again = house.json("paper", "replay", traded["session_id"][:8])
    assert again["run_id"] != traded["run_id"]
    assert {name: again[name] for name in ("verdict", "ledger_hash")} == {
        name: certificate[name] for name in ("verdict", "ledger_hash")
    }
    assert house.result(again["run_id"])["result_hash"] == traded["result_hash"]


def test_a_paper_session_is_the_backtest_of_the_same_request(house: House, traded: dict[str, Any]) -> None:
    backtest = house.json("backtest", *PAPER_RANGE, *PAPER_TERMS, "--no-report")
    assert traded["final_equity"] == pytest.approx(backtest["metrics"]["final_equity"], rel=1e-9)
    names = ("total_return", "sharpe", "max_drawdown", "win_rate", "trades", "exposure", "costs")
    assert {name: traded["metrics"][name] for name in names} == pytest.approx(
        {name: backtest["metrics"][name] for name in names}, rel=1e-9
    )
    equity = pq.read_table(traded["artifacts"]["equity"])["equity"].to_numpy()
    theirs = pq.read_table(backtest["artifacts"]["equity"])["equity"].to_numpy()
    assert equity == pytest.approx(theirs, rel=1e-9)
