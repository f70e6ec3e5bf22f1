"""Comparisons over the whole house: strategies by name, a walk-forward by REST, and the page of both."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.e2e.house import House

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the engine's processes in /proc"),
]

TERMS = ("--symbol", "AAPL", "--start", "2005-01-03", "--end", "2012-12-31", "--no-report")
WALK = {
    "symbol": "AAPL", "strategy": "ma_crossover", "start": "2005-01-03", "end": "2012-12-31",
    "walk_forward": {"windows": 4},
}  # fmt: skip


def test_strategies_and_a_search_compare_on_their_own_numbers(house: House, tmp_path: Path) -> None:
    accepted = house.api("POST", "/strategies/walk-forward", json=WALK)
    assert accepted.status_code == 202, accepted.text
    searched = str(accepted.json()["run_id"])
    house.await_state(searched, {"COMPLETED"})
    best = house.result(searched)
    assert best["walk_forward"]["windows"] == 4

    page = tmp_path / "compared.html"
    found = house.json(
        "strategy",
        "compare",
        "momentum",
        "breakout",
        searched,
        *TERMS,
        "--sort",
        "sharpe",
        "--report",
        str(page),
    )
    runs = {run["strategy"]: run for run in found["runs"]}
    assert runs.keys() == {"momentum", "breakout", "ma_crossover"}
    ratios = [run["metrics"]["sharpe"] for run in found["runs"]]
    assert ratios == sorted(ratios, reverse=True)
    assert found["best"]["sharpe"] == [found["runs"][0]["run_id"]]
    assert runs["ma_crossover"]["metrics"] == best["best"]["metrics"]
    assert runs["ma_crossover"]["params"] == best["best"]["params"]
    assert runs["momentum"]["snapshot_id"] == runs["breakout"]["snapshot_id"]
    assert [warning["field"] for warning in found["warnings"]] == ["trials"]

    returns = []
    for run in found["runs"]:
        result = house.result(run["run_id"])
        equity = pq.read_table(result["artifacts"]["equity"])["equity"].to_numpy()
        growth = found["curves"]["growth"][run["run_id"]]
        assert (growth[0], growth[-1]) == (1, pytest.approx(equity[-1] / equity[0], rel=1e-9))
        returns.append(equity[1:] / equity[:-1] - 1)
    np.testing.assert_allclose(found["correlation"]["values"], np.corrcoef(returns), atol=1e-9)

    shown = page.read_text(encoding="utf-8")
    assert all(run["run_id"] in shown for run in found["runs"])
    assert "<script" not in shown
