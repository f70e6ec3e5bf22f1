from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.engine.home import prepare_home
from cli.engine.record import EngineRecord, write_record
from cli.main import app
from gpt_trader.processes import ProcessId
from gpt_trader.settings import Home
from tests.cli.contract_server import Contract, serving

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ended:
    """What one command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of this test alone, and none of the caller's settings."""
    for name in list(os.environ):
        if name.startswith("GPT_TRADER_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)  # the width of whoever runs the tests
    folder = tmp_path / "home"
    monkeypatch.setenv("GPT_TRADER_HOME", str(folder))
    monkeypatch.setenv("NO_COLOR", "1")
    return folder


@pytest.fixture
def cli(own_home: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in this process."""

    def run(*args: object) -> Ended:
        capfd.readouterr()
        code = app(_words(args))
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return run


@pytest.fixture
def process(own_home: Path) -> Command:
    """Run a command line as a process of its own."""

    def run(*args: object, cwd: Path | None = None, stdin: str = "", **env: str) -> Ended:
        command = [sys.executable, "-m", "gpt_trader", *_words(args)]
        done = subprocess.run(
            command,
            cwd=cwd or ROOT,
            env=environment(**env),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


def _words(args: tuple[object, ...]) -> list[str]:
    """One argument is a whole command line; several are its words."""
    return shlex.split(str(args[0])) if len(args) == 1 else [str(arg) for arg in args]


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **extra}


@pytest.fixture
def server(own_home: Path) -> Iterator[Contract]:
    """A server that speaks the API's contract, where the home says that its engine runs."""
    with serving(Contract()) as contract:
        this = ProcessId.of(os.getpid())
        assert this is not None
        home = Home(own_home)
        prepare_home(home)
        write_record(home, EngineRecord(this, "0.1.0", "2026-01-02T03:04:05Z", contract.url, None))
        home.key.write_text(contract.key + "\n")
        yield contract


@pytest.fixture
def remote(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Contract]:
    """A server that speaks the API's contract, named by the environment as a remote one."""
    with serving(Contract()) as contract:
        monkeypatch.setenv("GPT_TRADER_SERVER", contract.url)
        monkeypatch.setenv("GPT_TRADER_API_KEY", contract.key)
        yield contract
