"""`workflow` and `data`: runs by their general names, and the lake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.contract_server import METRICS, Contract


def test_a_workflow_run_is_the_same_run_by_its_general_name(server: Contract, cli: Command) -> None:
    plain = cli(
        "--output json backtest --symbol AAPL --strategy ma_crossover --param fast=5 --param slow=20 --seed 7"
    )
    words = ["symbol=AAPL", "strategy=ma_crossover", "fast=5", "params.slow=20", "seed=7"]
    general = cli("workflow", "run", "backtest", "--follow", *_params(words), "--output", "json")
    assert (plain.code, general.code) == (0, 0)
    first, second = server.runs.values()
    assert first.request == second.request
    assert json.loads(general.out)["metrics"] == METRICS


def test_without_follow_the_run_is_named_and_left(server: Contract, cli: Command) -> None:
    started = cli("--output json workflow run backtest --param symbol=AAPL")
    (run,) = server.runs
    answer = json.loads(started.out)
    assert (started.code, answer["run_id"], answer["flow"], answer["state"]) == (
        0,
        run,
        "backtest",
        "SCHEDULED",
    )
    assert answer["links"]["events"].endswith(f"/runs/{run}/events")
    assert run in cli("workflow run backtest --param symbol=MSFT").out or len(server.runs) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("backtset --param symbol=AAPL", "did you mean 'backtest'?"),
        ("backtest --param symbl=AAPL", "did you mean 'symbol'?"),
        ("backtest --param symbol=AAPL --param lokback=5", "did you mean 'lookback'?"),
        ("backtest --param symbol=AAPL --param params.lokback=5", "did you mean 'lookback'?"),
        ("backtest --param symbol=AAPL --param params=5", "params.NAME"),
        ("backtest --param symbol=AAPL --param strategy=momentun", "did you mean 'momentum'?"),
        ("backtest --param symbol=AAPL --param capital=much", "(given: 'much')"),
        ("backtest", "symbol: Field required"),
        (
            "data --param symbols=AAPL,MSFT --param file=x.csv --param source=csv",
            "one file holds one symbol, 2 given",
        ),
        ("data --param columns.opne=Open", "columns.opne"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_sent(
    server: Contract, cli: Command, words: str, said: str
) -> None:
    refused = cli(f"workflow run {words}")
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    assert server.asked == []


def test_lists_are_separated_by_commas_and_mappings_by_dots(
    server: Contract, cli: Command, tmp_path: Path
) -> None:
    file = tmp_path / "acme.csv"
    file.touch()
    described = ["symbols=ACME", f"file={file}", "columns.close=Last", "columns.open=First"]
    for words in (["symbols=AAPL,MSFT"], described):
        done = cli("workflow", "run", "data", *_params(words), "--follow")
        assert done.code == 0, done.err
    two, one = filter(None, server.bodies)
    assert two == {"symbols": ["AAPL", "MSFT"]}
    assert one["columns"] == {"close": "Last", "open": "First"}


def test_runs_follow_the_pages_up_to_the_limit(server: Contract, cli: Command) -> None:
    for _ in range(5):
        assert cli("workflow run backtest --param symbol=AAPL").code == 0
    listed = json.loads(cli("--output json workflow runs --limit 3").out)
    assert [run["run_id"] for run in listed] == list(server.runs)[:1:-1]
    assert len(json.loads(cli("--output json workflow runs").out)) == 5
    assert "COMPLETED" in cli("workflow runs").out
    assert cli("workflow runs --state failed").out == "no runs yet\n"


def test_show_tells_runs_and_workflows_apart(server: Contract, cli: Command) -> None:
    cli("workflow run backtest --param symbol=FAIL")
    (run,) = server.runs
    shown = cli("workflow", "show", run)
    assert shown.code == 0
    assert "FAILED" in shown.out
    assert "symbol: 'FAIL' is not known" in shown.out
    workflow = cli("workflow show backtest")
    assert "long|short|both" in workflow.out
    assert "stop_loss" in workflow.out
    unknown = cli("workflow show backtset")
    assert unknown.code == 2
    assert "did you mean 'backtest'?" in unknown.err
    assert cli("workflow show 00000000-0000-0000-0000-000000000000").code == 2


def test_logs_cancel_and_result(server: Contract, cli: Command) -> None:
    cli("workflow run backtest --param symbol=SLOW")
    (run,) = server.runs
    assert "reading bars" in cli("workflow", "logs", run).out
    early = cli("workflow", "result", run)
    assert early.code == 2
    assert "has no result yet" in early.err
    cancelled = cli("--output", "json", "workflow", "cancel", run)
    assert (cancelled.code, json.loads(cancelled.out)["state"]) == (0, "CANCELLED")
    again = cli("workflow", "cancel", run)
    assert again.code == 2
    assert "has ended already" in again.err
    assert cli("workflow", "result", run).code == 1


def test_following_logs_ends_with_the_run(server: Contract, cli: Command) -> None:
    cli("workflow run backtest --param symbol=AAPL")
    (run,) = server.runs
    followed = cli("workflow", "logs", run, "--follow", "--output", "json")
    assert [json.loads(line)["message"] for line in followed.out.splitlines()] == ["reading bars"]
    assert f"run {run} ended COMPLETED" in followed.err


def test_a_finished_run_is_shown_and_reproduced(server: Contract, cli: Command) -> None:
    cli("workflow run backtest --param symbol=AAPL")
    (run,) = server.runs
    assert "total return" in cli("workflow", "result", run).out
    again = cli("workflow", "reproduce", run)
    assert again.code == 0
    _, reproduced = server.runs
    assert f"run {reproduced} has the same result as run {run}" in again.out
    assert "nothing differs" in again.out
    for_scripts = cli("--output", "json", "workflow", "reproduce", run)
    assert json.loads(for_scripts.out) == {
        "run_id": list(server.runs)[-1],
        "original_run_id": run,
        "snapshot_id": "s1",
        "result_hash": "f" * 64,
        "equal": True,
        "differences": [],
    }


NEWER = {"what": "code version", "original": "0.1.0", "now": "0.2.0"}
SHARPE = {"what": "metric sharpe", "original": 0.75, "now": 0.7500000000000001}


def test_newer_code_with_the_same_result_is_no_failure(server: Contract, cli: Command) -> None:
    server.differences = [NEWER]
    cli("workflow run backtest --param symbol=AAPL")
    (run,) = server.runs
    again = cli("workflow", "reproduce", run)
    assert again.code == 0
    assert "has the same result as" in again.out
    assert "0.2.0" in again.out


def test_another_result_is_printed_with_what_differs_and_then_fails(server: Contract, cli: Command) -> None:
    server.differences, server.reproduced_hash = [NEWER, SHARPE], "e" * 64
    cli("workflow run backtest --param symbol=AAPL")
    (run,) = server.runs
    again = cli("--output", "json", "workflow", "reproduce", run)
    told = json.loads(again.out)
    assert (again.code, told["equal"], told["differences"]) == (1, False, [NEWER, SHARPE])
    assert json.loads(again.err.splitlines()[-1])["type"] == "run-failed"
    shown = cli("workflow", "reproduce", run)
    assert shown.code == 1
    assert "has another result than" in shown.out
    assert "0.7500000000000001" in shown.out
    assert cli("--output", "csv", "workflow", "reproduce", run).out.splitlines() == [
        "what,original,now",
        "code version,0.1.0,0.2.0",
        "metric sharpe,0.75,0.7500000000000001",
    ]


@pytest.mark.parametrize(
    "words",
    [
        "backtest --symbol AAPL --as-of 2026-01-31",
        "backtest --symbol AAPL --snapshot 2026-01-31",
        "workflow run backtest --param symbol=AAPL --as-of 2026-01-31",
        "workflow run backtest --param symbol=AAPL --snapshot 2026-01-31",
        "workflow run backtest --param symbol=AAPL --param snapshot=2026-01-31",
    ],
)
def test_a_version_is_one_field_whatever_it_is_called(server: Contract, cli: Command, words: str) -> None:
    assert cli(words).code == 0
    (run,) = server.runs.values()
    assert run.request["snapshot"] == "2026-01-31"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("data --param symbols=AAPL --as-of 2026-01-31", "data reads no snapshot: it changes the newest"),
        ("backtest --param symbol=AAPL --param snapshot=3f9c1a --as-of 2026-01-31", "is given twice"),
    ],
)
def test_a_version_that_means_nothing_is_refused(
    server: Contract, cli: Command, words: str, said: str
) -> None:
    refused = cli(f"workflow run {words}")
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    assert server.asked == []


def test_an_unknown_workflow_of_a_remote_server_gets_the_version_as_it_is(
    remote: Contract, cli: Command
) -> None:
    assert cli("workflow run sweep --param trials=5 --snapshot 123456").code == 2  # no such workflow there
    assert remote.bodies == [{"trials": 5, "snapshot": "123456"}]


def test_ingest_names_the_file_by_its_whole_path(server: Contract, process: Command, tmp_path: Path) -> None:
    (tmp_path / "acme.csv").write_text("Date,Last\n")
    words = "data ingest --symbol ACME --file acme.csv --column timestamp=Date --column close=Last"
    done = process(f"--output json {words}", cwd=tmp_path)
    assert done.code == 0, done.err
    assert [(row["symbol"], row["added"]) for row in json.loads(done.out)["series"]] == [("ACME", 2)]
    assert server.bodies[0]["file"] == str(tmp_path / "acme.csv")
    assert server.bodies[0]["columns"] == {"timestamp": "Date", "close": "Last"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--file nowhere.csv --symbol ACME", "nowhere.csv does not exist"),
        ("--source csv --symbol ACME", "source csv needs a file"),
        ("--column close --symbol ACME", "column: is not NAME=VALUE"),
        ("--column clsoe=Last --symbol ACME", "clsoe"),
        ("--symbol AAPL --start 2012-01-01 --end 2011-01-01", "is after end"),
    ],
)
def test_a_wrong_ingest_is_refused(server: Contract, cli: Command, words: str, said: str) -> None:
    refused = cli(f"data ingest {words}")
    assert refused.code == 2
    assert said in refused.err
    assert server.runs == {}


def test_the_lake_is_listed_and_its_bars_shown(server: Contract, cli: Command) -> None:
    assert "AAPL" in cli("data list").out
    assert cli("data list --output csv").out.splitlines()[0] == "symbol,name,timeframe,stored,source,bars"
    assert cli("data show aapl --output csv").out.splitlines()[:2] == [
        "time,open,high,low,close,volume",
        "2005-01-03T00:00:00Z,1.0,1.0,1.0,1.0,1.0",
    ]
    assert "2005-01-04" in cli("data show AAPL").out
    assert cli("data show NONE").code == 2
    assert cli("data show AAPL --timeframe 2d").code == 2
    assert cli("data show ../AAPL").code == 2


def _params(words: list[str]) -> list[str]:
    return [part for word in words for part in ("--param", word)]
