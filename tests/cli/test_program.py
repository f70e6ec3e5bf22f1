"""The program as a whole: start-up, global options, purity of stdout, exit codes, remote servers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.terminal.options import hoisted
from tests.cli.conftest import ROOT, Command, environment
from tests.cli.contract_server import Contract

HEAVY = (
    "httpx",
    "pydantic",
    "pandas",
    "prefect",
    "vectorbt",
    "numba",
    "fastapi",
    "numpy",
    "sqlalchemy",
    "yaml",
)


@pytest.mark.parametrize(
    "words", ["--help", "--version", "backtest --help", "workflow --help", "config --help"]
)
def test_help_and_version_import_nothing_heavy(own_home: Path, words: str) -> None:
    code = (
        "import sys; from cli.main import app; code = app(sys.argv[1:]); "
        "print(code, *(m for m in sys.modules if '.' not in m), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *words.split()]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True, timeout=30
    )
    exit_code, *modules = done.stderr.split()
    assert exit_code == "0"
    assert done.stdout
    # Typer itself reads the global options of a command's help with pydantic.
    allowed = set() if words.startswith("--") else {"pydantic"}
    assert set(HEAVY) & set(modules) <= allowed


def test_version(process: Command) -> None:
    from gpt_trader import __version__

    assert process("--version").out == f"gpt-trader {__version__}\n"


def test_global_options_may_stand_after_the_command() -> None:
    assert hoisted(["backtest", "--symbol", "A", "--output", "json", "--quiet"]) == [
        "--output", "json", "--quiet", "backtest", "--symbol", "A",
    ]  # fmt: skip
    assert hoisted(["x", "--output=json", "--", "--quiet"]) == ["--output=json", "x", "--", "--quiet"]
    assert hoisted(["x", "--output"]) == ["--output", "x"]


@pytest.mark.parametrize(
    "words",
    [
        "nonsense",
        "--output xml status",
        "--server",
        "workflow nonsense",
        "backtest --symbol",
        "strategy show",
    ],
)
def test_wrong_usage_is_2_and_says_where_help_is(own_home: Path, cli: Command, words: str) -> None:
    refused = cli(words)
    assert (refused.code, refused.out) == (2, "")
    assert "--help" in refused.err
    assert "Traceback" not in refused.err


def test_wrong_usage_in_a_machine_format(own_home: Path, cli: Command) -> None:
    refused = cli("strategy show --output json")
    assert (refused.code, refused.out) == (2, "")
    assert json.loads(refused.err)["type"] == "usage"


def test_without_arguments_the_help_is_shown(own_home: Path, cli: Command) -> None:
    for words in ("", "config"):
        shown = cli(*words.split())
        assert shown.code == 2
        assert shown.err.startswith("Usage: gpt-trader")


def test_users_own_modules_do_not_shadow_ours(process: Command, tmp_path: Path) -> None:
    for name in ("tasks", "flows", "cli", "typer", "gpt_trader_local"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a file of the user was imported')\n")
    listed = process("strategy list", cwd=tmp_path)
    assert listed.code == 0, listed.err
    assert "momentum" in listed.out


def test_a_reader_that_goes_away_is_no_failure(own_home: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "gpt_trader", "strategy", "list"]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(),
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_named_server_gets_its_own_key_and_never_the_local_one(
    remote: Contract, own_home: Path, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("data list").code == 0
    monkeypatch.delenv("GPT_TRADER_API_KEY")
    own_home.mkdir(mode=0o700)
    (own_home / "key").write_text(remote.key)
    denied = cli("--output", "json", "data", "list")
    assert (denied.code, denied.out) == (4, "")
    assert json.loads(denied.err)["type"] == "denied"
    assert "GPT_TRADER_API_KEY" in denied.err


def test_a_remote_server_decides_about_strategies_that_are_not_here(remote: Contract, cli: Command) -> None:
    assert cli("backtest --symbol AAPL --strategy theirs --param n=3 --param on=true").code == 0
    (run,) = remote.runs.values()
    assert run.request["params"] == {"n": 3, "on": True}
    assert "theirs" in cli("strategy list").out


def test_nobody_at_the_server(own_home: Path, cli: Command) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    unreachable = cli("--server", url, "data", "list")
    assert (unreachable.code, unreachable.out) == (3, "")
    assert unreachable.err == f"error: no answer from {url}: nothing listens there\n"


@pytest.mark.parametrize("closed", ["0", "1", "2"])
def test_a_stream_that_is_closed_from_the_start_is_no_failure(own_home: Path, closed: str) -> None:
    line = f'"{sys.executable}" -P -m gpt_trader strategy list {closed}>&-'
    done = subprocess.run(
        line, shell=True, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("momentum" in done.stdout) is (closed != "1")


def test_something_else_at_the_server(own_home: Path, cli: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        import threading

        def answer() -> None:
            peer, _ = other.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")

        thread = threading.Thread(target=answer)
        thread.start()
        refused = cli("--server", f"http://127.0.0.1:{other.getsockname()[1]}", "data", "list")
        thread.join(5)
    assert refused.code == 3
    assert "not JSON" in refused.err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host", "scheme 'ftp'"),
        ("http://me:secret@host", "GPT_TRADER_API_KEY"),
        ("http://", "no address"),
        ("http://host:port", "no address"),
    ],
)
def test_a_server_address_that_is_none(own_home: Path, cli: Command, url: str, said: str) -> None:
    refused = cli("--server", url, "data", "list")
    assert refused.code == 2
    assert said in refused.err
    assert "secret" not in refused.err


def test_verbose_shows_the_traceback(own_home: Path, cli: Command) -> None:
    assert "Traceback" in cli("--verbose strategy show momentun").err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("gpt-trader backtest --strategy m", ["ma_crossover", "momentum", "mean_reversion"]),
        ("gpt-trader backtest --symbol A", ["AAPL"]),
        ("gpt-trader backtest --strategy ma_crossover --param s", ["slow="]),
        ("gpt-trader workflow run b", ["backtest"]),
        ("gpt-trader config get api_", ["api_host", "api_port"]),
        ("gpt-trader strategy show br", ["breakout"]),
    ],
)
def test_completion_names_what_there_is(
    server: Contract, process: Command, words: str, expected: list[str]
) -> None:
    parts = words.split()
    began = time.monotonic()
    done = process(_GPT_TRADER_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(parts) - 1))
    assert done.out.split() == expected
    assert done.err == ""
    assert time.monotonic() - began < 5, "a shell is waiting"


def test_completion_is_silent_without_an_engine(own_home: Path, process: Command) -> None:
    words = "gpt-trader backtest --symbol A"
    done = process(_GPT_TRADER_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="3")
    assert (done.out.strip(), done.err) == ("", "")
    assert not own_home.exists()


def test_a_strategy_is_shown_with_limits_and_search_space(own_home: Path, cli: Command) -> None:
    shown = cli("strategy show ma-crossover")
    assert shown.code == 0
    assert "5, 10, 15, 20" in shown.out
    described = json.loads(cli("--output json strategy show ma_crossover").out)
    assert described["defaults"] == {"fast": 10, "slow": 30}
    assert "direction" not in described["parameters"]["properties"]
    assert "did you mean 'momentum'" in cli("strategy show momentun").err
