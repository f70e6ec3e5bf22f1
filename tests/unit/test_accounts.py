"""The small parts of accounts: what is remembered, private files, codes, roles, the migration of a database in use."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pyotp
import pytest
from fastapi_users.password import PasswordHelper
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import Engine, inspect, text

from api.accounts.otp import STEP_SECONDS, enrollment_uri, fresh_otp_secret, step_of
from api.accounts.passwords import PasswordThread, argon2
from api.accounts.remembered import Remembered
from api.accounts.roles import SCOPES, chosen, held, ordered
from api.accounts.users import Users
from api.errors import TooManyRequests
from gpt_trader.errors import Denied, Refused
from gpt_trader.private_files import locked, read_private, write_private
from storage import migrations
from storage.accounts import AccountStore
from storage.audit import AuditEvent, AuditLog


async def test_an_answer_is_remembered_for_seconds_and_forgotten_at_once() -> None:
    now, asked = [0.0], []

    async def look_up(key: str) -> str | None:
        asked.append(key)
        return None if key == "nobody" else f"{key} {len(asked)}"

    remembered = Remembered(look_up, seconds=5, places=2, clock=lambda: now[0])
    assert [await remembered.get("ann") for _ in range(3)] == ["ann 1"] * 3
    assert [await remembered.get("nobody") for _ in range(3)] == [None] * 3
    assert asked == ["ann", "nobody"]
    now[0] = 5.0
    assert await remembered.get("ann") == "ann 3"
    remembered.forget("ann")
    assert await remembered.get("ann") == "ann 4"
    await remembered.get("bob")
    await remembered.get("eve")  # the third place: ann's is gone
    assert await remembered.get("ann") == "ann 7"


async def test_what_was_being_looked_up_when_it_was_forgotten_is_not_remembered() -> None:
    """A login is ended between the query and its answer: the old answer must not stand for seconds."""
    reached, go_on = asyncio.Event(), asyncio.Event()
    stands = [True]

    async def look_up(_: str) -> bool:
        found = stands[0]
        reached.set()
        await go_on.wait()
        return found

    remembered = Remembered(look_up)
    asking = asyncio.create_task(remembered.get("login"))
    await reached.wait()
    stands[0] = False
    remembered.forget("login")
    go_on.set()
    assert await asking is True
    assert await remembered.get("login") is False


async def test_a_bounded_number_of_passwords_waits_and_a_client_that_leaves_frees_its_place_when_it_is_done() -> (
    None
):
    thread = PasswordThread(waiting=2)
    begun, go_on = threading.Event(), threading.Event()

    async def work() -> str:
        begun.set()
        go_on.wait(30)  # as a hash does, this blocks the loop that it runs on
        return threading.current_thread().name

    async def quick() -> str:
        return "done"

    first = asyncio.create_task(thread.run(work))
    await asyncio.to_thread(begun.wait, 30)
    second = asyncio.create_task(thread.run(quick))
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequests):
        await thread.run(quick)
    second.cancel()  # it never began: its place is free
    with pytest.raises(asyncio.CancelledError):
        await second
    third = asyncio.create_task(thread.run(quick))
    await asyncio.sleep(0)
    first.cancel()  # it goes on in the thread: its place is not free
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(TooManyRequests):
        await thread.run(quick)
    go_on.set()
    assert await third == "done"
    assert (await thread.run(work)).startswith("passwords")
    thread.close()


def test_a_private_file_is_whole_private_and_refused_when_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    assert read_private(path) is None
    write_private(path, b"one")
    write_private(path, b"two")
    assert read_private(path) == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["file"]
    path.chmod(0o640)
    with pytest.raises(Denied, match="chmod 600"):
        read_private(path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Denied, match="cannot be read"):
        read_private(path)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(Denied, match="regular file"):
        read_private(path)
    (tmp_path / "taken").write_text("")
    with pytest.raises(Denied, match="cannot be written"):
        write_private(tmp_path / "taken" / "file", b"")


def test_a_locked_file_lets_one_in_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("0")

    def count(_: int) -> None:
        with locked(path):
            seen = int(path.read_text())
            time.sleep(0)
            path.write_text(str(seen + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(100)))
    assert path.read_text() == "100"


def test_a_code_is_of_its_step_and_the_two_beside_and_of_no_other() -> None:
    secret = fresh_otp_secret()
    totp, now = pyotp.TOTP(secret), 1_790_000_015.0
    step = int(now // STEP_SECONDS)
    for drift in (-1, 0, 1):
        assert step_of(secret, totp.generate_otp(step + drift), now) == step + drift
    for drift in (-2, 2, 1000):
        assert step_of(secret, totp.generate_otp(step + drift), now) is None
    code = totp.generate_otp(step)
    assert step_of(secret, f"{code[:3]} {code[3:]}", now) == step
    for wrong in ("", "12345", code + "0", "０" * 6, "abc\x00"):
        assert step_of(secret, wrong, now) is None
    assert enrollment_uri(secret, "ann@example.com").startswith(
        "otpauth://totp/gpt-trader:ann%40example.com?"
    )


def test_codes_are_those_of_rfc_6238() -> None:
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"  # the RFC's key; its 8 digits, cut to 6
    for seconds, code in ((59, "287082"), (1111111109, "081804"), (2000000000, "279037")):
        assert step_of(secret, code, seconds) == seconds // 30


def test_scopes_are_what_was_granted_and_the_role_still_has() -> None:
    assert held(["read", "trade", "nonsense"], "trader") == {"read", "trade"}
    assert held(["read", "trade"], "viewer") == {"read"}
    assert held(["read"], "a role of a newer version") == frozenset()
    assert chosen([], SCOPES["researcher"]) == {"read", "research"}
    with pytest.raises(Refused, match="more than you have"):
        chosen(["admin"], SCOPES["trader"])
    with pytest.raises(Refused, match="is no scope") as refused:
        chosen(["reserch"], SCOPES["trader"])
    assert refused.value.problems[0].nearest == "research"
    assert ordered({"admin", "read", "trade"}) == ("read", "trade", "admin")


def test_a_database_in_use_gets_the_tables_of_accounts_and_keeps_its_runs(engine: Engine) -> None:
    from alembic import command

    tables = {"users", "logins", "refresh_tokens", "api_keys", "tickets", "audit_events"}
    settings = migrations.config()
    with engine.begin() as connection:
        settings.attributes["connection"] = connection
        command.downgrade(settings, "0001")
        assert not tables & set(inspect(connection).get_table_names())
        connection.execute(
            text(
                "INSERT INTO runs (run_id, slice, owner, request, request_hash, schema_version) "
                "VALUES (:id, 'backtest', 'local', '{}', 'x', 1)"
            ),
            {"id": uuid4()},
        )
    with engine.begin() as connection:
        settings.attributes["connection"] = connection
        command.upgrade(settings, "head")
        assert tables <= set(inspect(connection).get_table_names())
        assert connection.execute(text("SELECT count(*) FROM runs")).scalar() == 1


def test_an_account_is_written_down_with_what_is_told_of_it_or_neither(engine: Engine) -> None:
    store, audit = AccountStore(engine), AuditLog(engine)
    user = store.create("ann@example.com", "hash", "viewer", AuditEvent("user.created"))
    with pytest.raises(Exception, match="has an account already"):
        store.create("ANN@example.com", "hash", "viewer", AuditEvent("user.created"))
    (entry,) = audit.page(10).items
    assert (entry.event, entry.subject) == ("user.created", user.principal)
    assert "hash" not in repr(user)
    with engine.begin() as connection:
        connection.execute(text("UPDATE audit_events SET at = now() - interval '400 days'"))
    assert audit.forget(365) == 1
    assert audit.page(10).items == ()


def test_the_command_line_does_not_pay_for_accounts() -> None:
    """`--help` loads the commands of accounts, and none of what they need."""
    code = (
        "import sys; from cli.main import app; app(['--help']); "
        "print([m for m in ('http.client', 'pydantic', 'jwt', 'fastapi_users') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


async def test_passwords_are_hashed_by_argon2_on_one_core_behind_everybody_else() -> None:
    hashed = argon2().hash("correct horse battery")
    assert re.match(r"\$argon2id\$v=19\$m=65536,t=3,p=1\$", hashed)
    thread = PasswordThread()

    async def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    try:
        if sys.platform == "linux":
            assert await thread.run(priority) > os.getpriority(os.PRIO_PROCESS, 0)
    finally:
        thread.close()


async def test_a_password_that_was_hashed_otherwise_is_taken_and_hashed_anew(engine: Engine) -> None:
    thread, store = PasswordThread(), AccountStore(engine)
    old = PasswordHelper(PasswordHash((Argon2Hasher(parallelism=4),))).hash("correct horse battery")
    made = store.create("ann@example.com", old, "viewer")
    try:
        found = await Users(store, thread, "secret").check("ann@example.com", "correct horse battery")
    finally:
        thread.close()
    assert found is not None
    kept = store.get(made.id)
    assert kept is not None
    assert ",p=1$" in kept.hashed_password
