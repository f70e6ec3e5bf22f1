"""Accounts: making them, logging in, roles and scopes, passwords, one-time codes, and what is written down."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pyotp
import pytest

from storage.cluster import Cluster
from tests.api.account_samples import PASSWORD, audit, enroll, login, person, refreshed, serving_accounts
from tests.api.conftest import Engine
from tests.api.test_health_and_errors import problem
from tests.waiting import eventually


@pytest.fixture(scope="module")
def engine(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with serving_accounts(postgres, tmp_path_factory.mktemp("accounts")) as served:
        yield served


def test_the_local_key_makes_an_account_that_logs_in_and_is_who_it_is(engine: Engine) -> None:
    ann = person(engine, "trader", "ann")
    answer = ann.ask("GET", "/auth/me")
    assert answer.json()["id"] == f"user:{ann.id}"
    assert answer.json()["scopes"] == ["read", "research", "trade", "live"]
    assert answer.json()["account"]["email"] == ann.email
    assert ann.ask("GET", "/system/info").json()["owner"] == ann.principal
    assert "password" not in answer.text


def test_the_local_key_is_no_account_and_works_as_before(engine: Engine) -> None:
    me = engine.http.get("/auth/me").json()
    assert (me["id"], me["account"], me["expires_at"]) == ("local", None, None)
    problem(engine.http.post("/auth/api-keys", json={"name": "x"}), 403, "denied")


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("viewer", "read"), ("researcher", "read research"), ("trader", "read research trade live")],
)
def test_a_role_is_what_a_login_gets_and_it_may_ask_for_less(engine: Engine, role: str, allowed: str) -> None:
    who = person(engine, role)
    assert who.log_in().json()["scope"] == allowed
    assert who.log_in(scope="read").json()["scope"] == "read"
    refused = problem(who.log_in(scope="read admin"), 422, "refused-input")
    assert refused["errors"][0]["allowed"] == allowed.replace(" ", ", ")


def test_only_an_administrator_reaches_accounts_keys_that_sign_and_the_audit_log(engine: Engine) -> None:
    trader, admin = person(engine, "trader"), person(engine, "admin")
    for method, path, body in (
        ("GET", "/auth/users", None),
        ("POST", "/auth/users", {"email": "x@example.com", "role": "admin", "password": PASSWORD}),
        ("PATCH", f"/auth/users/{trader.id}", {"role": "admin"}),
        ("POST", f"/auth/users/{trader.id}/reset-token", None),
        ("POST", "/auth/signing-keys", {}),
        ("GET", "/system/audit", None),
    ):
        problem(trader.ask(method, path, json=body), 403, "denied")
    assert admin.ask("GET", "/auth/users").status_code == 200
    assert admin.ask("GET", "/system/audit").status_code == 200


def test_accounts_are_listed_by_pages(engine: Engine) -> None:
    made = {person(engine).email for _ in range(3)}
    seen: list[str] = []
    cursor = None
    while True:
        page = engine.http.get(
            "/auth/users", params={"limit": 2} | ({"cursor": cursor} if cursor else {})
        ).json()
        seen += [user["email"] for user in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert made <= set(seen)
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("short@example.com", "short"),
        ("long@example.com", "abcdef" * 40),
        ("same@example.com", "ababababababab"),
        ("a-long-name@example.com", "a-long-name-2026"),
        ("no address", PASSWORD),
        ("nul\x00@example.com", PASSWORD),
    ],
)
def test_weak_passwords_and_no_addresses_are_refused_and_not_repeated(
    engine: Engine, email: str, password: str
) -> None:
    body = {"email": email, "role": "viewer", "password": password}
    answer = engine.http.post("/auth/users", json=body)
    problem(answer, 422, "refused-input")
    assert password not in answer.text


def test_a_field_with_a_secret_is_never_repeated(engine: Engine) -> None:
    body = {"email": "a@example.com", "role": "viewer", "password": {"oops": "hunter2"}, "passwrd": "hunter2"}
    answer = engine.http.post("/auth/users", json=body)
    problem(answer, 422, "refused-input")
    assert "hunter2" not in answer.text


def test_an_address_has_one_account_however_it_is_capitalized(engine: Engine) -> None:
    ann = person(engine)
    body = {"email": ann.email.upper(), "role": "viewer", "password": PASSWORD}
    problem(engine.http.post("/auth/users", json=body), 409, "conflict")
    assert login(engine, ann.email.upper()).status_code == 200


@pytest.mark.parametrize("email", ["nobody@example.com", "nul\x00@example.com", "' OR 1=1 --", "é" * 300])
def test_what_was_wrong_with_a_login_is_not_told(engine: Engine, email: str) -> None:
    ann = person(engine)
    unknown, wrong = login(engine, email), login(engine, ann.email, "wrong password 1")
    for answer in (unknown, wrong):
        assert problem(answer, 401, "wrong-credentials")["detail"] == "the email or the password is wrong"


def test_a_changed_role_and_a_switched_off_account_count_at_once(engine: Engine) -> None:
    who = person(engine, "researcher")
    key = who.ask("POST", "/auth/api-keys", json={"name": "k"}).json()["key"]
    for credential in (who.access, key):
        assert who.ask("GET", "/auth/me", credential).json()["scopes"] == ["read", "research"]
    assert engine.http.patch(f"/auth/users/{who.id}", json={"role": "viewer"}).json()["role"] == "viewer"
    for credential in (who.access, key):
        assert who.ask("GET", "/auth/me", credential).json()["scopes"] == ["read"]
    assert engine.http.patch(f"/auth/users/{who.id}", json={"is_active": False}).status_code == 200
    for credential in (who.access, key):
        problem(who.ask("GET", "/auth/me", credential), 401, "unauthenticated")
    problem(refreshed(engine, who.refresh), 401, "unauthenticated")
    problem(who.log_in(), 401, "wrong-credentials")
    assert engine.http.patch(f"/auth/users/{who.id}", json={"is_active": True}).status_code == 200
    assert who.ask("GET", "/auth/me", key).status_code == 200
    problem(who.ask("GET", "/auth/me"), 401, "unauthenticated")  # that login has ended
    told = [entry["details"] for entry in audit(engine, "user.changed") if entry["subject"] == who.principal]
    assert told[-1] == {"role": {"was": "researcher", "is": "viewer"}}


def test_a_new_password_ends_the_other_logins_and_wants_the_present_one(engine: Engine) -> None:
    who = person(engine)
    other_access = who.access
    who.log_in()
    body = {"current_password": "not the password", "password": "another good password"}
    problem(who.ask("PATCH", "/auth/me", json=body), 401, "wrong-credentials")
    answer = who.ask("PATCH", "/auth/me", json=body | {"current_password": PASSWORD})
    assert answer.status_code == 200
    assert who.ask("GET", "/auth/me").status_code == 200
    problem(who.ask("GET", "/auth/me", other_access), 401, "unauthenticated")
    problem(login(engine, who.email), 401, "wrong-credentials")
    assert login(engine, who.email, "another good password").status_code == 200


def test_an_address_can_be_changed_but_not_to_somebody_elses(engine: Engine) -> None:
    who, other = person(engine), person(engine)
    body = {"current_password": PASSWORD, "email": other.email.title()}
    problem(who.ask("PATCH", "/auth/me", json=body), 409, "conflict")
    body["email"] = f"new-{who.email}"
    assert who.ask("PATCH", "/auth/me", json=body).json()["email"] == body["email"]
    assert who.ask("GET", "/auth/me").json()["id"] == who.principal


def test_registration_is_closed_unless_a_setting_opens_it(
    engine: Engine, postgres: Cluster, tmp_path: Path
) -> None:
    body = {"email": "new@example.com", "password": PASSWORD}
    problem(httpx.post(f"{engine.url}/api/v1/auth/register", json=body), 403, "registration-closed")
    with serving_accounts(postgres, tmp_path, registration=True) as opened:
        url = f"{opened.url}/api/v1/auth/register"
        assert httpx.post(url, json=body).json()["role"] == "viewer"
        problem(httpx.post(url, json=body | {"role": "admin"}), 422, "refused-input")
        problem(httpx.post(url, json=body | {"is_superuser": True}), 422, "refused-input")
        problem(httpx.post(url, json=body), 409, "conflict")
        assert login(opened, "new@example.com").json()["scope"] == "read"


def test_a_forgotten_password_answers_the_same_to_everybody_and_is_written_down(engine: Engine) -> None:
    who = person(engine)
    url = f"{engine.url}/api/v1/auth/forgot-password"
    known, unknown = (
        httpx.post(url, json={"email": email}) for email in (who.email, "nobody-here@example.com")
    )
    assert (known.status_code, known.json()) == (unknown.status_code, unknown.json())
    assert known.status_code == 202
    eventually(
        lambda: {entry["subject"] for entry in audit(engine, "password.forgotten")} >= {who.principal, None}
    )
    assert "nobody-here" not in engine.http.get("/system/audit").text


def test_an_administrators_reset_token_sets_a_password_once_and_ends_the_logins(engine: Engine) -> None:
    who = person(engine)
    token = engine.http.post(f"/auth/users/{who.id}/reset-token").json()["token"]
    url = f"{engine.url}/api/v1/auth/reset-password"
    problem(httpx.post(url, json={"token": token, "password": "short"}), 422, "refused-input")
    wrong = {"token": token[:-4] + "AAAA", "password": "another good password"}
    assert problem(httpx.post(url, json=wrong), 422, "refused-input")["errors"][0]["value"] is None
    body = {"token": token, "password": "another good password"}
    assert httpx.post(url, json=body).status_code == 204
    problem(httpx.post(url, json=body | {"password": "a third good password"}), 422, "refused-input")
    problem(who.ask("GET", "/auth/me"), 401, "unauthenticated")
    assert login(engine, who.email, "another good password").status_code == 200
    assert audit(engine, "password.reset")[0]["subject"] == who.principal


def test_an_access_token_is_no_reset_token_and_the_reverse(engine: Engine) -> None:
    who = person(engine)
    token = engine.http.post(f"/auth/users/{who.id}/reset-token").json()["token"]
    problem(who.ask("GET", "/auth/me", token), 401, "unauthenticated")
    body = {"token": who.access, "password": "another good password"}
    problem(httpx.post(f"{engine.url}/api/v1/auth/reset-password", json=body), 422, "refused-input")


def test_an_outbox_gets_a_private_letter_for_an_account_that_exists(
    postgres: Cluster, tmp_path: Path
) -> None:
    outbox = tmp_path / "outbox"
    with serving_accounts(postgres, tmp_path, reset_outbox=outbox) as engine:
        who = person(engine)
        url = f"{engine.url}/api/v1/auth/"
        for email in ("nobody@example.com", who.email):
            assert httpx.post(f"{url}forgot-password", json={"email": email}).status_code == 202
        (letter,) = eventually(lambda: list(outbox.glob("*.json")), what="a letter")
        assert stat.S_IMODE(letter.stat().st_mode) == 0o600
        written = json.loads(letter.read_text())
        assert written["email"] == who.email
        body = {"token": written["token"], "password": "another good password"}
        assert httpx.post(f"{url}reset-password", json=body).status_code == 204


def test_one_time_codes_are_wanted_once_confirmed_and_taken_once(engine: Engine) -> None:
    who = person(engine)
    secret = who.ask("POST", "/auth/otp/enroll", json={"current_password": PASSWORD}).json()["secret"]
    assert who.log_in().status_code == 200  # not confirmed yet
    problem(who.ask("POST", "/auth/otp/confirm", json={"code": "000000"}), 422, "refused-input")
    totp = pyotp.TOTP(secret)
    first = totp.now()
    assert who.ask("POST", "/auth/otp/confirm", json={"code": first}).json()["otp_enabled"] is True
    problem(who.log_in(), 401, "otp-required")
    problem(who.log_in(otp=first), 401, "wrong-credentials")  # taken by the confirmation
    following = totp.at(time.time() + 30)
    assert who.log_in(otp=following).status_code == 200
    problem(who.log_in(otp=following), 401, "wrong-credentials")
    assert {entry["details"]["reason"] for entry in audit(engine, "login.failed")} >= {"one-time code"}
    assert secret not in engine.http.get("/system/audit").text
    with engine.context.database.connect() as connection:
        kept = connection.exec_driver_sql("SELECT totp_secret FROM users WHERE id = %s", (who.id,)).scalar()
    assert kept
    assert secret not in str(kept)


def test_a_code_brought_many_times_at_once_is_taken_once(engine: Engine) -> None:
    who = person(engine)
    following = enroll(who).at(time.time() + 30)
    with ThreadPoolExecutor(3) as pool:
        codes = [answer.status_code for answer in pool.map(lambda _: who.log_in(otp=following), range(3))]
    assert sorted(codes) == [200, 401, 401]


def test_codes_are_changed_with_a_code_and_removed_by_an_administrator(engine: Engine) -> None:
    who = person(engine)
    enroll(who)
    problem(who.ask("POST", "/auth/otp/enroll", json={"current_password": PASSWORD}), 401, "otp-required")
    answer = engine.http.patch(f"/auth/users/{who.id}", json={"otp_enabled": False})
    assert answer.json()["otp_enabled"] is False
    assert who.log_in().status_code == 200
    assert audit(engine, "otp.disabled")[0]["subject"] == who.principal
    problem(who.ask("POST", "/auth/otp/confirm", json={"code": "123456"}), 409, "conflict")


def test_the_audit_log_tells_who_did_what_from_where_by_pages(engine: Engine) -> None:
    admin, who = person(engine, "admin"), person(engine)
    login(engine, who.email, "a wrong password")
    admin.ask("PATCH", f"/auth/users/{who.id}", json={"role": "trader"})
    failed = next(e for e in audit(engine, "login.failed") if e["subject"] == who.principal)
    assert failed["details"] == {"reason": "password"}
    assert failed["actor"] is None
    assert failed["address"] == "127.0.0.1"
    assert audit(engine, "user.changed")[0]["actor"] == admin.principal
    ids: list[int] = []
    cursor = None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = engine.http.get("/system/audit", params=query).json()
        ids += [entry["id"] for entry in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert ids == sorted(set(ids), reverse=True)
    assert len(ids) > 2
    everything = engine.http.get("/system/audit", params={"limit": 200}).text
    for secret in (PASSWORD, "a wrong password", who.access, who.refresh):
        assert secret not in everything
