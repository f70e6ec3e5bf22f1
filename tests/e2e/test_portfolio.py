"""A portfolio over the whole house: the contract for scripts, what the run keeps, and the same once more."""

from __future__ import annotations

import io
import math
import shlex
import sys
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.e2e.house import House

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the engine's processes in /proc"),
]

COMMAND = shlex.split(
    "portfolio backtest --symbol AAPL --symbol MSFT --symbol FB --weights equal --rebalance month --start 2005-01-03 "
    "--end 2012-12-31 --commission 0.001 --slippage 0.0005 --capital 10000"
)


@pytest.fixture(scope="module")
def found(session_house: House) -> dict[str, Any]:
    """What the contract for scripts printed."""
    session_house.ensure_up()
    printed: dict[str, Any] = session_house.json(*COMMAND)
    return printed


def test_the_contract_for_scripts(house: House, found: dict[str, Any]) -> None:
    assert found["symbols"] == ["AAPL", "FB", "MSFT"]
    metrics = found["metrics"]
    assert metrics["benchmark_return"] == found["benchmark"]["total_return"]
    assert found["final_equity"] == metrics["final_equity"]
    assert found["turnover"] == metrics["turnover"]
    assert found["rebalances"] == 96, "every month of eight years, the first time on the second bar"
    assert not any(isinstance(value, float) and not math.isfinite(value) for value in metrics.values())
    assert sum(holding["pnl"] for holding in found["holdings"]) == pytest.approx(
        found["final_equity"] - 10_000
    )
    assert house.state(found["run_id"]) == "COMPLETED"

    equity = pq.read_table(found["artifacts"]["equity"])
    assert equity.num_rows == found["bars"] == 2013
    assert equity["equity"][-1].as_py() == found["final_equity"]
    assert pc.sum(equity["rebalanced"]).as_py() == 96
    assert pc.max(equity["held"]).as_py() == 3
    fills = pq.read_table(found["artifacts"]["fills"])
    assert fills.num_rows == found["fills"]
    assert set(pq.read_table(found["artifacts"]["trades"])["symbol"].to_pylist()) == {"AAPL", "FB", "MSFT"}
    listed = fills.filter(pc.equal(fills["symbol"], "FB"))["time"][0].as_py()
    assert listed.year == 2012, "it was listed in May 2012"
    report = Path(found["artifacts"]["report"]).read_text(encoding="utf-8")
    assert found["run_id"] in report
    assert Path(found["artifacts"]["picture"]).read_bytes()[:4] == b"\x89PNG"


def test_by_rest_with_another_order_and_reproduced_it_is_the_same(
    house: House, found: dict[str, Any]
) -> None:
    request = {
        "symbols": ["MSFT", "FB", "AAPL"],
        "start": "2005-01-03",
        "end": "2012-12-31",
        "report": False,
    }
    accepted = house.api("POST", "/portfolio/backtest", json=request)
    assert accepted.status_code == 202, accepted.text
    by_rest = str(accepted.json()["run_id"])
    house.await_state(by_rest, {"COMPLETED"})
    assert house.result(by_rest)["result_hash"] == found["result_hash"]
    again = house.json("workflow", "reproduce", found["run_id"])
    assert (again["equal"], again["differences"]) == (True, [])
    answer = house.api("GET", f"/workflows/runs/{found['run_id']}/artifacts/weights")
    weights = pq.read_table(io.BytesIO(answer.content))
    assert weights.column_names == ["time", "symbol", "weight"]
    assert pc.max(weights["weight"]).as_py() <= 1


def test_with_a_strategy_of_the_users_each_symbol_is_in_or_out(house: House) -> None:
    (house.cwd / "always.py").write_text(
        "from gpt_trader.strategies.base import Strategy\n\n\n"
        "class Odd(Strategy):\n"
        "    def targets(self, bars, first=0):\n"
        "        import numpy as np\n"
        "        days = np.arange(len(bars)) - first\n"
        "        return np.where((days >= 0) & (days // 10 % 2 == 0), 1.0, 0.0)\n"
    )
    printed = house.json(
        "portfolio", "backtest", "--symbol", "IBM", "--symbol", "AAPL", "--strategy", "./always.py:Odd",
        "--start", "2010-01-04", "--end", "2010-03-31", "--rebalance", "none", "--no-report",
    )  # fmt: skip
    held = pq.read_table(printed["artifacts"]["equity"])["held"].to_pylist()
    assert held[:23] == [0] + [2] * 10 + [0] * 10 + [2] * 2
    assert printed["artifacts"].keys().isdisjoint({"report", "picture"})
