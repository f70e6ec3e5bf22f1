"""Accounts against who means harm, and against bad luck: lost answers, administrators at odds, keys that overreach."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi_users.password import PasswordHelper

from api.accounts.passwords import check_password
from api.accounts.secrets_file import SecretsFile
from api.accounts.throttle import ACCOUNT, ADDRESS, Throttle
from api.logs import _CHATTY
from gpt_trader.errors import Refused
from storage.cluster import Cluster
from tests.api.account_samples import (
    CHEAP,
    PASSWORD,
    Person,
    audit,
    enroll,
    login,
    person,
    refreshed,
    serving_accounts,
    with_hasher,
)
from tests.api.conftest import Engine
from tests.api.test_health_and_errors import problem


@pytest.fixture(scope="module")
def engine(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with serving_accounts(postgres, tmp_path_factory.mktemp("hostile")) as served:
        yield served


def refreshed_with(engine: Engine, token: str, key: str) -> httpx.Response:
    url, headers = f"{engine.url}/api/v1/auth/refresh", {"Idempotency-Key": key}
    return httpx.post(url, json={"refresh_token": token}, headers=headers, timeout=20)


# A client whose answer was lost


def test_a_refresh_whose_answer_was_lost_is_sent_again_without_ending_the_login(engine: Engine) -> None:
    who, key = person(engine), secrets.token_urlsafe(24)
    lost, again = (refreshed_with(engine, who.refresh, key).json() for _ in range(2))
    assert lost["refresh_token"] == again["refresh_token"] != who.refresh
    assert who.ask("GET", "/auth/me", again["access_token"]).status_code == 200
    following = refreshed_with(engine, again["refresh_token"], secrets.token_urlsafe(24))
    assert following.status_code == 200
    # Its successor has been used: whoever brings the old one now has stolen it, key or no key.
    problem(refreshed_with(engine, who.refresh, key), 401, "unauthenticated")
    problem(refreshed(engine, following.json()["refresh_token"]), 401, "unauthenticated")
    assert sum(entry["subject"] == who.principal for entry in audit(engine, "refresh.reused")) == 1


@pytest.mark.parametrize("theirs", [None, "another-key-of-a-thief"])
def test_who_stole_the_token_without_the_key_is_found_out(engine: Engine, theirs: str | None) -> None:
    who = person(engine)
    pair = refreshed_with(engine, who.refresh, secrets.token_urlsafe(24)).json()
    stolen = refreshed_with(engine, who.refresh, theirs) if theirs else refreshed(engine, who.refresh)
    problem(stolen, 401, "unauthenticated")
    problem(refreshed(engine, pair["refresh_token"]), 401, "unauthenticated")


def test_of_fifty_retries_at_once_all_get_the_one_successor(engine: Engine) -> None:
    who, key = person(engine), secrets.token_urlsafe(24)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: refreshed_with(engine, who.refresh, key), range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1


def test_a_retry_after_the_login_has_ended_gets_nothing_and_a_key_must_be_long(engine: Engine) -> None:
    who, key = person(engine), secrets.token_urlsafe(24)
    assert refreshed_with(engine, who.refresh, key).status_code == 200
    assert who.ask("POST", "/auth/logout").status_code == 204
    problem(refreshed_with(engine, who.refresh, key), 401, "unauthenticated")
    problem(refreshed_with(engine, who.refresh, "short"), 422, "refused-input")


# Administrators


def administrators(engine: Engine) -> list[dict[str, Any]]:
    users = engine.http.get("/auth/users", params={"limit": 200}).json()["items"]
    return [user for user in users if user["role"] == "admin" and user["is_active"]]


def test_the_last_administrator_stays_one_whoever_asks(postgres: Cluster, tmp_path: Path) -> None:
    with serving_accounts(postgres, tmp_path) as engine:
        only = person(engine, "admin")
        for change in ({"role": "viewer"}, {"is_active": False}, {"role": "trader", "is_active": True}):
            detail = problem(only.ask("PATCH", f"/auth/users/{only.id}", json=change), 409, "conflict")[
                "detail"
            ]
            assert "last active administrator" in detail
            problem(engine.http.patch(f"/auth/users/{only.id}", json=change), 409, "conflict")
        assert only.ask("PATCH", f"/auth/users/{only.id}", json={"role": "admin"}).status_code == 200
        # Two that take the role from each other at the same moment: one of them stays.
        for _ in range(5):
            other = person(engine, "admin")
            pairs = [(only, other), (other, only)]

            def demote(pair: tuple[Person, Person]) -> int:
                return pair[0].ask("PATCH", f"/auth/users/{pair[1].id}", json={"role": "viewer"}).status_code

            with ThreadPoolExecutor(2) as pool:
                codes = sorted(pool.map(demote, pairs))
            assert codes[0] == 200
            (left,) = administrators(engine)
            only = other if left["id"] == other.id else only
            assert only.log_in().status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/auth/users", {"email": "x@example.com", "role": "admin", "password": PASSWORD}),
        ("PATCH", "/auth/users/{id}", {"role": "admin"}),
        ("PATCH", "/auth/users/{id}", {"otp_enabled": False}),
        ("POST", "/auth/users/{id}/reset-token", None),
        ("POST", "/auth/signing-keys", {}),
    ],
)
def test_no_key_makes_more_of_itself_through_accounts(
    engine: Engine, method: str, path: str, body: dict[str, Any] | None
) -> None:
    admin = person(engine, "admin")
    made = admin.ask("POST", "/auth/api-keys", json={"name": "k", "scopes": ["admin"]}).json()
    assert made["scopes"] == ["admin"]
    where = path.replace("{id}", admin.id)
    problem(admin.ask(method, where, made["key"], json=body), 403, "denied")
    assert admin.ask("GET", "/auth/users", made["key"]).status_code == 200  # it may look
    assert admin.ask("GET", "/auth/me").status_code == 200


# Logging in and out


def test_logins_with_codes_do_not_slow_their_own_address_down() -> None:
    throttle = Throttle(clock=lambda: 0.0)
    for number in range(100):  # an office behind one address; each login first learns that it needs a code
        account = f"user{number}@example.com"
        assert throttle.begin(account, "1.1.1.1") == 0, number
        assert throttle.begin(account, "1.1.1.1") == 0, number
        throttle.succeeded(account, "1.1.1.1")
    # Whoever logs in to an account of their own between the guesses gets none of these back.
    for number in range(ADDRESS.free + ACCOUNT.free):
        throttle.begin(f"victim{number}@example.com", "2.2.2.2")
        if throttle.begin("mine@example.com", "2.2.2.2") == 0:
            throttle.succeeded("mine@example.com", "2.2.2.2")
    assert throttle.begin("victim@example.com", "2.2.2.2") > 0


def test_a_password_that_somebody_knows_without_the_code_is_told_in_the_audit_log(engine: Engine) -> None:
    who = person(engine)
    enroll(who)
    problem(login(engine, who.email), 401, "otp-required")
    (told,) = [entry for entry in audit(engine, "login.code_missing") if entry["subject"] == who.principal]
    assert told["address"] == "127.0.0.1"


def test_the_audit_log_knows_who_logged_out_by_a_refresh_token(engine: Engine) -> None:
    who = person(engine)
    url = f"{engine.url}/api/v1/auth/logout"
    assert httpx.post(url, json={"refresh_token": who.refresh}).status_code == 204
    (told,) = [entry for entry in audit(engine, "logout") if entry["subject"] == who.principal]
    assert told["actor"] is None


def test_a_logout_with_both_tokens_ends_both_logins_and_an_unknown_one_hides_none(engine: Engine) -> None:
    one, two = person(engine), person(engine)
    assert one.ask("POST", "/auth/logout", json={"refresh_token": two.refresh}).status_code == 204
    for who in (one, two):
        problem(who.ask("GET", "/auth/me"), 401, "unauthenticated")
    three = person(engine)
    assert three.ask("POST", "/auth/logout", json={"refresh_token": "gtr_nobody"}).status_code == 204
    problem(three.ask("GET", "/auth/me"), 401, "unauthenticated")


def test_a_login_that_has_expired_ends_its_access_tokens_too(engine: Engine) -> None:
    who = person(engine)
    with engine.context.database.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE logins SET expires_at = now() - interval '1 second' WHERE user_id = %s", (who.id,)
        )
    engine.context.accounts.forget_standings()
    problem(who.ask("GET", "/auth/me"), 401, "unauthenticated")


class Counting(PasswordHelper):
    """Counts the hashes that a check costs: time tells them apart, and cannot be measured on a busy machine."""

    def __init__(self) -> None:
        super().__init__(CHEAP.password_hash)
        self.count = 0

    def hash(self, password: str) -> str:
        self.count += 1
        return super().hash(password)

    def verify_and_update(self, plain_password: str, hashed_password: str) -> tuple[bool, str | None]:
        self.count += 1
        return super().verify_and_update(plain_password, hashed_password)


def test_a_wrong_login_costs_one_hash_whether_the_account_exists_or_not(
    postgres: Cluster, tmp_path: Path
) -> None:
    counting = Counting()
    with serving_accounts(postgres, tmp_path) as plain:
        who, off = person(plain), person(plain)
        plain.http.patch(f"/auth/users/{off.id}", json={"is_active": False})
        engine = with_hasher(plain, counting)
        answers, costs = [], []
        for email, password in (
            (who.email, "a wrong password"),
            (off.email, PASSWORD),
            (off.email, "a wrong password"),
            ("nobody@example.com", PASSWORD),
            ("nul\x00@example.com", PASSWORD),
            ("x" * 320, PASSWORD),
        ):
            counting.count = 0
            answers.append(problem(login(engine, email, password), 401, "wrong-credentials")["detail"])
            costs.append(counting.count)
    assert costs == [1] * 6
    assert len(set(answers)) == 1


# Passwords and secrets


def test_an_address_of_a_few_letters_does_not_forbid_them_in_passwords() -> None:
    for email in ("a@example.com", "ann@example.com"):
        check_password("a banana split, and one more", email)
    for password in ("longname is my password", "LONGNAME@example.com"):
        with pytest.raises(Refused, match="made of the email"):
            check_password(password, "longname@example.com")


@pytest.mark.parametrize(
    "body",
    [
        {"email": "a@example.com", "role": "viewer", "pwd": "hunter2hunter2"},
        {"email": "a@example.com", "role": "viewer", "password": {"value": "hunter2hunter2"}},
        {"email": "a@example.com", "role": "viewer", "password": ["hunter2hunter2"]},
    ],
)
def test_a_password_in_the_wrong_place_is_not_repeated(engine: Engine, body: dict[str, Any]) -> None:
    answer = engine.http.post("/auth/users", json=body)
    problem(answer, 422, "refused-input")
    assert "hunter2" not in answer.text


def test_no_secret_reaches_a_log_line(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    who = person(engine)
    otp = enroll(who)
    key = who.ask("POST", "/auth/api-keys", json={"name": "k"}).json()["key"]
    ticket = who.ask("POST", "/auth/stream-tickets").json()["ticket"]
    httpx.get(f"{engine.url}/api/v1/workflows/runs/{uuid4()}/events", params={"ticket": ticket})
    login(engine, who.email, "a wrong password of mine")
    reset = engine.http.post(f"/auth/users/{who.id}/reset-token").json()["token"]
    httpx.post(
        f"{engine.url}/api/v1/auth/reset-password", json={"token": reset, "password": "another good one"}
    )
    refreshed(engine, who.refresh)
    kept = [record for record in caplog.records if not record.name.startswith(_CHATTY)]  # as the process does
    assert len(kept) > 8  # requests are logged at all
    whole = "".join(repr(record.__dict__) for record in kept)
    for secret in (
        PASSWORD,
        who.access,
        who.refresh,
        key,
        ticket,
        reset,
        otp.secret,
        "wrong password of mine",
    ):
        assert secret not in whole, secret[:4]


# Keys that sign, in several processes


def eventually_kid(file: SecretsFile, kid: str) -> None:
    deadline = time.monotonic() + 10
    while file.current().kid != kid:
        assert time.monotonic() < deadline


def test_a_key_that_another_process_rotated_or_discarded_signs_and_opens_nothing_here(tmp_path: Path) -> None:
    path = tmp_path / "home" / "account-keys.json"
    here, there = SecretsFile(path), SecretsFile(path)
    first = here.current()
    second = there.rotate(60)
    eventually_kid(here, second.kid)  # without having met a token of it
    assert here.by_kid(first.kid) is not None
    third = there.rotate(0)  # after a theft
    eventually_kid(here, third.kid)
    assert here.by_kid(first.kid) is None
    assert here.by_kid(second.kid) is None
    again = SecretsFile(path)  # a restart
    assert (again.current(), again.by_kid(second.kid)) == (third, None)


def test_a_file_that_cannot_be_read_again_logs_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "home" / "account-keys.json"
    here = SecretsFile(path)
    kept = here.current()
    for spoil in (path.unlink, lambda: path.write_text("{"), lambda: path.chmod(0o644)):
        spoil()
        assert here.current() == kept
        assert here.by_kid(kept.kid) == kept
        assert here.by_kid("nobody's") is None
