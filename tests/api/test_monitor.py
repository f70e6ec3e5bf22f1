"""What the command line follows over the WebSocket: `monitor`, and a run's log, through a restart of the API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpt_trader.runs import channel_of
from gpt_trader.settings import Home, Settings
from storage.market_stream import channel_of_symbol
from tests.api.conftest import Engine, Prefect
from tests.api.test_stream_contract import restartable
from tests.waiting import eventually


@contextmanager
def running(
    engine: Engine, folder: Path, *arguments: str
) -> Iterator[tuple[subprocess.Popen[str], Callable[[], str]]]:
    """Run the program for the block, its stdout in a file; yield it and what it has written."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GPT_TRADER_")}
    home = {"GPT_TRADER_HOME": str(folder / "client"), "GPT_TRADER_API_KEY": engine.key, "TERM": "dumb"}
    out = folder / "out"
    with (
        out.open("w") as stdout,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "gpt_trader", "--server", engine.url, *arguments],
            env=inherited | home,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        ) as process,
    ):
        try:
            yield process, out.read_text
        finally:
            process.kill()


def websockets(engine: Engine) -> int:
    return len(engine.context.streams.connections)


def interrupted(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGINT)
    return process.wait(timeout=20)


def test_a_monitor_writes_a_line_a_publication(engine_api: Engine, prefect: Prefect, tmp_path: Path) -> None:
    run_id = engine_api.start()["run_id"]
    with running(engine_api, tmp_path, "monitor", "--symbol", "ACME") as (process, told):
        for channel in (channel_of(run_id), "market.stream"):
            eventually(lambda channel=channel: _follows(engine_api, channel), what=channel)  # type: ignore[misc]
        step = {"stage": "search", "done": 3, "total": 9, "message": "best 1.2"}
        engine_api.events.append(channel_of(run_id), "progress", step)
        bar = {"time": "2026-11-27T00:00:00Z", "close": 41.5}
        engine_api.events.append(
            channel_of_symbol("ACME"), "bars", {"symbol": "ACME", "timeframe": "1d", "bars": [bar]}
        )
        eventually(lambda: "close=41.5" in told(), what="the bar")
        begun = engine_api.start()["run_id"]  # one that begins under its eyes, and ends before it has looked
        prefect.set_state(begun, "CRASHED", "killed by signal 9")
        eventually(lambda: f"runs.{begun}  state  state=CRASHED" in told(), what="the other run's end")
        assert interrupted(process) == 0
    assert f"runs.{run_id}  progress  stage=search done=3 total=9 message=best 1.2" in told()
    assert "\x1b" not in told()


def _follows(engine: Engine, channel: str) -> bool:
    """Whether somebody gets what is published from now on."""
    return any(
        topic.stream.channel == channel and topic.subscribers for topic in engine.context.streams.topics.all
    )


def test_a_monitor_for_a_script_writes_json_alone(engine_api: Engine, tmp_path: Path) -> None:
    run_id = engine_api.start()["run_id"]
    with running(engine_api, tmp_path, "--output", "json", "monitor") as (process, told):
        eventually(lambda: run_id in told(), what="the run's snapshot")
        engine_api.events.append(channel_of(run_id), "log", {"level": "INFO", "message": "héllo"})
        eventually(lambda: "héllo" in told(), what="the log line")
        assert interrupted(process) == 0
    kinds = {json.loads(line)["type"] for line in told().splitlines()}
    assert kinds == {"snapshot", "publication"}


def test_once_shows_how_things_stand_and_ends(engine_api: Engine, tmp_path: Path) -> None:
    run_id = engine_api.start()["run_id"]
    step = {"stage": "search", "done": 3, "total": 9, "message": ""}
    engine_api.events.append(channel_of(run_id), "progress", step)
    with running(engine_api, tmp_path, "--output", "json", "monitor", "--symbol", "ACME", "--once") as (
        process,
        told,
    ):
        assert process.wait(timeout=30) == 0
    found = json.loads(told())
    (run,) = [each for each in found["runs"] if each["run_id"] == run_id]
    assert (run["stage"], run["done"], run["total"]) == ("search", 3, 9)
    assert [bar["symbol"] for bar in found["bars"]] == ["ACME"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--output", "csv", "monitor"), 2, "is no format of a stream"),
        (("monitor", "--symbol", "../x", "--once"), 2, "symbol"),
    ],
)
def test_what_cannot_be_watched_is_said(
    engine_api: Engine, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    with running(engine_api, tmp_path, *arguments) as (process, told):
        assert process.wait(timeout=30) == code
        assert process.stderr is not None
        assert said in process.stderr.read()
    assert told() == ""


def test_a_followed_run_survives_a_restart_of_the_api(
    engine_api: Engine, prefect: Prefect, api_settings: Settings, tmp_path: Path
) -> None:
    """Over the WebSocket: every line once, in order, and the end."""
    run_id = engine_api.start()["run_id"]
    with restartable(prefect, api_settings, Home(tmp_path / "home")) as (engine, restart):  # noqa: SIM117 - of it
        with running(engine(), tmp_path, "--output", "json", "workflow", "logs", run_id, "--follow") as (
            process,
            told,
        ):
            eventually(lambda: websockets(engine()) == 1, what="it follows")
            for number in range(40):
                if number == 20:
                    eventually(lambda: '"n": 10' in told(), what="the first lines")
                    restart()
                engine_api.events.append(
                    channel_of(run_id), "log", {"level": "INFO", "message": "x", "n": number}
                )
            eventually(lambda: '"n": 39' in told(), seconds=30, what="the last line")
            assert websockets(engine()) == 1
            prefect.set_state(run_id, "CRASHED")
            assert process.wait(timeout=20) == 0
    assert [json.loads(line)["n"] for line in told().splitlines()] == list(range(40))
