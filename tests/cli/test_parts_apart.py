"""One part a process: `--mode`, what is said where the others cannot be reached, a database for other machines."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from cli.engine.parts import Part
from cli.engine.plan import Plan
from cli.engine.reachable import check_reachable
from cli.main import app
from gpt_trader.errors import EngineUnreachable, Refused
from gpt_trader.settings import Home, Settings
from tests.cli.engines import FakeEngine, fake_engine
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds its own leftovers in /proc")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path, monkeypatch) as fake:
        yield fake


class NoProbe:
    def reset(self) -> None:
        pass

    def ready(self, leader: int) -> bool:
        return True


def plan_with(**external: str) -> Plan:
    return Plan((Part("api", ("true",), NoProbe()),), external, {}, None, None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode", "wroker"], "'wroker' is not one of"),
        (["--mode", "worker", "--port", "8000"], "the worker has no port to choose"),
        (["--mode", "api", "up"], "stand instead of a command"),
        (["--port", "1", "status"], "stand instead of a command"),
        (["--mode", "api"], "api cannot run without database"),
        (["--quiet"], "Missing command"),
    ],
)
def test_a_mode_that_makes_no_sense_is_refused(
    engine: FakeEngine, capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert app(arguments) == 2
    assert message in capfd.readouterr().err
    assert engine.processes() == []


def test_a_server_that_is_not_there_is_named_with_its_setting(
    engine: FakeEngine, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as database:
        there, gone = database.getsockname()[1], free_port()
        monkeypatch.setenv("GPT_TRADER_DATABASE_URL", f"postgresql://me:hunter2@127.0.0.1:{there}/trader")
        monkeypatch.setenv("GPT_TRADER_PREFECT_API_URL", f"http://127.0.0.1:{gone}/api")
        assert app(["up", "--detach", "--only", "worker"]) == 3
    said = capfd.readouterr().err
    assert (
        f"prefect_api_url (GPT_TRADER_PREFECT_API_URL): prefect at 127.0.0.1:{gone} takes no connection"
        in said
    )
    assert "hunter2" not in said
    assert engine.processes() == []


def test_a_server_that_is_starting_is_waited_for() -> None:
    port, announced = free_port(), threading.Event()
    found: list[Plan] = []
    plan = plan_with(database=f"postgresql://127.0.0.1:{port}/trader")
    waiting = threading.Thread(
        target=lambda: found.append(check_reachable(plan, lambda _: announced.set(), patience=20)),
        name="waiting",
    )
    waiting.start()
    assert announced.wait(10)
    with closing(socket.create_server(("127.0.0.1", port))):
        waiting.join(10)
    assert found == [plan]


@pytest.mark.parametrize("url", ["postgresql:///trader", "postgresql://a.example,b.example/trader"])
def test_what_is_the_drivers_to_find_is_left_to_it(url: str) -> None:
    plan = plan_with(database=url)
    assert check_reachable(plan, lambda _: None, patience=0) is plan


def test_a_name_that_does_not_exist_is_said_at_once() -> None:
    with pytest.raises(EngineUnreachable, match=r"database_url .*nowhere\.invalid:5432 takes no connection"):
        check_reachable(plan_with(database="postgresql://nowhere.invalid/x"), lambda _: None, patience=0)


def test_prefect_is_not_opened_to_other_machines_without_a_password() -> None:
    settings = Settings(prefect_host="0.0.0.0")
    with pytest.raises(Refused, match="PREFECT_SERVER_API_AUTH_STRING"):
        settings.check_prefect_guarded({})
    settings.check_prefect_guarded({"PREFECT_SERVER_API_AUTH_STRING": "me:hunter2"})
    Settings().check_prefect_guarded({})


def test_machines_apart_share_a_folder_and_keep_their_own(tmp_path: Path) -> None:
    apart = Home(tmp_path / "own", tmp_path / "shared")
    for path in (apart.lake, apart.runs, apart.strategies, apart.key, apart.account_keys):
        assert path.parent == tmp_path / "shared"
    for path in (apart.engine, apart.state, apart.logs, apart.config, apart.database, apart.credentials):
        assert path.parent == tmp_path / "own"


def test_a_database_for_other_machines_lets_in_its_own_role_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = f"127.{secrets.randbelow(250) + 1}.{secrets.randbelow(250) + 1}.{secrets.randbelow(250) + 2}"
    home = Home(tmp_path / "home")
    environment = os.environ | {"GPT_TRADER_HOME": str(home.root), "GPT_TRADER_DATABASE_HOST": host}
    command = [sys.executable, "-P", "-m", "gpt_trader", "--output", "json", "--mode", "database"]
    environment["PYTHONPATH"] = str(ROOT)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as part:
        try:
            passwords = home.database / "cluster" / "pgpass"
            eventually(
                lambda: passwords.exists() or part.poll() is not None, seconds=60, what="the passwords"
            )
            words = dict(line.split(":")[3:] for line in passwords.read_text().splitlines())

            def answers() -> bool:
                try:
                    with psycopg.connect(
                        host=host, user="gpt_trader", password=words["gpt_trader"], dbname="prefect"
                    ) as connection:
                        found = connection.execute("SELECT extname FROM pg_extension").fetchall()
                        return ("pg_trgm",) in found
                except psycopg.OperationalError:
                    return False

            eventually(answers, seconds=60, what="the role comes in over the network")
            for user, word in (("gpt_trader", "wrong"), ("postgres", words["postgres"])):
                with pytest.raises(
                    psycopg.OperationalError, match=r"authentication failed|no pg_hba\.conf entry"
                ):
                    psycopg.connect(host=host, user=user, password=word, dbname="prefect")
        finally:
            part.terminate()
            out, err = part.communicate(timeout=30)
    assert part.returncode == 0, err
    assert words["gpt_trader"].encode() not in out + err
