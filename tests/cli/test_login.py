"""`login`, `logout`, `token` and `user` over a real API: no secret in argv or output, logins that renew themselves."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from cli.client.logins import Login, _refreshed, access_token, keep_login, login_to
from cli.engine.home import prepare_home
from cli.engine.record import EngineRecord, write_record
from gpt_trader.errors import Denied
from gpt_trader.processes import ProcessId
from gpt_trader.settings import Home
from storage.cluster import Cluster
from tests.api.account_samples import PASSWORD, Person, audit, enroll, login, person, serving_accounts
from tests.api.conftest import Engine
from tests.cli.conftest import Command, Ended


@pytest.fixture(scope="module")
def engine(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # stdout is for what commands write
    with serving_accounts(postgres, tmp_path_factory.mktemp("login")) as served:
        yield served
    structlog.reset_defaults()


@pytest.fixture
def local(own_home: Path, engine: Engine) -> Engine:
    """The API, where the home says that its engine runs."""
    this = ProcessId.of(os.getpid())
    assert this is not None
    home = Home(own_home)
    prepare_home(home)
    write_record(home, EngineRecord(this, "0.1.0", "2026-01-02T03:04:05Z", engine.url, None))
    home.key.write_text(engine.key + "\n")
    return engine


@pytest.fixture
def named(own_home: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The API as a server that the environment names."""
    monkeypatch.setenv("GPT_TRADER_SERVER", engine.url)
    return engine


@pytest.fixture
def fed(cli: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command line with these lines on its standard input."""

    def run(lines: str, *words: object) -> Ended:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        return cli(*words)

    return run


@pytest.fixture
def ann(named: Engine, fed: Command, own_home: Path) -> Person:
    """An account that has logged in with the CLI."""
    who = person(named)
    done = fed(f"{PASSWORD}\n", "login", "--email", who.email)
    assert done.code == 0, done.err
    return who


def test_the_first_administrator_is_made_locally_and_logs_in_to_the_server(
    local: Engine, fed: Command, cli: Command, own_home: Path
) -> None:
    done = fed(f"{PASSWORD}\n", "user", "add", "root@example.com", "--role", "admin")
    assert (done.code, done.err) == (0, "")
    assert PASSWORD not in done.out
    logged = fed(f"{PASSWORD}\n", "login", "--server", local.url, "--email", "root@example.com")
    assert logged.code == 0, logged.err
    assert (
        "read, research, trade, live, admin" in logged.out or "read research trade live admin" in logged.out
    )
    file = Home(own_home).logins
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    listed = cli("user", "list", "--server", local.url, "--output", "json")
    assert "root@example.com" in [user["email"] for user in json.loads(listed.out)]


def test_a_command_to_a_server_uses_the_login_and_a_key_goes_before_it(
    ann: Person, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("strategy", "list", "--output", "json").code == 0
    monkeypatch.setenv("GPT_TRADER_API_KEY", "gtp_wrong")
    refused = cli("strategy", "list")
    assert refused.code == 4
    assert "gpt-trader login" in refused.err


def test_without_a_login_a_server_says_how_to_get_one(named: Engine, cli: Command) -> None:
    for command in ("strategy list", "token", "token --list"):
        refused = cli(command)
        assert refused.code == 4
        assert "gpt-trader login" in refused.err


@pytest.mark.parametrize("command", ["login --email a@example.com", "logout", "token", "token --key k"])
def test_the_local_engine_needs_no_login(local: Engine, fed: Command, command: str) -> None:
    refused = fed(f"{PASSWORD}\n", *command.split())
    assert refused.code == 2
    assert "--server" in refused.err


def test_a_wrong_password_is_refused_and_nothing_is_kept(named: Engine, fed: Command, own_home: Path) -> None:
    who = person(named)
    refused = fed("not the password\n", "login", "--email", who.email)
    assert refused.code == 4
    assert "the email or the password is wrong" in refused.err
    assert "GPT_TRADER_API_KEY" not in refused.err
    assert "not the password" not in refused.err
    assert not Home(own_home).logins.exists()
    assert fed("", "login", "--email", who.email).code == 2


def test_a_one_time_code_is_asked_for_where_the_account_wants_one(named: Engine, fed: Command) -> None:
    who = person(named)
    code = enroll(who).at(time.time() + 30)
    assert "otp" in fed(f"{PASSWORD}\n", "login", "--email", who.email).err
    done = fed(f"{PASSWORD}\n{code}\n", "login", "--email", who.email)
    assert done.code == 0, done.err
    assert code not in done.out + done.err


def test_an_access_token_that_ends_is_renewed_once_by_commands_at_the_same_moment(
    ann: Person, own_home: Path, process: Command, engine: Engine
) -> None:
    path = Home(own_home).logins
    kept = login_to(engine.url, path)
    assert kept is not None
    keep_login(engine.url, Login(kept.email, kept.access_token, time.time() - 1, kept.refresh_token), path)
    command = ["token", "--output", "json"]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "gpt_trader", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    ended = [each.communicate(timeout=60) for each in running]
    assert [each.returncode for each in running] == [0] * 4, ended
    tokens = {json.loads(out)["access_token"] for out, _ in ended}
    assert len(tokens) == 1
    assert kept.access_token not in tokens
    assert ann.ask("GET", "/auth/me", tokens.pop()).status_code == 200


def test_a_refresh_whose_answer_was_lost_does_not_cost_the_login(
    ann: Person, own_home: Path, engine: Engine
) -> None:
    path = Home(own_home).logins
    kept = login_to(engine.url, path)
    assert kept is not None
    assert len(kept.retry_key) > 20
    # The server has answered, and the command was killed before the answer was kept.
    lost = _refreshed(engine.url, kept)
    fresh = access_token(engine.url, path, refused=kept.access_token)
    assert fresh is not None
    now = login_to(engine.url, path)
    assert now is not None
    assert now.refresh_token == lost.refresh_token != kept.refresh_token
    assert now.retry_key not in (kept.retry_key, lost.retry_key)
    assert ann.ask("GET", "/auth/me", fresh).status_code == 200
    assert access_token(engine.url, path, refused=fresh) is not None


def test_a_token_that_the_server_refuses_is_renewed_in_the_middle_of_a_command(
    ann: Person, own_home: Path, cli: Command, engine: Engine
) -> None:
    engine.http.post("/auth/signing-keys", json={"discard_present": True})
    path = Home(own_home).logins
    before = login_to(engine.url, path)
    assert cli("strategy", "list", "--output", "json").code == 0
    after = login_to(engine.url, path)
    assert before is not None
    assert after is not None
    assert after.access_token != before.access_token


def test_a_login_that_was_ended_is_forgotten_and_said_so(
    ann: Person, own_home: Path, cli: Command, engine: Engine
) -> None:
    engine.http.patch(f"/auth/users/{ann.id}", json={"is_active": False})
    refused = cli("strategy", "list")
    assert refused.code == 4
    assert "has ended: log in again" in refused.err
    assert login_to(engine.url, Home(own_home).logins) is None


def test_logging_out_ends_the_login_there_and_here(
    ann: Person, own_home: Path, cli: Command, engine: Engine
) -> None:
    token = cli("token").out.strip()
    assert ann.ask("GET", "/auth/me", token).status_code == 200
    assert cli("logout").code == 0
    assert ann.ask("GET", "/auth/me", token).status_code == 401
    assert login_to(engine.url, Home(own_home).logins) is None
    assert json.loads(cli("logout", "--output", "json").out)["logged_out"] is False


def test_keys_are_made_listed_and_deleted(ann: Person, cli: Command, engine: Engine) -> None:
    made = cli("token", "--key", "nightly", "--scope", "read", "--days", "7")
    key = made.out.strip()
    assert "shown once" in made.err
    assert ann.ask("GET", "/auth/me", key).json()["scopes"] == ["read"]
    (listed,) = json.loads(cli("token", "--list", "--output", "json").out)
    assert (listed["name"], listed["scopes"]) == ("nightly", ["read"])
    assert cli("token", "--delete", listed["id"]).code == 0
    assert ann.ask("GET", "/auth/me", key).status_code == 401
    assert cli("token", "--delete", listed["id"]).code == 2
    refused = cli("token", "--key", "k", "--scope", "admin")
    assert refused.code == 2
    assert "more than you have" in refused.err
    assert cli("token", "--scope", "read").code == 2
    assert (
        json.loads(cli("token", "--key", "for ever", "--days", "0", "--output", "json").out)["expires_at"]
        is None
    )


def test_roles_disabling_and_the_audit_log(local: Engine, cli: Command) -> None:
    who = person(local)
    assert json.loads(cli("user", "role", who.email, "viewer", "--output", "json").out)["role"] == "viewer"
    assert cli("user", "role", who.email, "king").code == 2
    assert cli("user", "disable", who.email).code == 0
    assert login(local, who.email).status_code == 401
    assert cli("user", "enable", who.email.upper()).code == 0
    assert login(local, who.email).status_code == 200
    assert cli("user", "disable", "nobody@example.com").code == 2
    told = json.loads(cli("user", "audit", "--event", "user.changed", "--output", "json").out)
    assert told[0]["subject"] == who.principal
    assert who.email in cli("user", "list").out


def test_a_reset_token_is_handed_out_and_sets_a_new_password(
    local: Engine, cli: Command, fed: Command
) -> None:
    who = person(local)
    handed = cli("user", "reset", who.email)
    assert "gpt-trader login --reset" in handed.err
    token = handed.out.strip()
    lines = f"{token}\nanother good password\n"
    done = fed(lines, "login", "--server", local.url, "--email", who.email, "--reset")
    assert done.code == 0, done.err
    assert login(local, who.email, "another good password").status_code == 200
    again = fed(lines, "login", "--server", local.url, "--email", who.email, "--reset")
    assert again.code == 2
    assert "was used" in again.err


def test_codes_are_switched_off_for_who_lost_the_app(local: Engine, cli: Command) -> None:
    who = person(local)
    enroll(who)
    assert login(local, who.email).status_code == 401
    assert cli("user", "reset", who.email, "--otp").code == 0
    assert login(local, who.email).status_code == 200


def test_the_signing_key_is_rotated(local: Engine, cli: Command) -> None:
    who = person(local)
    assert "signs from now on" in cli("user", "rotate-key").out
    assert who.ask("GET", "/auth/me").status_code == 200
    assert cli("user", "rotate-key", "--discard").code == 0
    assert who.ask("GET", "/auth/me").status_code == 401
    assert audit(local, "signing_key.rotated")[0]["details"]["discarded_present"] is True


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 1, "logins": {"x": {}}}'])
def test_a_file_of_logins_that_is_malformed_or_open_is_refused(
    named: Engine, cli: Command, own_home: Path, content: str
) -> None:
    path = Home(own_home).logins
    keep_login(named.url, Login("a@example.com", "hunter2", 0.0, "hunter2"), path)
    path.chmod(0o644)
    refused = cli("strategy", "list")
    assert (refused.code, "chmod 600" in refused.err) == (4, True)
    path.write_text(content)
    path.chmod(0o600)
    refused = cli("strategy", "list")
    assert (refused.code, "malformed" in refused.err) == (4, True)
    assert "hunter2" not in refused.err


def test_a_server_that_does_not_answer_does_not_cost_the_login(own_home: Path) -> None:
    path = Home(own_home).logins
    url = "http://127.0.0.1:9"
    keep_login(url, Login("a@example.com", "access", 0.0, "refresh"), path)
    with pytest.raises(Exception, match="no answer"):
        access_token(url, path)
    assert login_to(url, path) is not None
    with pytest.raises(Denied, match="newer"):
        _newer(path, url)


def _newer(path: Path, url: str) -> None:
    path.write_text('{"schema_version": 99, "logins": {}}')
    access_token(url, path)
