"""Retry, approve and reject, and schedules: against a real Prefect server, whose UI would show the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.api.conftest import Engine, Prefect
from tests.api.test_health_and_errors import problem


@pytest.mark.parametrize("state", ["FAILED", "CRASHED", "CANCELLED"])
def test_what_did_not_complete_is_tried_again_as_a_run_of_its_own(
    engine_api: Engine, prefect: Prefect, state: str
) -> None:
    first = engine_api.start(params={"lookback": 7})["run_id"]
    prefect.set_state(first, state, "for the test")
    headers = {"Idempotency-Key": f"again-{state}"}
    answers = [engine_api.http.post(f"/workflows/runs/{first}/retry", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    (second,) = {answer.json()["run_id"] for answer in answers}
    assert second != first
    assert answers[0].headers["location"] == f"/api/v1/workflows/runs/{second}"
    view = engine_api.http.get(f"/workflows/runs/{second}").json()
    assert view["request"]["params"] == {"lookback": 7}
    assert f"retry-of:{first}" in view["tags"]


def test_what_goes_on_or_has_completed_is_not_tried_again(engine_api: Engine, prefect: Prefect) -> None:
    run = engine_api.start()["run_id"]
    assert (
        "is SCHEDULED"
        in problem(engine_api.http.post(f"/workflows/runs/{run}/retry"), 409, "conflict")["detail"]
    )
    prefect.set_state(run, "COMPLETED")
    assert (
        "is COMPLETED"
        in problem(engine_api.http.post(f"/workflows/runs/{run}/retry"), 409, "conflict")["detail"]
    )


def test_a_run_that_waits_is_approved_and_one_is_rejected(engine_api: Engine, prefect: Prefect) -> None:
    approved, rejected = (engine_api.start()["run_id"] for _ in range(2))
    for run, step in ((approved, "approve"), (rejected, "reject")):
        refused = problem(engine_api.http.post(f"/workflows/runs/{run}/{step}"), 409, "conflict")
        assert "does not wait for an approval: it is SCHEDULED" in refused["detail"]
        prefect.set_state(run, "RUNNING")
        prefect.set_state(run, "PAUSED")
    answer = engine_api.http.post(f"/workflows/runs/{approved}/approve", json={"input": None})
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] in {"SCHEDULED", "RUNNING"}
    answer = engine_api.http.post(f"/workflows/runs/{rejected}/reject")
    assert answer.status_code == 202, answer.text
    view = engine_api.http.get(f"/workflows/runs/{rejected}").json()
    assert (view["state"], view["message"]) == ("CANCELLED", "rejected by local")


def test_another_users_run_is_not_there_for_any_step(engine_api: Engine, prefect: Prefect) -> None:
    run = engine_api.start()["run_id"]
    prefect.set_state(run, "FAILED")
    bob = {"Authorization": "Bearer key-of-bob"}
    root = f"{engine_api.url}/api/v1/workflows/runs/{run}"
    problem(httpx.post(f"{root}/retry", headers=bob), 404, "not-found")
    for step in ("approve", "reject"):  # bob may not trade at all
        problem(httpx.post(f"{root}/{step}", headers=bob), 403, "denied")
    for step in ("retry", "approve", "reject"):
        problem(engine_api.http.post(f"/workflows/runs/{uuid4()}/{step}"), 404, "not-found")


@pytest.fixture
def unscheduled(engine_api: Engine) -> Iterator[Engine]:
    """The engine, left without schedules."""
    yield engine_api
    for item in engine_api.http.get("/workflows/schedules").json()["items"]:
        url = f"/workflows/{item['workflow']}/schedule"
        assert engine_api.http.delete(url, params={"slug": item["slug"]}).status_code == 204


def schedules_in_prefect(prefect: Prefect, name: str) -> list[dict[str, Any]]:
    found = prefect.http.get(f"/deployments/name/{name}/{name}").raise_for_status().json()
    schedules: list[dict[str, Any]] = found["schedules"]
    return schedules


def test_a_schedule_is_made_replaced_switched_and_removed(unscheduled: Engine, prefect: Prefect) -> None:
    http = unscheduled.http
    wanted = {
        "cron": "30 17 * * 1-5",
        "timezone": "America/New_York",
        "request": {"symbol": "ACME", "strategy": "momentum"},
    }
    made = http.put("/workflows/backtest/schedule", json=wanted)
    assert made.status_code == 200, made.text
    assert made.json() == {
        **wanted,
        "workflow": "backtest",
        "slug": "default",
        "active": True,
        "interval_seconds": None,
        "rrule": None,
    }
    (kept,) = schedules_in_prefect(prefect, "backtest")
    assert (kept["schedule"]["cron"], kept["active"]) == ("30 17 * * 1-5", True)
    assert kept["parameters"] == {"request": wanted["request"]}

    again = http.put("/workflows/backtest/schedule", json={**wanted, "cron": "0 6 * * *", "active": False})
    assert (again.json()["cron"], again.json()["active"]) == ("0 6 * * *", False)
    assert len(schedules_in_prefect(prefect, "backtest")) == 1
    for step, active in (("resume", True), ("pause", False)):
        (switched,) = http.post(f"/workflows/backtest/schedule/{step}").json()["items"]
        assert switched["active"] is active
        (kept,) = schedules_in_prefect(prefect, "backtest")
        assert (kept["active"], kept["parameters"]) == (active, {"request": wanted["request"]})
    assert http.delete("/workflows/backtest/schedule").status_code == 204
    assert schedules_in_prefect(prefect, "backtest") == []
    problem(http.post("/workflows/backtest/schedule/pause"), 404, "not-found")


def test_a_schedule_of_the_prefect_ui_is_listed(unscheduled: Engine, prefect: Prefect) -> None:
    found = prefect.http.get("/deployments/name/data/data").raise_for_status().json()
    body = [{"schedule": {"interval": 3600}, "active": False, "slug": "hourly"}]
    prefect.http.post(f"/deployments/{found['id']}/schedules", json=body).raise_for_status()
    (listed,) = unscheduled.http.get("/workflows/schedules").json()["items"]
    assert (listed["workflow"], listed["slug"], listed["interval_seconds"]) == ("data", "hourly", 3600)


@pytest.mark.parametrize(
    ("changed", "field", "said"),
    [
        ({"cron": "every day"}, "cron", "is no cron expression: give five fields"),
        ({"cron": "99 99 * * *"}, "cron", ""),
        ({"timezone": "America/New_Yrok"}, "timezone", "is not a known time zone"),
        ({"slug": "Über"}, "slug", ""),
        ({"request": {"symbol": "ACME", "strategy": "momentun"}}, "strategy", "momentum"),
        ({"request": {"symbol": "ACME", "capital": -1}}, "capital", "greater than 0"),
        ({"corn": "0 6 * * *"}, "corn", "cron"),
    ],
)
def test_a_wrong_schedule_is_refused_by_name(
    unscheduled: Engine, changed: dict[str, Any], field: str, said: str
) -> None:
    wanted = {"cron": "0 6 * * *", "request": {"symbol": "ACME"}, **changed}
    answer = unscheduled.http.put("/workflows/backtest/schedule", json=wanted)
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert said in answer.text
    assert unscheduled.http.get("/workflows/schedules").json()["items"] == []


def test_only_an_administrator_schedules(engine_api: Engine) -> None:
    bob = {"Authorization": "Bearer key-of-bob"}
    url = f"{engine_api.url}/api/v1/workflows/backtest/schedule"
    problem(httpx.put(url, headers=bob, json={"cron": "0 6 * * *"}), 403, "denied")
    problem(httpx.post(f"{url}/resume", headers=bob), 403, "denied")
    problem(httpx.delete(url, headers=bob), 403, "denied")


@pytest.fixture
def command(engine_api: Engine, tmp_path: Path) -> Callable[..., tuple[int, Any]]:
    """The command line as a client of this engine; returns the exit code and what its JSON says."""
    ours = {
        "GPT_TRADER_HOME": str(tmp_path),
        "GPT_TRADER_SERVER": engine_api.url,
        "GPT_TRADER_API_KEY": engine_api.key,
    }

    def run(*words: str) -> tuple[int, Any]:
        line = [sys.executable, "-P", "-m", "gpt_trader", "--output", "json", "workflow", *words]
        done = subprocess.run(
            line, env={**os.environ, **ours}, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, json.loads(done.stdout) if done.stdout.strip() else done.stderr

    return run


def test_the_command_line_schedules(
    unscheduled: Engine, prefect: Prefect, command: Callable[..., tuple[int, Any]]
) -> None:
    words = ("--cron", "15 6 * * *", "--timezone", "Europe/Zurich", "--param", "refresh=true")
    code, (made,) = command("schedule", "data", *words, "--paused")
    assert (code, made["cron"], made["timezone"], made["active"]) == (0, "15 6 * * *", "Europe/Zurich", False)
    (kept,) = schedules_in_prefect(prefect, "data")
    assert kept["parameters"] == {"request": {"refresh": True}}
    assert command("resume", "data")[1][0]["active"] is True
    assert command("pause", "data", "--slug", "default")[1][0]["active"] is False
    assert command("schedule", "data", "--remove")[0] == 0
    assert command("schedules") == (0, [])
    code, said = command("schedule", "data", "--param", "refresh=true")
    assert code == 2
    assert "cron" in said


def test_the_command_line_tries_again_approves_and_rejects(
    engine_api: Engine, prefect: Prefect, command: Callable[..., tuple[int, Any]]
) -> None:
    failed, waiting, unwanted = (engine_api.start()["run_id"] for _ in range(3))
    prefect.set_state(failed, "FAILED")
    code, started = command("retry", failed)
    assert (code, started["flow"]) == (0, "backtest")
    assert started["run_id"] != failed
    for run in (waiting, unwanted):
        prefect.set_state(run, "RUNNING")
        prefect.set_state(run, "PAUSED")
    assert command("approve", waiting)[0] == 0
    assert command("reject", unwanted)[1]["state"] == "CANCELLED"
    code, said = command("approve", unwanted)
    assert code != 0
    assert "does not wait for an approval" in said
