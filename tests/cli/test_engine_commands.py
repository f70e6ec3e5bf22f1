"""`up`, `down` and `status` as a person or a script calls them."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cli.main import app
from gpt_trader.processes import ProcessId
from tests.cli.engines import FakeEngine, fake_engine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds its own leftovers in /proc")

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("database", "prefect", "worker", "api")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path, monkeypatch) as fake:
        yield fake


def status(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capfd.readouterr()
    assert app(["--output", "json", "status"]) == 0
    shown: dict[str, Any] = json.loads(capfd.readouterr().out)
    return shown


def test_status_of_a_running_engine(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    address = engine.ensure()
    shown = status(capfd)
    assert shown["state"] == "running"
    assert shown["home"] == str(engine.home.root)
    assert tuple(shown["parts"]) == PARTS
    for name, part in shown["parts"].items():
        assert (part["state"], part["pid"], part["restarts"]) == ("ready", engine.pid(name), 0)
        assert 1e6 < part["memory_bytes"] < 1e9
    assert shown["parts"]["api"]["url"] == address.api_url
    assert shown["parts"]["prefect"]["url"] == address.prefect_url
    assert address.api_url == f"http://127.0.0.1:{shown['ports']['api']}"
    assert shown["links"] == {"prefect_ui": address.prefect_url, "api_docs": f"{address.api_url}/api/v1/docs"}
    assert shown["engine"]["pid"] == address.pid
    assert shown["memory_bytes"] > sum(part["memory_bytes"] for part in shown["parts"].values())
    assert shown["versions"]["prefect"] == "3.8.8"


def test_status_of_a_stopped_engine_is_an_answer(
    engine: FakeEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = status(capfd)
    assert shown["state"] == "stopped"
    assert shown["engine"] is None
    for name in PARTS:
        part = shown["parts"][name]
        assert (part["state"], part["url"], part["pid"]) == ("stopped", None, None)
    assert not engine.home.root.exists()


def test_status_of_a_part_that_hangs(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    engine.ensure()
    os.kill(engine.pid("api"), signal.SIGSTOP)
    shown = status(capfd)
    assert shown["parts"]["api"]["state"] == "unresponsive"
    assert shown["parts"]["prefect"]["state"] == "ready"
    assert shown["state"] == "degraded"


def test_status_as_a_table(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    address = engine.ensure()
    assert app(["status"]) == 0
    table = capfd.readouterr().out
    for expected in (*PARTS, "ready", address.api_url, "Prefect UI", "API docs", "MB"):
        assert expected in table


def test_status_as_csv_has_a_row_for_each_part(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert app(["--output", "csv", "status"]) == 0
    header, *rows = capfd.readouterr().out.splitlines()
    assert header.startswith("part,state,url,pid,memory_bytes")
    assert [row.split(",")[0] for row in rows] == list(PARTS)


def test_a_second_up_says_so_and_leaves_the_engine_alone(
    engine: FakeEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    address = engine.ensure()
    capfd.readouterr()
    for arguments in (["up"], ["up", "--detach"]):
        assert app(["--output", "json", *arguments]) == 0
        out, err = capfd.readouterr()
        assert f"already running (pid {address.pid})" in err
        assert json.loads(out)["engine"]["pid"] == address.pid


def test_a_second_up_on_another_port_is_refused(
    engine: FakeEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    address = engine.ensure()
    assert app(["up", "--api-port", "1"]) == 2
    assert f"api_port 1 was asked for, and the engine of this home runs at {address.api_url}" in (
        capfd.readouterr().err
    )


def test_down_twice(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    engine.ensure()
    capfd.readouterr()
    for was_running in (True, False):
        assert app(["--output", "json", "down"]) == 0
        assert json.loads(capfd.readouterr().out) == {"state": "stopped", "was_running": was_running}
    assert app(["down"]) == 0
    assert capfd.readouterr().out == "the engine was not running\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "databse"], "did you mean 'database'?"),
        (["--only", "worker"], "worker cannot run without database"),
        (["--only", "database,api"], "api cannot run without prefect"),
        (["--api-port", "70000"], "api_port"),
    ],
)
@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_up_refuses(
    engine: FakeEngine,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
    detach: list[str],
) -> None:
    assert app(["up", *detach, *arguments]) == 2
    assert message in capfd.readouterr().err
    assert engine.processes() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_up_in_the_foreground_runs_a_real_part_until_a_signal(
    engine: FakeEngine, number: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "gpt_trader", "--output", "json", "up", "--only", "database"]
    up = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {}
    )
    try:
        ready = engine.await_state("database", "ready", seconds=60)
        assert ready.process is not None
        up.send_signal(number)
        out, err = up.communicate(timeout=30)
    finally:
        up.kill()
        up.wait()
    assert up.returncode == code, err
    shown = json.loads(out)
    assert shown["parts"]["database"]["state"] == "ready"
    assert "database ready" in err
    assert ProcessId.of(ready.process.pid) is None
    assert not engine.home.engine.exists()


def test_up_on_a_terminal_shows_a_line_that_moves_and_leaves_no_trace(engine: FakeEngine) -> None:
    command = [sys.executable, "-m", "gpt_trader", "up", "--only", "database"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(command[0], command, os.environ | {"TERM": "xterm"})
    shown = b""
    try:
        while b"Ctrl-C stops it" not in shown:
            assert select.select([terminal], [], [], 60)[0], shown
            shown += os.read(terminal, 65536)
        os.write(terminal, b"\x03")
        with suppress(OSError):  # how Linux tells that the other end of a terminal is closed
            while select.select([terminal], [], [], 30)[0]:
                shown += os.read(terminal, 65536)
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    drawn = shown.split(b"\r\x1b[2K")
    assert any("s  database …".encode() in line for line in drawn)
    after = drawn[-1]
    assert b"Prefect UI" not in after
    assert b"database" in after
    assert b"database stopped" in after
