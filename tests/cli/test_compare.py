"""`strategy compare` against a server that speaks the contract: runs, strategies by name, formats, and the page."""

from __future__ import annotations

import csv
import io
import json
import uuid
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.contract_server import Contract


@pytest.fixture
def two(server: Contract, cli: Command) -> list[str]:
    """The ids of two finished backtests."""
    for seed in (0, 1):
        assert cli(f"--quiet backtest --symbol AAPL --seed {seed} --no-open-report").code == 0
    server.asked.clear()
    server.bodies.clear()
    return list(server.runs)


def test_runs_are_compared_in_one_request(server: Contract, cli: Command, two: list[str]) -> None:
    done = cli(f"--output json strategy compare {two[0]} {two[1]}")
    assert done.code == 0, done.err
    assert [run["run_id"] for run in json.loads(done.out)["runs"]] == two
    assert server.asked == [("GET", f"/api/v1/strategies/compare?runs={two[0]}&runs={two[1]}")]


def test_the_table_marks_the_best_and_says_what_differs(
    server: Contract, cli: Command, two: list[str]
) -> None:
    assert cli("--quiet optimize --symbol AAPL --strategy ma_crossover --capital 500").code == 0
    lines = cli(f"strategy compare {' '.join(server.runs)}").out.splitlines()
    (sharpe,) = (line.split() for line in lines if line.startswith("Sharpe"))
    assert sharpe == ["Sharpe", "0.50", "1.50", "*", "0.75"]
    (returned,) = (line.split() for line in lines if line.startswith("total return"))
    assert returned.count("*") == 0, "all made the same"
    (third,) = (line for line in lines if line.startswith("C   ma_crossover"))
    assert "(optimized)" in third
    assert third.endswith(list(server.runs)[2])
    said = " ".join(line for line in lines if line.startswith("⚠"))
    assert "the capital differs" in said
    assert "(capital: A 10,000, B 10,000, C 500)" in said
    assert "(trials: C 14)" in said
    assert "correlation of 4 returns on common dates" in "\n".join(lines)


def test_sorting_is_the_servers(server: Contract, cli: Command, two: list[str]) -> None:
    done = cli(f"--output json strategy compare --sort sharpe {two[0]} {two[1]}")
    assert [run["run_id"] for run in json.loads(done.out)["runs"]] == two[::-1]
    wrong = cli(f"strategy compare --sort sharp {two[0]} {two[1]}")
    assert wrong.code == 2
    assert "did you mean 'sharpe'" in wrong.err


def test_csv_has_a_row_a_run(server: Contract, cli: Command, two: list[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(cli(f"--output csv strategy compare {two[0]} {two[1]}").out)))
    assert [row["run_id"] for row in rows] == two
    assert [row["sharpe"] for row in rows] == ["0.5", "1.5"]
    assert rows[0]["calmar"] == ""


def test_the_page_is_the_servers_and_written_whole(
    server: Contract, cli: Command, two: list[str], tmp_path: Path
) -> None:
    page = tmp_path / "compared.html"
    done = cli(f"--output json strategy compare --sort sharpe --report {page} {two[0]} {two[1]}")
    assert page.read_bytes() == b"<html>compared</html>"
    assert done.err == f"report: {page}\n"
    json.loads(done.out)
    refused = cli(f"strategy compare --report {tmp_path} {two[0]} {two[1]}")
    assert (refused.code, "it is a folder" in refused.err) == (2, True)


def test_strategies_are_run_first_on_one_snapshot(server: Contract, cli: Command, two: list[str]) -> None:
    done = cli(
        f"--quiet --output json strategies compare momentum {two[0]} "
        "ma_crossover --symbol AAPL --start 2005-01-03 --commission 0 --no-report",
    )
    assert done.code == 0, done.err
    terms = {"symbol": "AAPL", "start": "2005-01-03", "commission": 0, "report": False}
    asked = [body for body in server.bodies if body]
    assert asked == [
        {**terms, "strategy": "momentum"},
        {**terms, "strategy": "ma_crossover", "snapshot": "s1"},
    ]
    *_, first, second = server.runs
    assert [run["run_id"] for run in json.loads(done.out)["runs"]] == [first, two[0], second]


def test_a_snapshot_of_ones_own_is_kept(server: Contract, cli: Command) -> None:
    assert cli("--quiet strategy compare momentum breakout --symbol AAPL --as-of 2012-01-01").code == 0
    assert [body["snapshot"] for body in server.bodies if body] == ["2012-01-01", "s1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("momentum", "is one run; allowed: 2 to 20 runs"),
        ("{} " * 21, "are 21 runs; allowed: 2 to 20 runs"),
        ("momentum breakout", "a strategy is run first, on --symbol"),
        ("momentum breakot --symbol AAPL", "did you mean 'breakout'"),
        ("momentum momentum --symbol AAPL", "is given twice"),
        ("{} {} --capital 5", "is for strategies by name"),
        ("{} {} --as-of 2012-01-01", "as-of: is for strategies by name"),
        ("momentum breakout --symbol AAPL --capital none", "capital"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_asked(
    server: Contract, cli: Command, words: str, said: str
) -> None:
    filled = words.format(*(str(uuid.UUID(int=number)) for number in range(21)))
    done = cli(f"strategy compare {filled}")
    assert done.code == 2
    assert said in done.err
    assert server.asked == []


def test_a_run_that_is_not_there_is_the_servers_to_say(
    server: Contract, cli: Command, two: list[str]
) -> None:
    done = cli(f"strategy compare {two[0]} {uuid.uuid4()}")
    assert (done.code, "no run" in done.err) == (2, True)


def test_a_strategy_that_fails_ends_the_comparison(server: Contract, cli: Command) -> None:
    done = cli("--quiet strategy compare momentum breakout --symbol FAIL")
    assert done.code == 1
    assert len(server.runs) == 1
