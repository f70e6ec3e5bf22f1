"""The API as a process: what it writes, where it binds, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from gpt_trader.settings import Settings
from storage.cluster import Cluster
from tests.api.account_samples import serving_accounts
from tests.api.conftest import Engine, Prefect, free_port
from tests.waiting import eventually


def environment(settings: Settings, home: Path, port: int, prefect_url: str) -> dict[str, str]:
    assert settings.database_url is not None
    return {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GPT_TRADER_", "PREFECT_"))
        },
        "GPT_TRADER_HOME": str(home),
        "GPT_TRADER_DATABASE_URL": settings.database_url.get_secret_value(),
        "GPT_TRADER_API_PORT": str(port),
        "PREFECT_API_URL": prefect_url,
    }


@contextmanager
def running(variables: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the API's process, its output in `folder`; killed at the end if it still runs."""
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        command = [sys.executable, "-P", "-m", "api.main"]
        with subprocess.Popen(command, env=variables, stdout=out, stderr=err, cwd=folder) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture
def process(
    api_settings: Settings, prefect: Prefect, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    port = free_port()
    variables = environment(api_settings, tmp_path / "home", port, prefect.url)
    with (
        running(variables, tmp_path) as started,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1/system", trust_env=False) as http,
    ):
        eventually(lambda: is_live(http) or started.poll(), seconds=60, what="the API's life")
        assert started.poll() is None, (tmp_path / "err").read_text()
        yield started, http


def is_live(http: httpx.Client) -> bool:
    try:
        return http.get("/health/live").status_code == 200
    except httpx.TransportError:
        return False


def test_sigterm_ends_it_in_time_with_a_stream_open(
    process: tuple[subprocess.Popen[bytes], httpx.Client], engine_api: Engine, tmp_path: Path
) -> None:
    started, http = process
    run_id = engine_api.start()["run_id"]  # two APIs over one database: each sees the other's runs
    headers = {"Authorization": f"Bearer {(tmp_path / 'home' / 'key').read_text().strip()}"}
    url = str(http.base_url).replace("/system/", f"/workflows/runs/{run_id}/events")
    with httpx.stream("GET", url, headers=headers, timeout=20, trust_env=False) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("id: ")
        asked = time.monotonic()
        started.send_signal(signal.SIGTERM)
        list(lines)  # ends in order, not by a cut connection
        assert started.wait(timeout=10) == 0
    assert time.monotonic() - asked < 4
    assert (tmp_path / "out").read_bytes() == b""
    lines_ = (tmp_path / "err").read_text().splitlines()
    assert lines_
    for line in lines_:
        assert {"event", "level", "timestamp"} <= set(json.loads(line)), line


def test_no_secret_is_in_its_log_or_arguments(
    process: tuple[subprocess.Popen[bytes], httpx.Client], tmp_path: Path
) -> None:
    started, http = process
    key = (tmp_path / "home" / "key").read_text().strip()
    http.get("/info", headers={"Authorization": f"Bearer {key}"})
    started.send_signal(signal.SIGTERM)
    started.wait(timeout=10)
    assert key not in (tmp_path / "err").read_text()
    assert "password" not in (tmp_path / "err").read_text().lower()


def test_a_taken_port_is_refused_in_words(
    api_settings: Settings, engine_api: Engine, prefect: Prefect, tmp_path: Path
) -> None:
    port = int(engine_api.url.rpartition(":")[2])
    variables = environment(api_settings, tmp_path / "home", port, prefect.url)
    with running(variables, tmp_path) as started:
        assert started.wait(timeout=60) == 2
    assert f"127.0.0.1:{port} cannot be bound" in (tmp_path / "err").read_text()
    assert engine_api.http.get("/system/info").status_code == 200  # the other one serves on


def test_an_unknown_setting_is_refused_in_words(
    api_settings: Settings, prefect: Prefect, tmp_path: Path
) -> None:
    variables = environment(api_settings, tmp_path / "home", 0, prefect.url) | {"GPT_TRADER_API_PROT": "1"}
    with running(variables, tmp_path) as started:
        assert started.wait(timeout=60) == 2
    said = json.loads((tmp_path / "err").read_text().splitlines()[-1])
    assert "api_port" in said["reason"]


def test_an_api_whose_watch_over_sessions_has_died_ends(postgres: Cluster, tmp_path: Path) -> None:
    """Its supervisor starts another: one that answers and watches nothing would hide what is dead."""
    with serving_accounts(postgres, tmp_path) as engine:
        with engine.context.database.begin() as connection:
            connection.execute(text("ALTER TABLE sessions RENAME TO away"))  # nothing that passes by itself
        eventually(engine.context.closing.is_set, seconds=30, what="the API's end")
        assert engine.state.died
