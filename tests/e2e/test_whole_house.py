"""The whole house: what a person, a script, the REST API and Prefect's UI meet, with nothing in it replaced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.engine.record import PARTS
from storage.cluster import is_ready, locate
from tests.e2e.conftest import CONTRACT
from tests.e2e.following import ByCurl
from tests.e2e.house import House, run_ids_in
from tests.waiting import eventually

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the engine's processes in /proc"),
]

REQUEST = {
    "symbol": "AAPL",
    "strategy": "ma_crossover",
    "params": {"fast": 10, "slow": 30},
    "start": "2005-01-03",
    "end": "2012-12-31",
    "commission": 0.001,
    "slippage": 0,
    "capital": 10000,
}


def by_rest(house: House) -> str:
    headers_and_body = house.api("POST", "/strategies/backtest", json=REQUEST)
    assert headers_and_body.status_code == 202
    return str(headers_and_body.json()["run_id"])


def by_workflow_run(house: House) -> str:
    flat = {**REQUEST, **REQUEST["params"]}
    given = [f"--param={name}={value}" for name, value in flat.items() if name != "params"]
    return str(house.json("workflow", "run", "backtest", *given, "--follow")["run_id"])


def by_prefect_ui(house: House) -> str:
    """What the page "Quick run" of Prefect's UI posts."""
    deployment = house.prefect("GET", "/deployments/name/backtest/backtest")["id"]
    created = house.prefect(
        "POST",
        f"/deployments/{deployment}/create_flow_run",
        json={
            "parameters": {"request": REQUEST},
            "state": {"type": "SCHEDULED", "message": "Run from the Prefect UI with defaults"},
        },
    )
    return str(created["id"])


def by_prefect_command(house: House) -> str:
    environment = house.environment | {
        "PREFECT_API_URL": f"{house.record.prefect_url}/api",
        "PREFECT_HOME": str(house.cwd / "prefect"),
        "DO_NOT_TRACK": "1",
    }
    prefect = [sys.executable, "-P", "-m", "prefect", "deployment", "run", "backtest/backtest"]
    done = subprocess.run(
        [*prefect, "--param", f"request={json.dumps(REQUEST)}"],
        env=environment,
        cwd=house.cwd,
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    return run_ids_in(done.stdout)[0]


def in_process(house: House) -> str:
    return str(house.json(*CONTRACT, "--in-process")["run_id"])


@pytest.mark.parametrize(
    "way",
    [by_rest, by_workflow_run, by_prefect_ui, by_prefect_command, in_process],
    ids=lambda way: way.__name__,
)
def test_every_way_in_gives_the_same_result(
    house: House, contract: dict[str, Any], way: Callable[[House], str]
) -> None:
    run_id = way(house)
    assert run_id != contract["run_id"]
    house.await_state(run_id, {"COMPLETED"})
    found = house.result(run_id)
    assert found["result_hash"] == contract["result_hash"]
    assert found["metrics"] == contract["metrics"]
    listed = {run["run_id"] for run in house.json("workflow", "runs", "--limit", "1000")}
    assert {run_id, contract["run_id"]} <= listed


def test_a_run_in_process_is_the_local_users_and_the_engines_alone(
    house: House, contract: dict[str, Any]
) -> None:
    astray = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    run_id = in_process(replace(house, environment=house.environment | astray))
    here, by_the_api = (house.json("workflow", "show", found) for found in (run_id, contract["run_id"]))
    for fact in ("flow", "owner", "request"):
        assert (fact, here[fact]) == (fact, by_the_api[fact])
    assert here["owner"] == "local"
    assert sorted([*here["tags"], "research"]) == sorted(by_the_api["tags"]), "the deployment adds its own"


def test_a_second_call_finds_the_engine_and_says_nothing(house: House, contract: dict[str, Any]) -> None:
    before = {name: part["pid"] for name, part in house.json("status")["parts"].items()}
    assert set(before) == set(PARTS)
    again = house.run("--output", "json", *CONTRACT)
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout)["result_hash"] == contract["result_hash"]
    assert {name: part["pid"] for name, part in house.json("status")["parts"].items()} == before


def test_a_runs_story_can_be_read_again_from_any_event(house: House, contract: dict[str, Any]) -> None:
    path = f"/workflows/runs/{contract['run_id']}/events"
    told = house.api("GET", path).text
    blocks = [
        block for block in told.replace("\r\n", "\n").split("\n\n") if block.startswith(("id:", "event:"))
    ]
    events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
    assert json.loads(events[-1]["data"])["state"] == "COMPLETED"
    assert {event["event"] for event in events} == {"state", "progress", "log", "result"}
    middle = events[len(events) // 2]["id"]
    key = house.home.root.joinpath("key").read_text(encoding="ascii").strip()
    resumed = subprocess.run(
        ["curl", "-sSf", "-H", f"Authorization: Bearer {key}", "-H", f"Last-Event-ID: {middle}",
         f"{house.record.api_url}/api/v1{path}"],
        capture_output=True, text=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    assert [line for line in resumed.splitlines() if line.startswith("id: ")] == [
        f"id: {event['id']}" for event in events[len(events) // 2 + 1 :]
    ]


def test_ctrl_c_cancels_the_run_and_leaves_nothing(house: House, tmp_path: Path) -> None:
    known = {run["run_id"] for run in house.json("workflow", "runs", "--limit", "1000")}
    command = house.begin(
        "--output", "json", "backtest", "--symbol", "AAPL", "--strategy", "./gated.py:Gated",
        "--param", f"gate={tmp_path / 'never'}",
    )  # fmt: skip
    run_id = begun_since(house, known)
    house.await_state(run_id, {"RUNNING"})
    _, child = house.child_of(run_id)
    command.send_signal(signal.SIGINT)
    stdout, stderr = command.communicate(timeout=30)
    assert (command.returncode, stdout) == (130, "")
    assert json.loads(stderr.splitlines()[-1])["detail"] == f"run {run_id} was cancelled"
    assert house.state(run_id) == "CANCELLED"
    assert child not in house.processes()
    assert not (house.home.runs / run_id).exists()
    assert list((house.home.root / "lake" / "tmp").iterdir()) == []


def begun_since(house: House, known: set[str]) -> str:
    from tests.waiting import eventually

    def look() -> str | None:
        listed = {run["run_id"] for run in house.api("GET", "/workflows/runs?limit=5").json()["items"]}
        return next(iter(listed - known), None)

    return eventually(look, seconds=30, what="a new run")


def test_worker_and_run_killed_together_leave_no_run_stuck(
    house: House, contract: dict[str, Any], tmp_path: Path
) -> None:
    run_id = house.begin_gated(tmp_path / "never")
    worker, child = house.child_of(run_id)
    for pid in (worker, child):
        os.kill(pid, signal.SIGKILL)
    house.await_state(run_id, {"CRASHED"})
    house.await_part_after("worker", worker)
    assert not (house.home.runs / run_id).exists()
    assert house.json(*CONTRACT)["result_hash"] == contract["result_hash"]


def test_a_run_outlives_every_server(house: House, contract: dict[str, Any], tmp_path: Path) -> None:
    """API, Prefect's server and PostgreSQL are killed under a run, one after the other: it completes all the same."""
    gate = tmp_path / "gate"
    run_id = house.begin_gated(gate)
    for name in ("api", "prefect", "database"):
        house.kill_part(name)
    gate.touch()
    house.await_state(run_id, {"COMPLETED"})
    assert house.result(run_id)["metrics"]["trades"] == 1
    assert house.json(*CONTRACT)["result_hash"] == contract["result_hash"]


def test_a_run_that_ends_while_the_database_is_away_waits_for_it(house: House, tmp_path: Path) -> None:
    """The supervisor is held, so that PostgreSQL stays away until the run has tried to keep its result."""

    def is_tried() -> bool:
        return any(run_id in path.name for path in house.home.runs.glob(".*"))

    def is_computing() -> bool:
        return any(event == "progress" and data["stage"] == "simulate" for _, event, data in told.told)

    gate = tmp_path / "gate"
    run_id = house.begin_gated(gate)
    told = ByCurl(house, run_id)
    eventually(is_computing, what="the run's gate")
    cluster = locate(house.home)
    assert cluster is not None
    killed = house.pid("database")
    supervisor = house.record.supervisor.pid
    os.kill(supervisor, signal.SIGSTOP)
    try:
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: not is_ready(cluster), seconds=20, what="PostgreSQL's end")
        gate.touch()
        eventually(is_tried, seconds=60, what="the run's try to keep its result")
    finally:
        os.kill(supervisor, signal.SIGCONT)
    house.await_part_after("database", killed)
    house.await_state(run_id, {"COMPLETED"})
    assert house.result(run_id)["metrics"]["trades"] == 1
    assert told.all()[-1][2]["state"] == "COMPLETED"


ALTERNATING = '''
from gpt_trader.strategies.base import Strategy


class Alternating(Strategy):
    """In for `bars_in` bars, out for as many."""

    bars_in: int = 3

    def targets(self, bars, first=0):
        import numpy as np

        wanted = (np.arange(len(bars)) // self.bars_in % 2).astype(float)
        wanted[:first] = 0
        return wanted
'''


def test_a_users_strategy_is_kept_with_its_run(house: House) -> None:
    """Run beside a `tasks.py` and `flows.py` of the user's, by an interpreter that puts them first."""
    mine = house.cwd / "mine.py"
    mine.write_text(ALTERNATING)
    command = ["--output", "json", "backtest", "--symbol", "IBM", "--strategy", "./mine.py:Alternating"]
    done = house.run(*command, "--param", "bars_in=7", python=(sys.executable,))
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert first["params"] == {"bars_in": 7}

    mine.write_text(ALTERNATING.replace("% 2", "% 2 * 0.5"))
    changed = house.json(*command[2:], "--param", "bars_in=7")
    assert changed["result_hash"] != first["result_hash"]
    again = house.json("workflow", "reproduce", first["run_id"])
    assert again["run_id"] != first["run_id"]
    assert again["result_hash"] == first["result_hash"]


def test_a_users_strategy_that_fails_says_where(house: House) -> None:
    (house.cwd / "broken.py").write_text(ALTERNATING.replace("astype(float)", "astype(float) / nosuch"))
    done = house.run("backtest", "--symbol", "AAPL", "--strategy", "./broken.py:Alternating")
    assert (done.returncode, done.stdout) == (1, "")
    assert "NameError: name 'nosuch' is not defined" in done.stderr
    run_id = run_ids_in(done.stderr)[0]
    assert f"gpt-trader workflow logs {run_id}" in done.stderr
    assert house.state(run_id) == "FAILED"
    assert not (house.home.runs / run_id).exists()


def test_a_file_of_bars_is_ingested_and_used(house: House) -> None:
    days = [f"2021-{1 + i // 28:02d}-{1 + i % 28:02d}" for i in range(120)]
    rows = [f"{day},{100 + i},{103 + i},{99 + i},{102 + i},1000" for i, day in enumerate(days)]
    rows[60] = f"{days[60]},160,163,159,NaN,1000"
    (house.cwd / "acme.csv").write_text("Date,Open,High,Low,Last,Volume\n" + "\n".join(reversed(rows)) + "\n")
    ingested = house.json(
        "data", "ingest", "--file", "acme.csv", "--symbol", "ACME", "--column", "close=Last",
    )  # fmt: skip
    (series,) = ingested["series"]
    assert (series["symbol"], series["added"], series["quarantined"]) == ("ACME", 119, 1)
    result = house.json("backtest", "--symbol", "ACME", "--strategy", "momentum")
    assert (result["bars"], result["start"], result["end"]) == (119, days[0], days[-1])
    assert result["snapshot_id"] == ingested["snapshot_id"]
    assert result["metrics"]["trades"] > 0


def test_an_unknown_symbol_says_what_there_is_and_how_to_bring_more(house: House) -> None:
    done = house.run("--output", "json", "backtest", "--symbol", "AAPPL")
    assert (done.returncode, done.stdout) == (2, "")
    error = json.loads(done.stderr)
    (problem,) = error["problems"]
    assert (error["type"], error["exit_code"]) == ("unknown-name", 2)
    assert (problem["field"], problem["value"], problem["nearest"]) == ("symbol", "AAPPL", "AAPL")
    assert {"AAPL", "FB", "GOOG", "IBM", "MSFT"} <= set(problem["allowed"].split(", "))
    assert "gpt-trader data ingest --source csv --file FILE --symbol AAPPL" in error["detail"]


def test_down_leaves_nothing_and_the_next_call_starts_it_again(
    house: House, contract: dict[str, Any], tmp_path: Path
) -> None:
    run_id = house.begin_gated(tmp_path / "never")
    running = house.processes()
    pids = {house.record.supervisor.pid, *map(house.pid, PARTS), house.child_of(run_id)[1]}
    assert pids <= set(running)

    began = time.monotonic()
    assert house.json("down") == {"state": "stopped", "was_running": True}
    assert time.monotonic() - began < 30
    assert house.processes() == {}
    assert not house.home.engine.exists()
    assert {part["state"] for part in house.json("status")["parts"].values()} == {"stopped"}
    assert house.json("down") == {"state": "stopped", "was_running": False}

    started = house.run("--output", "json", *CONTRACT)
    assert "starting the local engine" in started.stderr
    assert json.loads(started.stdout)["result_hash"] == contract["result_hash"]
    assert house.state(run_id) == "CRASHED"
    assert not (house.home.runs / run_id).exists()
