"""What a run under the warm worker does, seen from the server, the event log and the outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.conftest import Engine, gone, kill, pid_in
from tests.waiting import eventually

pytestmark = pytest.mark.house


def test_a_run_completes_and_tells_everything(running: Engine) -> None:
    run_id = running.run("adds", {"a": 2, "b": 3})

    assert running.end_of(run_id)["type"] == "COMPLETED"

    told = eventually(lambda: _with_last_line(running, run_id), what="the last log line")
    assert running.states_told(run_id) == ["RUNNING", "COMPLETED"]
    server_states = running.prefect.get("/flow_run_states/", params={"flow_run_id": run_id}).json()
    keys = {event.key for event in told if event.type == "state"}
    assert keys <= {state["id"] for state in server_states}, "a state's key is not Prefect's id of it"
    assert [event.data["done"] for event in told if event.type == "progress"] == [0, 1]
    lines = [event.data["message"] for event in told if event.type == "log"]
    assert {"printed 2 + 3", "logged 5"} <= set(lines)
    assert lines.index("printed 2 + 3") < lines.index("logged 5")
    order = [event.type for event in told if event.data.get("message") != lines[-1]]
    assert order.index("progress") > 0, "progress came before Running"


def _with_last_line(engine: Engine, run_id: str) -> list | None:
    told = engine.told(run_id)
    return told if any("Finished in state" in str(event.data.get("message")) for event in told) else None


def test_log_lines_reach_prefect(running: Engine) -> None:
    run_id = running.run("adds")
    running.end_of(run_id)

    def lines() -> set[str]:
        wanted = {"logs": {"flow_run_id": {"any_": [run_id]}}}
        return {line["message"] for line in running.prefect.post("/logs/filter", json=wanted).json()}

    eventually(lambda: {"printed 1 + 2", "logged 3"} <= lines(), what="the run's lines in Prefect")


def test_a_failing_flow_fails_with_its_message(running: Engine) -> None:
    run_id = running.run("fails")

    state = running.end_of(run_id)

    assert state["type"] == "FAILED"
    assert "no such luck" in state["message"]
    eventually(lambda: running.states_told(run_id) == ["RUNNING", "FAILED"], what="both states")
    told = next(event for event in running.told(run_id) if event.data.get("state") == "FAILED")
    assert "no such luck" in told.data["message"]


def test_a_running_run_is_cancelled(running: Engine, short_folder: Path) -> None:
    run_id = running.run("waits", {"folder": str(short_folder)})
    pid = pid_in(short_folder / "started")

    assert running.set_state(run_id, "CANCELLING")["status"] == "ACCEPT"

    assert running.end_of(run_id, within=15)["type"] == "CANCELLED"
    assert (short_folder / "finally").exists()
    hook_pid = pid_in(short_folder / "hook-CANCELLING")
    assert hook_pid not in {pid, running.worker and running.worker.pid}, "the hook ran in the worker"
    eventually(lambda: running.states_told(run_id)[-1] == "CANCELLED", what="the event of the end")
    assert running.states_told(run_id) == ["RUNNING", "CANCELLING", "CANCELLED"]
    assert gone(pid)
    eventually(lambda: run_id not in running.claims(), what="no claim")


def test_a_run_cancelled_at_any_early_moment_ends(running: Engine, short_folder: Path) -> None:
    runs = []
    for number in range(5):
        folder = short_folder / str(number)
        folder.mkdir()
        runs.append(running.run("waits", {"folder": str(folder)}))
        state = running.state(runs[-1])
        while number and state["type"] == "SCHEDULED":  # the first at once, the others on the way to Running
            state = running.state(runs[-1])
        running.set_state(runs[-1], "CANCELLING")

    for run_id in runs:
        assert running.end_of(run_id, within=30)["type"] == "CANCELLED"


def test_a_killed_process_is_a_crash_at_once(running: Engine, short_folder: Path) -> None:
    run_id = running.run("waits", {"folder": str(short_folder)})

    kill(pid_in(short_folder / "started"))

    state = running.end_of(run_id, within=10)
    assert state["type"] == "CRASHED"
    assert "-9" in state["message"]
    pid_in(short_folder / "hook-CRASHED")
    # Running itself may be lost with the process: the API fills it in from Prefect.
    eventually(lambda: running.states_told(run_id)[-1:] == ["CRASHED"], what="the event of the crash")


def test_two_runs_are_under_way_at_once(running: Engine, short_folder: Path) -> None:
    left = running.run("meets", {"folder": str(short_folder), "me": "left", "other": "right"})
    right = running.run("meets", {"folder": str(short_folder), "me": "right", "other": "left"})

    assert {running.end_of(left)["type"], running.end_of(right)["type"]} == {"COMPLETED"}


def test_a_dead_template_is_replaced(running: Engine, short_folder: Path) -> None:
    run_id = running.run("waits", {"folder": str(short_folder)})
    pid = pid_in(short_folder / "started")

    template = running.worker_mark()["template_pid"]
    kill(template)

    assert running.end_of(run_id, within=30)["type"] == "CRASHED"
    assert (short_folder / "finally").exists()
    eventually(lambda: gone(pid), what="the end of the process")  # it reports before it goes
    assert running.end_of(running.run("adds"), within=60)["type"] == "COMPLETED"
    eventually(lambda: running.worker_mark()["template_pid"] != template, what="the new template's pid")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_worker_ends_its_runs_and_reports_them(
    running: Engine, short_folder: Path, number: signal.Signals
) -> None:
    run_id = running.run("waits", {"folder": str(short_folder)})
    pid = pid_in(short_folder / "started")
    template = running.worker_mark()["template_pid"]

    assert running.stop_worker(number) == 0

    assert running.state(run_id)["type"] == "CRASHED"
    assert (short_folder / "finally").exists()
    assert gone(pid)
    assert gone(template)
    assert not (running.home.state / "worker.json").exists()
    assert running.claims() == set()


def test_a_killed_worker_leaves_no_process(running: Engine, short_folder: Path) -> None:
    run_id = running.run("waits", {"folder": str(short_folder)})
    pid = pid_in(short_folder / "started")
    template = running.worker_mark()["template_pid"]

    running.stop_worker(signal.SIGKILL)

    eventually(lambda: gone(pid) and gone(template), seconds=15, what="the end of template and child")
    assert (short_folder / "finally").exists()
    assert running.state(run_id)["type"] == "CRASHED"


@pytest.mark.parametrize(("asked", "expected"), [(None, "CRASHED"), ("CANCELLING", "CANCELLED")])
def test_a_run_whose_processes_were_all_killed_is_settled_at_the_next_start(
    running: Engine, short_folder: Path, asked: str | None, expected: str
) -> None:
    run_id = running.run("waits", {"folder": str(short_folder)})
    pid = pid_in(short_folder / "started")
    template = running.worker_mark()["template_pid"]
    eventually(lambda: str(pid) in (running.home.state / "running" / f"{run_id}.json").read_text())
    worker = running.worker
    assert worker is not None
    try:
        for each in (worker.pid, template, pid):
            os.kill(each, signal.SIGSTOP)  # all at once: none may see another one die
    finally:
        for each in (pid, template, worker.pid):
            kill(each)
        worker.wait()
    if asked:
        running.set_state(run_id, asked)
    assert running.state(run_id)["type"] == (asked or "RUNNING")
    waiting = running.run("adds")

    running.start_worker()

    assert running.state(run_id)["type"] == expected
    assert running.states_told(run_id)[-1] == expected
    assert run_id not in running.claims()
    assert running.end_of(waiting)["type"] == "COMPLETED", "a scheduled run stays and is run"


def test_a_run_of_somebody_else_is_left_alone(running: Engine) -> None:
    running.stop_worker()
    run_id = running.run("adds")
    running.set_state(run_id, "PENDING")
    running.set_state(run_id, "RUNNING")

    running.start_worker()

    assert running.state(run_id)["type"] == "RUNNING"
    running.set_state(run_id, "CRASHED", force=True)


def test_the_stock_process_worker_gives_the_same(running: Engine, tmp_path: Path) -> None:
    running.stop_worker()
    run_ids = running.run("adds", {"a": 20, "b": 22}), running.run("fails")
    command = [
        sys.executable,
        "-m",
        "prefect",
        "worker",
        "start",
        "--pool",
        "gpt-trader",
        "--type",
        "process",
    ]
    # The stock worker keeps files in a folder of the temporary one that it shares with other users of the machine.
    environment = {**running.environment, "TMPDIR": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        stock = subprocess.Popen(
            command,
            env=environment,
            stdout=log,
            stderr=log,
            cwd=tmp_path,
            # Whoever runs the tests in the background may have it ignored, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
    try:
        ends = [running.end_of(run_id, within=120)["type"] for run_id in run_ids]
        assert ends == ["COMPLETED", "FAILED"], (tmp_path / "log").read_text()
        # Prefect knows a state a moment before the hook has told it.
        eventually(lambda: running.states_told(run_ids[0]) == ["RUNNING", "COMPLETED"], what="both states")
    finally:
        stock.send_signal(signal.SIGINT)
        stock.wait(timeout=60)

    assert [event.data["done"] for event in running.told(run_ids[0]) if event.type == "progress"] == [0, 1]


@pytest.mark.timeout(240)
def test_two_workers_share_a_pool_and_neither_settles_what_the_other_runs(
    running: Engine, tmp_path: Path
) -> None:
    environment = {**running.environment, "GPT_TRADER_HOME": str(tmp_path)}
    mark, log = tmp_path / "state" / "worker.json", tmp_path / "worker.log"
    with log.open("ab") as output:
        other = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.flows.sample.worker"],
            env=environment,
            stdout=output,
            stderr=output,
        )
    with other:
        try:
            eventually(
                lambda: mark.exists() and '"ready"' in mark.read_text(), seconds=90, what="the other worker"
            )
            runs = [running.run("adds") for _ in range(12)]
            ends = [running.end_of(run_id)["type"] for run_id in runs]
        finally:
            other.terminate()
            other.wait(timeout=40)
    assert ends == ["COMPLETED"] * len(runs)
    for run_id in runs:
        states = running.prefect.get("/flow_run_states/", params={"flow_run_id": run_id}).json()
        told = [(state["type"], state["name"], state["message"]) for state in states]
        # Scheduled it may have been several times: the deployment's concurrency limit makes runs wait.
        taken = [state["type"] for state in states if state["type"] != "SCHEDULED"]
        assert taken == ["PENDING", "RUNNING", "COMPLETED"], told
    assert "is left to whoever has it" in log.read_text() + running.log.read_text(), "they never met"
