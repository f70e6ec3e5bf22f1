"""What the command line follows over the WebSocket: `monitor`, and a run's log, through a restart of the API."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpt_trader.runs import channel_of
from gpt_trader.settings import Home, Settings
from storage.market_stream import channel_of_symbol
from storage.session_rows import Session
from storage.session_stream import portfolio_channel, trades_channel
from tests.api.conftest import Engine, Prefect
from tests.api.session_samples import end, written_down
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


class Terminal:
    """The program at a terminal of its own: keys go in, what it draws is kept."""

    def __init__(self, engine: Engine, folder: Path, size: tuple[int, int] = (110, 40)) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GPT_TRADER_")}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            inherited.pop(name, None)
        home = {"GPT_TRADER_HOME": str(folder / "client"), "GPT_TRADER_API_KEY": engine.key, "TERM": "xterm"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gpt_trader", "--server", engine.url, "monitor"],
            env=inherited | home,
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - Ctrl-C reaches it as at a desk
        )
        self.drawn = ""

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def read(self) -> str:
        """Return all that it has written so far, without colors."""
        while select.select([self.ours], [], [], 0)[0]:
            self.drawn += re.sub(r"\x1b\[[\d;]*m", "", os.read(self.ours, 65536).decode(errors="replace"))
        return self.drawn

    def shows(self, words: str) -> None:
        """Wait until these words were drawn since the last time."""
        eventually(lambda: words in self.read(), seconds=30, what=f"{words!r} on the screen")
        self.drawn = self.drawn.partition(words)[2]

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def left(self) -> int:
        """Wait for its end and return its code; the terminal must be as it was."""

        def ended() -> bool:
            self.read()
            return self.process.poll() is not None

        eventually(ended, seconds=20, what="its end")
        self.read()
        assert self.drawn.rfind("\x1b[?1049l") > self.drawn.rfind("\x1b[?1049h"), (
            "the screen is not given back"
        )
        assert self.drawn.rfind("\x1b[?25h") > self.drawn.rfind("\x1b[?25l"), "the cursor is hidden"
        assert termios.tcgetattr(self.theirs) == self.before, "the terminal echoes no more"
        return int(self.process.returncode)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def watched_session(engine_api: Engine) -> Iterator[Session]:
    """Yield a session that nobody trades, and end it."""
    session = written_down(engine_api, feed="schedule")
    yield session
    end(engine_api, session.session_id)


def stands(engine: Engine, session: Session, steps: int, equity: str) -> None:
    """Tell of a close as a session's run does."""
    place = {"session_id": str(session.session_id), "status": "active", "time": f"2020-03-0{steps}T00:00:00Z"}
    engine.events.append(
        portfolio_channel("local"),
        "standing",
        {
            "schema_version": 1,
            **place,
            "cash": "1",
            "equity": equity,
            "positions": {"ACME": "2"},
            "steps": steps,
        },
    )


def test_a_screen_shows_sessions_live_takes_keys_and_gives_the_terminal_back(
    engine_api: Engine, watched_session: Session, tmp_path: Path
) -> None:
    terminal = Terminal(engine_api, tmp_path)
    try:
        terminal.shows("● live")
        eventually(lambda: _follows(engine_api, "portfolio.updates"), what="the portfolio")
        for steps, equity in enumerate(("10500", "12345.5"), 1):
            stands(engine_api, watched_session, steps, equity)
        terminal.shows("12,345.50")
        terminal.shows("+23.46%")
        terminal.shows("▁█")
        fill = {
            "execution_id": "x1",
            "time": "2020-03-02T00:00:00Z",
            "leg": 0,
            "symbol": "ACME",
            "units": "2",
        }
        fill |= {"price": "40.25", "commission": "0.5", "purpose": "entry", "complete": True}
        session_id = str(watched_session.session_id)
        engine_api.events.append(trades_channel("local"), "fill", {**fill, "session_id": session_id})
        terminal.shows("40.25")
        terminal.press("j")
        terminal.shows("▶ written")
        terminal.press("?")
        terminal.shows("acknowledge the newest alert")
        terminal.press("x")
        terminal.press("p")
        terminal.shows("pause written? y/n")
        terminal.press("n")
        terminal.shows("left as it is")
        terminal.resize(60, 12)
        terminal.press("k")
        terminal.shows("q quit")
        terminal.press("q")
        assert terminal.left() == 0
    finally:
        terminal.close()


@pytest.mark.parametrize(
    ("how", "code"), [("\x03", 0), (signal.SIGTERM, 128 + signal.SIGTERM)], ids=["ctrl-c", "sigterm"]
)
def test_however_it_ends_the_terminal_is_as_it_was(
    engine_api: Engine, tmp_path: Path, how: str | signal.Signals, code: int
) -> None:
    terminal = Terminal(engine_api, tmp_path)
    try:
        terminal.shows("q quit")
        if isinstance(how, str):
            terminal.press(how)
        else:
            terminal.process.send_signal(how)
        left = terminal.left()
        assert left == code, terminal.process.stderr.read()
    finally:
        terminal.close()


def test_an_alert_is_acknowledged_once_that_is_confirmed(engine_api: Engine, tmp_path: Path) -> None:
    raised = engine_api.http.post("/system/alerts", json={"message": "fire in the hall"}).json()
    terminal = Terminal(engine_api, tmp_path)
    try:
        terminal.shows("fire in the hall")
        terminal.press("a")
        terminal.shows(f"acknowledge alert {raised['id']}")
        terminal.press("y")
        terminal.shows("done")
        terminal.press("q")
        assert terminal.left() == 0
    finally:
        terminal.close()
    still = engine_api.http.get("/system/alerts").json()["items"]
    assert raised["id"] not in [each["id"] for each in still]


def test_a_screen_survives_a_restart_of_the_api(
    prefect: Prefect, api_settings: Settings, tmp_path: Path
) -> None:
    with restartable(prefect, api_settings, Home(tmp_path / "home")) as (engine, restart):
        session = written_down(engine(), feed="schedule")
        terminal = Terminal(engine(), tmp_path)
        try:
            terminal.shows("● live")
            eventually(lambda: _follows(engine(), "portfolio.updates"), what="the portfolio")
            restart()
            stands(engine(), session, 1, "10750.25")
            terminal.shows("10,750.25")
            terminal.shows("● live")
            terminal.press("q")
            assert terminal.left() == 0
        finally:
            terminal.close()
            end(engine(), session.session_id)


def test_lines_and_once_tell_of_sessions(
    engine_api: Engine, watched_session: Session, tmp_path: Path
) -> None:
    with running(engine_api, tmp_path, "monitor") as (process, told):
        eventually(lambda: _follows(engine_api, "portfolio.updates"), what="the portfolio")
        stands(engine_api, watched_session, 1, "10101")
        eventually(
            lambda: "portfolio.updates written  standing  status=active" in told(), what="the standing"
        )
        assert interrupted(process) == 0
    assert "equity=10101" in told()
    assert "schema_version" not in told()
    with running(engine_api, tmp_path, "--output", "json", "monitor", "--once") as (process, told):
        assert process.wait(timeout=30) == 0
    found = json.loads(told())
    (mine,) = [each for each in found["sessions"] if each["session_id"] == str(watched_session.session_id)]
    assert (mine["name"], mine["strategy"], mine["capital"]) == ("written", "ma_crossover", 10_000.0)
    assert found.keys() == {"sessions", "positions", "fills", "alerts", "runs", "bars", "events"}
    with running(engine_api, tmp_path, "monitor", "--once") as (process, told):
        assert process.wait(timeout=30) == 0
    assert "written" in told()
    assert "q quit" not in told()
