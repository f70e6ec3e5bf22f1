"""`paper` and `run` against a server that speaks the contract: options, what is sent, and what is written."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.commands.complete import complete_session
from cli.terminal.sessions import certified, readable
from gpt_trader.strategies.user import stored_id
from tests.cli.conftest import Command, environment
from tests.cli.contract_server import Contract
from tests.cli.contract_sessions import CLOSES, HASH
from tests.waiting import eventually

RANGE = "--start 2012-01-03 --end 2012-12-31"
BEGIN = "--quiet paper start --symbol AAPL"
LEG = {"symbol": "AAPL", "strategy": "momentum", "weight": 1.0}

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
        f"--output json paper start --replay --symbol AAPL --strategy momentum {RANGE} --speed max --follow"
    )
    assert (done.code, done.err) == (0, "")
    (run,) = server.runs.values()
    result = json.loads(done.out)
    assert result["session_id"] == result["run_id"] == run.id
    assert (result["state"], result["bars"], result["orders"], result["fills"]) == ("completed", 250, 41, 40)
    assert (result["final_equity"], result["ledger_hash"]) == (15_079.25, HASH)
    assert server.bodies[0] == {
        "legs": [LEG],
        "feed": "replay",
        "speed": "max",
        "start": "2012-01-03",
        "end": "2012-12-31",
    }
    assert server.asked[0] == ("POST", "/api/v1/paper-trade/sessions")

    certificate = json.loads(process(f"--output json paper certificate {run.id}").out)
    assert certificate["verdict"] == "equal"
    assert certificate.keys() >= {
        "replay_equal",
        "backtest_equal",
        "ledger_hash",
        "first_divergence",
        "covers",
    }


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("--schedule", {"feed": "schedule"}),
        ("--speed 60", {"speed": 60}),
        ("--name mine --no-report", {"name": "mine", "report": False}),
        ("--participation 0.01", {"participation": 0.01}),
        (
            "--daily-loss 0.03 --drawdown 0.2 --max-position 0.5 --max-exposure 0.9",
            {"risk": {"daily_loss": 0.03, "drawdown": 0.2, "position": 0.5, "exposure": 0.9}},
        ),
        (
            "--capital 5000 --commission per_order=1 --slippage 0",
            {"capital": 5000, "commission": {"per_order": 1.0}, "slippage": 0},
        ),
        (
            "--direction both --size 0.5 --stop-loss 0.05 --take-profit 0.1",
            {"direction": "both", "size": 0.5, "stop_loss": 0.05, "take_profit": 0.1},
        ),
        ("--as-of 2020-01-01", {"snapshot": "2020-01-01"}),
        (
            "--symbol IBM --strategy ma-crossover --param fast=5",
            {
                "legs": [
                    {"symbol": symbol, "strategy": "ma_crossover", "params": {"fast": 5}, "weight": 0.5}
                    for symbol in ("AAPL", "IBM")
                ]
            },
        ),
        (
            "--leg MSFT@0.4:ma_crossover:fast=5,slow=20",
            {
                "legs": [
                    {**LEG, "weight": 0.6},
                    {
                        "symbol": "MSFT",
                        "strategy": "ma_crossover",
                        "params": {"fast": 5, "slow": 20},
                        "weight": 0.4,
                    },
                ]
            },
        ),
        (
            "--leg MSFT:momentum",
            {"legs": [{**LEG, "symbol": symbol, "weight": 0.5} for symbol in ("AAPL", "MSFT")]},
        ),
    ],
)
def test_options_are_fields_and_what_is_not_given_is_not_sent(
    server: Contract, cli: Command, words: str, fields: dict[str, Any]
) -> None:
    for command in ("paper start", "run"):
        done = cli(f"--quiet {command} --symbol AAPL {words}")
        assert done.code == 0, done.err
    assert [body for body in server.bodies if body] == [{"legs": [LEG], **fields}] * 2


def test_as_a_workflow_it_is_the_same(server: Contract, cli: Command) -> None:
    legs = json.dumps([{"symbol": "AAPL", "params": {"lookback": "30"}}])
    words = ["--param", f"legs={legs}", "--param", "risk.drawdown=0.2", "--param", "speed=60"]
    assert cli("--quiet", "workflow", "run", "paper_trade", *words, "--follow").code == 0
    short = "--param symbol=AAPL --param strategy=momentum --param lookback=30 --param risk.drawdown=0.2"
    assert cli(f"--quiet workflow run paper_trade {short} --param speed=60").code == 0
    expected = {"legs": [{**LEG, "params": {"lookback": 30}}], "risk": {"drawdown": 0.2}, "speed": 60}
    assert [body for body in server.bodies if body] == [expected, expected]


def test_each_leg_may_have_a_file_of_its_own(server: Contract, cli: Command, tmp_path: Path) -> None:
    first, second = tmp_path / "mine.py", tmp_path / "other.py"
    first.write_text(STRATEGY)
    second.write_text(STRATEGY + "\n# another\n")
    legs = ["--leg", f"AAPL:{first}:Mine:n=7", "--leg", f"IBM:{second}:Mine"]
    done = cli("--quiet", "paper", "start", *legs)
    assert done.code == 0, done.err
    assert set(server.strategies) == {"mine.py", "other.py"}
    (run,) = server.runs.values()
    assert [leg["strategy"] for leg in run.request["legs"]] == [
        stored_id(file.read_bytes(), "Mine") for file in (first, second)
    ]
    assert run.request["legs"][0]["params"] == {"n": 7}


def test_without_follow_it_says_where_to_look(server: Contract, cli: Command) -> None:
    done = cli("--output json paper start --symbol AAPL")
    (run_id,) = server.runs
    assert json.loads(done.out).items() >= {"session_id": run_id, "run_id": run_id}.items()
    assert f"gpt-trader paper show {run_id[:8]}" in done.err


def test_a_session_is_waited_for_so_that_the_next_command_finds_it(server: Contract, cli: Command) -> None:
    server.sessions.late = 3
    done = cli("paper start --symbol AAPL --name slow --speed 86400")
    assert done.code == 0, done.err
    assert server.sessions.late == 0
    assert "86,400 times as fast as the market" in done.out
    assert cli("paper show slow").code == 0


def test_a_run_that_ended_before_it_began_a_session_says_why(server: Contract, cli: Command) -> None:
    server.sessions.late = 99
    done = cli("paper start --symbol EMPTY")
    assert (done.code, done.out) == (2, "")
    assert "no bars in this range" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("paper start", "symbol: is missing: give --symbol, e.g. --symbol AAPL, or --leg"),
        ("paper start --leg AAPL", "leg: cannot be read; allowed: ID:STRATEGY"),
        ("paper start --leg AAPL@:momentum", "leg: cannot be read"),
        ("paper start --leg :momentum", "leg: cannot be read"),
        ("paper start --leg AAPL:fast=3", "leg: cannot be read"),
        ("paper start --leg AAPL:momentum:lookback=", "leg: is not NAME=VALUE"),
        ("paper start --leg AAPL:momentm", "did you mean 'momentum'?"),
        ("paper start --leg AAPL:momentum:lookbck=3", "did you mean 'lookback'?"),
        ("paper start --leg AAPL@0.7:momentum --leg IBM@0.7:momentum", "the weights add up to 1.4"),
        (
            "paper start --symbol AAPL --symbol AAPL",
            "momentum on AAPL with the same parameters is given twice",
        ),
        ("paper start --strategy momentum --leg AAPL:momentum", "strategy: is of the legs of --symbol"),
        ("paper start --symbol AAPL --drawdown 2", "risk.drawdown: Input should be less than or equal to 1"),
        ("paper start --symbol AAPL --schedule --speed 5", "speed is for feed replay, not schedule"),
        ("run --live --symbol AAPL", "live trading is not in the program yet"),
        ("workflow run paper_trade --param leg=AAPL", "did you mean 'legs=JSON'?"),
        ("workflow run paper_trade --param legs=AAPL", "legs: is not a JSON list"),
        ("workflow run paper_trade --param risk.drawdwn=0.1", "did you mean 'drawdown'?"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_sent(
    server: Contract, cli: Command, words: str, said: str
) -> None:
    done = cli(words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert server.asked == []


def test_a_session_is_found_by_id_beginning_or_name(server: Contract, cli: Command) -> None:
    server.sessions.page = 2  # the session that is meant is not on the first page
    for name in ("pair", "other", "third"):
        assert cli(f"{BEGIN} --name {name}").code == 0
    session_id = next(iter(server.runs))
    server.sessions.page = 200
    for word in (session_id, session_id.upper(), session_id[:8], "pair"):
        assert json.loads(cli(f"--output json paper show {word}").out)["session_id"] == session_id
    missing = cli("paper show pare")
    assert missing.code == 2
    assert "did you mean 'pair'?" in missing.err
    assert cli(f"paper show {session_id[:3]}").code == 2, "three letters are no beginning of an id"
    assert cli(f"{BEGIN} --name pair").code == 0
    twice = cli("paper show pair")
    assert twice.code == 2
    assert "2 sessions are meant: give an id" in twice.err


def test_lists_have_pages(server: Contract, cli: Command) -> None:
    for number in range(5):
        assert cli(f"{BEGIN} --name s{number}").code == 0
    server.asked.clear()
    items = json.loads(cli("--output json paper list --limit 3").out)
    assert [item["name"] for item in items] == ["s4", "s3", "s2"]
    assert json.loads(cli("--output json paper list --state paused").out) == []
    assert "no sessions yet" in cli("paper list --state paused").out
    table = cli("paper list").out
    assert all(f"s{number}" in table for number in range(5))


def test_what_is_shown_of_one(server: Contract, cli: Command) -> None:
    assert cli(f"{BEGIN} --name pair").code == 0
    shown = cli("paper show pair").out
    for word in ("pair", "active, traded now", "AAPL momentum", "10,250.50", "2012-02-06", HASH, "67.38"):
        assert word in shown
    assert "it is worth less than its commission" in cli("paper orders pair").out
    (fill,) = csv.DictReader(io.StringIO(cli("--output csv paper fills pair").out))
    assert (fill["units"], fill["price"]) == ("24.5", "407.25")
    account = json.loads(cli("--output json paper positions pair").out)
    assert (account["cash"], account["items"][0]["units"]) == ("2500.5", "24.5")
    assert "24.5" in cli("paper positions pair").out


def test_the_whole_curve_is_fetched_page_by_page(server: Contract, cli: Command) -> None:
    assert cli(f"{BEGIN} --name pair").code == 0
    columns = json.loads(cli("--output json paper equity pair").out)
    assert {name: len(values) for name, values in columns.items()} == {
        "time": CLOSES,
        "equity": CLOSES,
        "cash": CLOSES,
    }
    rows = list(csv.DictReader(io.StringIO(cli("--output csv paper equity pair").out)))
    assert rows[-1] == {"time": "2012-01-25T00:00:00Z", "equity": "10025.5", "cash": "2500.5"}
    assert "2012-01-05" not in cli("paper equity pair").out, "a table shows the newest 20"


def test_pause_resume_and_stop_are_asked_for(server: Contract, cli: Command) -> None:
    assert cli(f"{BEGIN} --name pair").code == 0
    (session_id,) = server.runs
    for words in ("pause", "resume", "stop", "stop --flatten"):
        done = cli(f"paper {words} pair")
        assert done.code == 0, done.err
        assert f"session pair is asked to {words.split()[0]}" in done.out
    assert server.sessions.commands == [
        (session_id, "pause", False),
        (session_id, "resume", False),
        (session_id, "stop", False),
        (session_id, "stop", True),
    ]
    server.sessions.rows[session_id]["ended_at"] = "2026-01-03T00:00:00Z"
    assert "it takes no commands" in cli("paper pause pair").err


def test_a_certificate_that_differs_names_the_place(server: Contract, cli: Command) -> None:
    assert cli(f"{BEGIN} --name pair").code == 0
    server.sessions.certificate |= {  # type: ignore[operator]
        "verdict": "diverged",
        "backtest_equal": False,
        "first_divergence": {
            "what": "fill", "of": "backtest", "time": "2012-03-01T00:00:00Z", "session": None,
            "other": {"leg": 0, "units": 5.0},
            "reason": "paused by local (2012-02-29); later also everything was closed",
        },
    }  # fmt: skip
    server.sessions.grown = True
    done = cli("paper certificate pair")
    assert done.code == 0, "a backtest does not pause: a finding, not a fault"
    assert (
        "first differs from its backtest at 2012-03-01:\n  paused by local (2012-02-29)\n  later also"
        in done.out
    )
    assert "there are more by now" in done.out
    assert json.loads(cli("--output json paper certificate pair").out)["current"] is False


def test_a_replay_that_differs_is_a_failure(server: Contract, cli: Command) -> None:
    assert cli(f"{BEGIN} --name pair").code == 0
    (session_id,) = server.runs
    fine = json.loads(cli("--output json paper replay pair").out)
    assert (fine["session_id"], fine["verdict"]) == (session_id, "equal")
    assert {"session": session_id} in server.bodies
    server.sessions.certificate |= {"verdict": "diverged", "replay_equal": False}  # type: ignore[operator]
    for command in ("replay", "certificate"):
        done = cli(f"paper {command} pair")
        assert done.code == 1
        assert "the replay of the session's inputs does not lead to its ledger" in done.err


def test_a_session_without_a_certificate_says_so(server: Contract, cli: Command) -> None:
    assert cli(f"{BEGIN} --name pair").code == 0
    server.sessions.certificate = None
    assert "no certificate yet" in cli("paper certificate pair").err


def test_step_runs_the_day_for_all_or_for_some(server: Contract, cli: Command) -> None:
    assert "no open session trades by a schedule" in cli("paper step").out
    assert cli(f"{BEGIN} --schedule --name pair").code == 0
    (session_id,) = (run.id for run in server.runs.values() if run.flow == "paper_trade")
    done = cli("paper step --session pair --no-refresh")
    assert done.code == 0, done.err
    assert "pair" in done.out
    assert {"sessions": [session_id], "refresh": False} in server.bodies


def test_the_table_of_a_run_has_the_certificate(server: Contract, cli: Command) -> None:
    out = cli("paper start --symbol AAPL --name pair --follow").out
    lines = [line.split() for line in out.splitlines()]
    assert ["total", "return", "50.79", "%"] in lines
    assert ["final", "equity", "15,079.25"] in lines
    assert ["certificate", "equal"] in lines
    assert "/runs/report.html" in out


def test_a_session_that_has_seen_no_bar_yet_is_shown(server: Contract, cli: Command) -> None:
    out = cli("paper start --schedule --symbol AAPL --name daily --follow").out
    assert "0 bars, 0 fills: active" in out.splitlines()
    assert "nothing to compare yet" in out
    assert "None" not in out


def test_lists_of_runs_say_what_each_was_about(server: Contract, cli: Command) -> None:
    assert cli(f"{BEGIN} --symbol IBM --name pair").code == 0
    assert cli("--quiet paper start --leg AAPL:momentum --leg IBM:breakout").code == 0
    (session_id, *_) = server.runs
    assert cli("--quiet paper replay pair").code == 0
    listed = cli("workflow runs").out
    for about in ("AAPL, IBM momentum", "AAPL, IBM 2 strategies", f"session {session_id[:8]}"):
        assert about in listed


def test_ctrl_c_leaves_the_session_trading(server: Contract, own_home: Path) -> None:
    command = [sys.executable, "-m", "gpt_trader", "paper", "start", "--symbol", "SLOW", "--follow"]
    followed = subprocess.Popen(
        command,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    eventually(lambda: server.resumed_after, seconds=30, what="the run followed")
    os.kill(followed.pid, signal.SIGINT)
    _, said = followed.communicate(timeout=30)
    (run,) = server.runs.values()
    assert followed.returncode == 130
    assert f"the session {run.id} goes on" in said
    assert run.state == "RUNNING"


def test_sessions_are_completed_by_name_and_id(server: Contract, cli: Command) -> None:
    assert cli(f"{BEGIN} --name pair").code == 0
    assert cli("--quiet", "paper", "start", "--symbol", "AAPL", "--name", "two words").code == 0
    one, two = server.runs
    assert complete_session("pa") == ["pair"]
    assert set(complete_session("")) == {"pair", one, two}


def test_a_person_counts_legs_from_1_and_a_program_from_0() -> None:
    row = {"leg": 0, "time": "2012-01-03T00:00:00Z", "units": "1"}
    assert readable(row)["leg"] == 1
    same = {"verdict": "diverged", "replay_equal": False, "backtest_equal": None, "ledger_hash": "0" * 64}
    first = {"of": "replay", "time": row["time"], "reason": "units", "session": row, "other": row}
    console = Console(record=True, width=120, file=io.StringIO())
    for each in certified({**same, "first_divergence": first}):
        console.print(each)
    assert console.export_text().count("leg=1") == 2
