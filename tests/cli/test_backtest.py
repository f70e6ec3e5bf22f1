"""`backtest` against a server that speaks the contract: what is sent, what is shown, what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from gpt_trader.strategies.user import stored_id
from tests.cli.conftest import ROOT, Command, environment
from tests.cli.contract_server import METRICS, Contract

STRATEGY = """
from pydantic import Field
from gpt_trader.strategies.base import Strategy

class Mine(Strategy):
    summary = "mine"
    n: int = Field(default=3, ge=1)

    def targets(self, bars, first=0):
        import numpy as np
        return np.zeros(len(bars))
"""


def test_the_contract_for_scripts(server: Contract, process: Command) -> None:
    done = process(
        "--output json backtest --symbol AAPL --strategy ma_crossover --param fast=10 --param slow=30 "
        "--start 2005-01-03 --end 2012-12-31 --commission 0.001 --slippage 0 --capital 10000"
    )
    assert (done.code, done.err) == (0, "")
    result = json.loads(done.out)
    (run,) = server.runs.values()
    assert result["run_id"] == run.id
    assert result["metrics"] == METRICS
    assert result["params"] == {"fast": 10, "slow": 30}
    assert run.request["start"] == "2005-01-03"
    assert run.request["slippage"] == 0
    assert run.request["seed"] == 0


def test_one_request_each_way(server: Contract, cli: Command) -> None:
    assert cli("backtest", "--symbol", "AAPL", "--quiet").code == 0
    (run,) = server.runs
    assert server.asked == [
        ("POST", "/api/v1/strategies/backtest"),
        ("GET", f"/api/v1/workflows/runs/{run}/events"),
        ("GET", f"/api/v1/workflows/runs/{run}/result"),
    ]


def test_a_run_that_nobody_takes_says_so_and_goes_on(
    server: Contract, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.runs.nobody_works.SECONDS", 0.2)
    shown = cli("backtest", "--symbol", "WAITS")
    assert shown.code == 0
    (run,) = server.runs
    assert f"run {run} waits: no worker is running. Start one (gpt-trader up --only worker" in shown.err


def test_what_is_not_given_is_not_sent(server: Contract, cli: Command) -> None:
    cli("backtest", "--symbol", "aapl", "--no-report")
    assert server.bodies[0] == {"symbol": "AAPL", "strategy": "momentum", "report": False}


def test_table_shows_the_metrics_beside_buy_and_hold(server: Contract, cli: Command) -> None:
    shown = cli("backtest", "--symbol", "AAPL", "--param", "lookback=10")
    assert shown.code == 0
    lines = {line.split("  ")[0].strip(): line for line in shown.out.splitlines()}
    assert "50.00 %" in lines["total return"]
    assert "90.00 %" in lines["total return"]
    assert "0.75" in lines["Sharpe"]
    assert "–" in lines["Calmar"], "an undefined metric"
    assert "42" in lines["trades"]
    assert "lookback=10" in shown.out
    assert "2005-01-03 → 2012-12-31, 2013 bars" in shown.out
    for fact in ("/runs/report.html", "f" * 64, "http://127.0.0.1:4200/runs/flow-run/", *server.runs):
        assert fact in shown.out
    assert "/api/v1/" not in shown.out
    assert "\x1b" not in shown.out


def test_yaml_is_the_result_and_csv_the_metrics(server: Contract, cli: Command) -> None:
    result = yaml.safe_load(cli("--output", "yaml", "backtest", "--symbol", "AAPL").out)
    assert result["metrics"] == METRICS
    rows = list(csv.DictReader(io.StringIO(cli("backtest", "--symbol", "AAPL", "--output", "csv").out)))
    assert {row["metric"]: row["value"] for row in rows} == {
        name: "" if value is None else str(value) for name, value in METRICS.items()
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--symbol AAPL --strategy momentun", "did you mean 'momentum'?"),
        ("--symbol AAPL --param lokback=5", "did you mean 'lookback'?"),
        ("--symbol AAPL --param lookback=five", "params.lookback: Input should be a valid integer"),
        ("--symbol AAPL --param lookback=0", "params.lookback: Input should be greater than or equal to 1"),
        ("--symbol AAPL --param lookback", "param: is not NAME=VALUE"),
        ("--symbol AAPL --param lookback=", "param: is not NAME=VALUE"),
        ("--symbol AAPL --param lookback=5 --param lookback=6", "lookback is given twice"),
        ("--symbol AAPL --param direction=both", "direction is its own option"),
        ("--symbol AAPL --strategy ma_crossover --param fast=30 --param slow=10", "fast"),
        ("--symbol AAPL --start 2012-01-02 --end 2005-01-02", "start 2012-01-02 is after end 2005-01-02"),
        ("--symbol AAPL --start yesterday", "start: Input should be a valid date"),
        ("--symbol AAPL --capital -5", "capital: Input should be greater than 0"),
        ("--symbol AAPL --capital nan", "capital: Input should be a finite number"),
        ("--symbol AAPL --capital much", "'much'"),
        ("--symbol AAPL --commission 0.5", "commission: Input should be less than 0.5"),
        ("--symbol AAPL --size 1.01", "size: Input should be less than or equal to 1"),
        ("--symbol AAPL --stop-loss 1", "stop_loss: Input should be less than 1"),
        ("--symbol AAPL --timeframe 1h30", "timeframe"),
        ("--symbol AAPL --direction up", "'long', 'short', 'both'"),
        ("--symbol AAPL --seed -1", "seed: Input should be greater than or equal to 0"),
        ("--symbol ../../etc/passwd", "a symbol is 1 to 32 letters"),
        ("--symbol ';DROP'", "a symbol is 1 to 32 letters"),
        ("--strategy momentum", "symbol: is missing"),
        ("--symbol AAPL --strategy ./nowhere.py:Mine", "does not exist"),
        ("--symbol AAPL --strategy ./nowhere.py", "names no class"),
        ("--symbol AAPL --sybmol MSFT", "--symbol"),
        ("AAPL", "AAPL"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_sent(
    server: Contract, cli: Command, words: str, said: str
) -> None:
    refused = cli(f"backtest {words}")
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    assert "Traceback" not in refused.err
    assert server.asked == []


def test_every_wrong_field_is_named_at_once(server: Contract, cli: Command) -> None:
    refused = cli("--output json backtest --symbol AAPL --capital 0 --size 2")
    assert (refused.code, refused.out) == (2, "")
    problem = json.loads(refused.err)
    assert (problem["type"], problem["exit_code"]) == ("refused-input", 2)
    assert [entry["field"] for entry in problem["problems"]] == ["capital", "size"]


def test_an_empty_symbol_is_refused(server: Contract, cli: Command) -> None:
    assert cli("backtest", "--symbol", "").code == 2


def test_a_failed_run_says_why_and_where_its_log_is(server: Contract, cli: Command) -> None:
    failed = cli("backtest", "--symbol", "FAIL")
    (run,) = server.runs
    assert (failed.code, failed.out) == (1, "")
    assert "no bars of FAIL" not in failed.err, "the log is for --verbose"
    assert "allowed: AAPL, MSFT" in failed.err
    assert f"gpt-trader workflow logs {run}" in failed.err


def test_input_that_the_run_refuses_is_refused_input(server: Contract, cli: Command) -> None:
    failed = cli("--output json backtest --symbol EMPTY")
    problem = json.loads(failed.err)
    assert (failed.code, problem["type"]) == (2, "not-enough-bars")
    assert "FAILED: start: no bars in this range; its log: " in problem["detail"]


def browser(folder: Path) -> str:
    """The command of a browser that notes the address it was given in `folder`/opened."""
    program = folder / "browser"
    program.write_text(f'#!/bin/sh\nprintf "%s" "$1" > {folder}/opened\n')
    program.chmod(0o755)
    return f"{program} %s"


def test_the_engines_own_report_is_opened_in_a_browser(
    server: Contract, process: Command, tmp_path: Path
) -> None:
    report, temporary = tmp_path / "report.html", tmp_path / "tmp"
    report.write_text("<html>the report</html>")
    temporary.mkdir()
    server.report = str(report)
    words = "backtest --symbol AAPL --open-report"
    done = process(words, BROWSER=browser(tmp_path), TMPDIR=str(temporary))
    assert done.code == 0, done.err
    assert (tmp_path / "opened").read_text() == report.as_uri()
    assert list(temporary.iterdir()) == [], "no copy is left"


def test_a_report_that_is_gone_is_said(server: Contract, process: Command, tmp_path: Path) -> None:
    server.report = str(tmp_path / "removed.html")
    done = process("backtest --symbol AAPL --open-report", BROWSER=browser(tmp_path))
    assert (done.code, "removed.html is gone" in done.err) == (2, True), done.err
    assert not (tmp_path / "opened").exists()


def test_a_remote_servers_report_is_fetched(remote: Contract, process: Command, tmp_path: Path) -> None:
    done = process("backtest --symbol AAPL --open-report", BROWSER=browser(tmp_path), TMPDIR=str(tmp_path))
    assert done.code == 0, done.err
    address = (tmp_path / "opened").read_text()
    assert Path(address.removeprefix("file://")).read_text() == "<html>the report</html>"


def test_a_failed_run_in_a_machine_format(server: Contract, cli: Command) -> None:
    failed = cli("--output", "yaml", "--quiet", "backtest", "--symbol", "FAIL")
    assert (failed.code, failed.out) == (1, "")
    assert json.loads(failed.err)["type"] == "run-failed"


def test_a_cut_stream_is_resumed_after_the_last_event(server: Contract, cli: Command) -> None:
    server.cuts = [2, 1]
    done = cli("--output", "json", "--verbose", "backtest", "--symbol", "AAPL")
    assert done.code == 0
    assert json.loads(done.out)["metrics"] == METRICS
    assert server.resumed_after[:1] == [None]
    assert done.err.count("state RUNNING") == 1, "nothing is shown twice"


def test_a_stream_cut_while_the_run_goes_on(server: Contract) -> None:
    """The run is still going at the cut, so the client must come back for more by the id it saw last."""
    server.cuts = [2, 2]
    with _started("backtest", "--symbol", "SLOW", "--verbose") as running:
        _until(lambda: len(server.resumed_after) == 3)
        assert server.resumed_after == [None, "epoch:2", "epoch:4"]
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130


def test_without_a_stream_the_run_is_asked_for(server: Contract, cli: Command) -> None:
    server.without_stream = True
    done = cli("--verbose", "backtest", "--symbol", "AAPL")
    assert done.code == 0
    assert "asking from time to time" in done.err


def test_a_lost_answer_does_not_start_a_second_run(server: Contract, cli: Command) -> None:
    server.lost_answers = 1
    assert cli("backtest", "--symbol", "AAPL").code == 0
    assert len(server.runs) == 1
    assert [path for method, path in server.asked if method == "POST"] == ["/api/v1/strategies/backtest"] * 2


def test_an_interrupt_cancels_the_run(server: Contract) -> None:
    with _started("backtest", "--symbol", "SLOW", "--output", "json") as running:
        _until(lambda: server.resumed_after)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    (run,) = server.runs.values()
    assert (running.returncode, out) == (130, "")
    assert run.state == "CANCELLED"
    assert json.loads(err.splitlines()[-1])["detail"] == f"run {run.id} was cancelled"


@pytest.mark.parametrize("words", [("backtest",), ("workflow", "run", "backtest")])
def test_an_interrupt_while_the_run_is_being_sent_cancels_it(
    server: Contract, words: tuple[str, ...]
) -> None:
    server.answering.clear()
    wanted = ("--symbol", "SLOW") if len(words) == 1 else ("--param", "symbol=SLOW")
    with _started(*words, *wanted, "--output", "json") as running:
        _until(lambda: server.runs)
        running.send_signal(signal.SIGINT)
        server.answering.set()
        out, err = running.communicate(timeout=30)
    (run,) = server.runs.values()
    assert (running.returncode, out, run.state) == (130, "", "CANCELLED")
    assert json.loads(err.splitlines()[-1])["detail"] == f"run {run.id} was cancelled"


def test_an_interrupt_before_there_is_a_run_is_said(own_home: Path) -> None:
    own_home.mkdir(mode=0o700)
    os.mkfifo(own_home / "config.yaml")  # whoever reads the settings waits for a writer that never comes
    with (
        _started("config", "list", "--output", "json") as running,
        (own_home / "config.yaml").open("w"),  # opens once the other end does
    ):
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (130, "")
    assert json.loads(err)["type"] == "interrupted"


def test_a_second_interrupt_leaves_at_once(server: Contract) -> None:
    with _started("backtest", "--symbol", "STUCK") as running:
        _until(lambda: server.resumed_after)
        running.send_signal(signal.SIGINT)
        _until(lambda: any(run.state == "CANCELLING" for run in server.runs.values()))
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=10)
    assert running.returncode == 130
    assert "is being cancelled" in err


def test_a_strategy_file_is_checked_here_and_sent_with_the_run(
    server: Contract, process: Command, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(STRATEGY)
    words = "--output json backtest --symbol AAPL --strategy ./mine.py:Mine --param n=7"
    done = process(words, cwd=tmp_path)
    assert done.code == 0, done.err
    assert server.strategies == {"mine.py": STRATEGY}
    (run,) = server.runs.values()
    assert run.request["strategy"] == stored_id(STRATEGY.encode(), "Mine")
    assert run.request["params"] == {"n": 7}
    refused = process(f"{words} --param m=1", cwd=tmp_path)
    assert refused.code == 2
    assert len(server.runs) == 1


def test_a_strategy_file_that_does_not_run_is_refused_with_its_line(
    server: Contract, process: Command, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("x = 1\nimport nothing_of_that_name\n")
    refused = process("backtest", "--symbol", "AAPL", "--strategy", "mine.py:Mine", cwd=tmp_path)
    assert refused.code == 2
    assert "mine.py, line 2, does not run: ModuleNotFoundError" in refused.err


def test_interactive_needs_a_terminal(server: Contract, process: Command) -> None:
    refused = process("backtest", "--interactive")
    assert refused.code == 2
    assert "--interactive needs a terminal" in refused.err


def test_interactive_asks_for_what_is_missing(server: Contract) -> None:
    answers = [
        "MSFT",
        "momentun",
        "ma_crossover",
        "50",
        "20",
        "5",
        "20",
        "2005-01-03",
        "2004-01-01",
        "",
        "",
        "5000",
    ]
    code, shown = _at_a_terminal(["backtest", "--interactive"], [*answers, "", "", "", "", ""])
    assert code == 0, shown
    (run,) = server.runs.values()
    assert run.request["symbol"] == "MSFT"
    assert run.request["params"] == {"fast": 5, "slow": 20}
    assert run.request["capital"] == 5000
    assert run.request["start"] == "2005-01-03"
    assert run.request["end"] is None
    assert "did you mean 'momentum'?" in shown
    assert "start 2005-01-03 is after end 2004-01-01" in shown


def test_progress_is_drawn_on_a_terminal_and_gone_at_the_end(server: Contract) -> None:
    code, shown = _at_a_terminal(["backtest", "--symbol", "AAPL"], [])
    assert code == 0
    assert "backtest" in shown


def test_in_process_wants_the_local_engine(remote: Contract, cli: Command) -> None:
    refused = cli("backtest", "--symbol", "AAPL", "--in-process")
    assert refused.code == 2
    assert "--in-process runs on this machine's own engine" in refused.err


def _started(*words: str) -> subprocess.Popen[str]:
    # A child of a background job ignores SIGINT: a terminal's child does not.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from cli.main import app; "
    command = [sys.executable, "-c", f"{code}sys.exit(app())", *words]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _until(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.01)


def _at_a_terminal(words: Sequence[str], answers: Sequence[str]) -> tuple[int, str]:
    """Run a command on a pseudo-terminal; each prompt (`]: `) gets the next answer."""
    ours, theirs = pty.openpty()
    env = environment(TERM="xterm", COLUMNS="120", LINES="40")
    command = [sys.executable, "-m", "gpt_trader", *words]
    running = subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
    )
    os.close(theirs)
    shown, waiting, end = "", list(answers), time.monotonic() + 40
    try:
        while time.monotonic() < end:
            if not select.select([ours], [], [], 0.1)[0]:
                continue
            try:
                text = os.read(ours, 65536).decode(errors="replace")
            except OSError:  # the other end is closed: it has ended
                break
            shown += text
            if shown.endswith("]: ") and waiting:
                os.write(ours, waiting.pop(0).encode() + b"\n")
        return running.wait(10), shown
    finally:
        running.kill()
        running.wait(5)
        os.close(ours)
