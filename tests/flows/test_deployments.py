"""What registration leaves in Prefect: the same as `prefect deploy --all`, and what a user changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import SAMPLE, Engine

#: What a registration decides; ids, times and who did it differ by nature. So does the version: in a clean checkout
#: `prefect deploy` takes the commit, ours is the flow's own.
SAME = (
    "name",
    "entrypoint",
    "path",
    "pull_steps",
    "parameters",
    "parameter_openapi_schema",
    "enforce_parameter_schema",
    "tags",
    "description",
    "work_pool_name",
    "job_variables",
    "concurrency_options",
    "paused",
)


@pytest.fixture
def registered(running: Engine) -> Iterator[Engine]:
    """The sample's deployments as they were registered, and again so afterwards."""
    yield running
    running.prefect.delete(f"/deployments/{running.deployment('adds')['id']}")
    register(running)


def register(engine: Engine, folder: Path = SAMPLE) -> str:
    """Register in a process of its own, as the worker does; return what it says it did."""
    program = (
        "import asyncio, sys; from pathlib import Path\n"
        "from prefect.client.orchestration import get_client\n"
        "from flows.deployments import register\n"
        "async def main():\n"
        "    async with get_client() as client:\n"
        "        print(await register(client, Path(sys.argv[1])))\n"
        "asyncio.run(main())"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", program, str(folder)],
        env=engine.environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def shown(deployment: dict[str, Any]) -> dict[str, Any]:
    schedules = [
        {key: schedule[key] for key in ("schedule", "active", "parameters", "slug")}
        for schedule in deployment["schedules"]
    ]
    limit = (deployment["global_concurrency_limit"] or {}).get("limit")
    return {**{key: deployment[key] for key in SAME}, "schedules": schedules, "limit": limit}


def test_prefect_deploy_all_gives_the_same(registered: Engine) -> None:
    ours = shown(registered.deployment("adds"))
    registered.prefect.delete(f"/deployments/{registered.deployment('adds')['id']}")

    subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=SAMPLE,
        env=registered.environment,
        check=True,
        capture_output=True,
        timeout=120,
    )

    assert shown(registered.deployment("adds")) == ours


def test_a_second_registration_changes_nothing(registered: Engine) -> None:
    before = registered.deployment("adds")

    said = register(registered)

    assert "created=[], updated=[]" in said
    assert registered.deployment("adds")["updated"] == before["updated"]


def test_what_a_user_changed_stays_and_what_the_code_says_follows(registered: Engine, tmp_path: Path) -> None:
    deployment = registered.deployment("adds")
    changed = {"paused": True, "tags": ["mine"], "parameters": {"a": 40, "b": 2}}
    registered.prefect.patch(f"/deployments/{deployment['id']}", json=changed).raise_for_status()
    schedule = deployment["schedules"][0]["id"]
    registered.prefect.patch(
        f"/deployments/{deployment['id']}/schedules/{schedule}", json={"active": True}
    ).raise_for_status()
    moved = tmp_path / "moved"
    shutil.copytree(SAMPLE, moved, ignore=shutil.ignore_patterns("__pycache__"))

    assert "adds/adds" in register(registered, moved).partition("updated=")[2].partition("]")[0]

    now = registered.deployment("adds")
    assert {key: now[key] for key in changed} == changed
    assert [each["active"] for each in now["schedules"]] == [True]
    assert str(moved) in str(now["pull_steps"])
