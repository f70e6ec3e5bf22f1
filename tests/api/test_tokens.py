"""Tokens and keys: which are accepted, what happens to one that is brought twice, and what ends them."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from api.accounts.secrets_file import SecretsFile
from api.accounts.tickets import authenticate_ticket
from api.accounts.tokens import AUDIENCE, ISSUER, AccessTokens
from gpt_trader.errors import Denied
from storage.cluster import Cluster
from tests.api.account_samples import (
    Person,
    audit,
    person,
    refreshed,
    serving_accounts,
)
from tests.api.conftest import Engine
from tests.api.test_health_and_errors import problem
from tests.waiting import eventually


@pytest.fixture(scope="module")
def engine(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with serving_accounts(postgres, tmp_path_factory.mktemp("tokens")) as served:
        yield served


@pytest.fixture
def ann(engine: Engine) -> Person:
    return person(engine, "researcher", "ann")


Forge = Callable[[Engine, Person, dict[str, Any]], str]


def signed(engine: Engine, claims: dict[str, Any], **headers: Any) -> str:
    key = engine.context.accounts.keys.current()
    return jwt.encode(claims, key.secret, "HS256", headers={"kid": key.kid, **headers})


def changed(**values: Any) -> Forge:
    return lambda engine, _, claims: signed(engine, {**claims, **values})


def without(name: str) -> Forge:
    return lambda engine, _, claims: signed(engine, {key: v for key, v in claims.items() if key != name})


def unsigned(_: Engine, who: Person, claims: dict[str, Any]) -> str:
    kid = jwt.get_unverified_header(who.access)["kid"]
    return jwt.encode(claims, None, "none", headers={"kid": kid})


def unsigned_by_hand(_: Engine, who: Person, claims: dict[str, Any]) -> str:
    head = {**jwt.get_unverified_header(who.access), "alg": "None"}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (head, claims)
    ]
    return ".".join([*parts, ""])


def by_another_key(_: Engine, who: Person, claims: dict[str, Any]) -> str:
    kid = jwt.get_unverified_header(who.access)["kid"]
    return jwt.encode(claims, b"x" * 32, "HS256", headers={"kid": kid})


def by_a_longer_hash(engine: Engine, _: Person, claims: dict[str, Any]) -> str:
    key = engine.context.accounts.keys.current()
    return jwt.encode(claims, key.secret + key.secret, "HS512", headers={"kid": key.kid})


def by_a_key_pair(engine: Engine, _: Person, claims: dict[str, Any]) -> str:
    kid = engine.context.accounts.keys.current().kid
    return jwt.encode(claims, generate_private_key(65537, 2048), "RS256", headers={"kid": kid})


def with_more_scopes(_: Engine, who: Person, claims: dict[str, Any]) -> str:
    head, _, signature = who.access.split(".")
    more = base64.urlsafe_b64encode(json.dumps({**claims, "scopes": ["admin"]}).encode()).decode().rstrip("=")
    return f"{head}.{more}.{signature}"


TABLE: dict[str, Forge] = {
    "expired": changed(exp=int(time.time()) - 1),
    "issued in the future": changed(iat=int(time.time()) + 3600),
    "not valid yet": changed(nbf=int(time.time()) + 3600),
    "alg none": unsigned,
    "alg None by hand": unsigned_by_hand,
    "forged by another key": by_another_key,
    "another algorithm": by_a_longer_hash,
    "a key pair": by_a_key_pair,
    "more scopes under the old signature": with_more_scopes,
    "signature cut off": lambda _, who, __: who.access.rpartition(".")[0] + ".",
    "one character more": lambda _, who, __: who.access[:-1] + ("A" if who.access[-1] != "A" else "Q") + "A",
    "wrong audience": changed(aud="another-api"),
    "no audience": without("aud"),
    "wrong issuer": changed(iss="somebody"),
    "no issuer": without("iss"),
    "no expiry": without("exp"),
    "wrong kid": lambda engine, _, claims: signed(engine, claims, kid="0" * 16),
    "kid is a path": lambda engine, _, claims: signed(engine, claims, kid="../../key"),
    "no kid": lambda engine, _, claims: jwt.encode(
        claims, engine.context.accounts.keys.current().secret, "HS256"
    ),
    "a login that never was": changed(login=str(uuid4())),
    "a login that is none": changed(login="x"),
    "another subject": changed(sub=f"user:{uuid4()}"),
    "the local subject": changed(sub="local"),
    "scopes of another form": changed(scopes=7),
    "huge": lambda engine, _, claims: signed(engine, {**claims, "more": "x" * 5000}),
    "no token": lambda *_: "a.b.c",
}


@pytest.mark.parametrize("case", TABLE)
def test_a_token_that_is_not_wholly_right_is_refused(engine: Engine, ann: Person, case: str) -> None:
    claims = jwt.decode(ann.access, options={"verify_signature": False})
    assert claims["iss"] == ISSUER
    assert claims["aud"] == AUDIENCE
    assert set(claims) == {"iss", "aud", "exp", "iat", "jti", "sub", "login", "scopes"}
    assert (
        ann.ask("GET", "/auth/me", signed(engine, claims)).status_code == 200
    )  # so it is the change that counts
    forged = TABLE[case](engine, ann, claims)
    problem(ann.ask("GET", "/auth/me", forged), 401, "unauthenticated")


def test_a_scope_that_the_login_was_not_given_is_not_had_by_a_token_of_ours(engine: Engine) -> None:
    who = person(engine, "trader")
    who.log_in(scope="read")
    claims = jwt.decode(who.access, options={"verify_signature": False})
    more = signed(engine, {**claims, "scopes": ["read", "trade", "admin"]})
    assert who.ask("GET", "/auth/me", more).json()["scopes"] == ["read"]


def test_a_token_lasts_as_the_settings_say(postgres: Cluster, tmp_path: Path) -> None:
    with serving_accounts(postgres, tmp_path, access_token_minutes=0.01, refresh_token_days=1e-7) as engine:
        who = person(engine)
        claims = jwt.decode(who.access, options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] <= 1
        deadline = time.monotonic() + 10
        while who.ask("GET", "/auth/me").status_code == 200:
            assert time.monotonic() < deadline
        problem(refreshed(engine, who.refresh), 401, "unauthenticated")


def test_a_refresh_token_gives_the_next_pair_once(engine: Engine) -> None:
    who = person(engine)
    answer = refreshed(engine, who.refresh)
    assert answer.status_code == 200
    pair = answer.json()
    assert pair["refresh_token"] != who.refresh
    assert (pair["token_type"], pair["expires_in"], pair["refresh_expires_in"]) == ("bearer", 1800, 604_800)
    for access in (who.access, pair["access_token"]):
        assert who.ask("GET", "/auth/me", access).status_code == 200
    # The old one again: stolen, or its thief was first. Everything of this login ends, other logins go on.
    other = Person(engine, who.email, who.id)
    other.log_in()
    detail = problem(refreshed(engine, who.refresh), 401, "unauthenticated")["detail"]
    assert "used before" in detail
    for access in (who.access, pair["access_token"]):
        problem(who.ask("GET", "/auth/me", access), 401, "unauthenticated")
    problem(refreshed(engine, pair["refresh_token"]), 401, "unauthenticated")
    assert other.ask("GET", "/auth/me").status_code == 200
    told = [entry for entry in audit(engine, "refresh.reused") if entry["subject"] == who.principal]
    assert len(told) == 1


@pytest.mark.parametrize("token", ["", "gtr_nobody", "x" * 5000, "nul\x00", "é"])
def test_what_is_no_refresh_token_ends_nothing(engine: Engine, ann: Person, token: str) -> None:
    problem(refreshed(engine, token), 401, "unauthenticated")
    assert ann.ask("GET", "/auth/me").status_code == 200


def test_of_fifty_parallel_refreshes_one_wins_and_the_login_ends(
    engine: Engine, figure: Callable[[str], None]
) -> None:
    who = person(engine)

    async def together() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:
            url = f"{engine.url}/api/v1/auth/refresh"
            body = {"refresh_token": who.refresh}
            return await asyncio.gather(*(client.post(url, json=body) for _ in range(50)))

    answers = asyncio.run(together())
    codes = Counter(answer.status_code for answer in answers)
    figure(f"50 parallel refreshes of one token: {codes[200]} winner, {codes[401]} refused")
    assert codes == {200: 1, 401: 49}
    won = next(answer.json() for answer in answers if answer.status_code == 200)
    for access in (who.access, won["access_token"]):
        problem(who.ask("GET", "/auth/me", access), 401, "unauthenticated")
    problem(refreshed(engine, won["refresh_token"]), 401, "unauthenticated")
    assert sum(entry["subject"] == who.principal for entry in audit(engine, "refresh.reused")) == 1


@pytest.mark.parametrize("way", ["access token", "refresh token", "used refresh token"])
def test_logging_out_ends_the_login(engine: Engine, way: str) -> None:
    who = person(engine)
    old = who.refresh
    pair = refreshed(engine, old).json()
    url = f"{engine.url}/api/v1/auth/logout"
    if way == "access token":
        answer = who.ask("POST", "/auth/logout")
    else:
        token = old if way == "used refresh token" else pair["refresh_token"]
        answer = httpx.post(url, json={"refresh_token": token})
    assert answer.status_code == 204
    for access in (who.access, pair["access_token"]):
        problem(who.ask("GET", "/auth/me", access), 401, "unauthenticated")
    problem(refreshed(engine, pair["refresh_token"]), 401, "unauthenticated")
    assert httpx.post(url, json={"refresh_token": pair["refresh_token"]}).status_code == 204  # no error twice
    problem(httpx.post(url), 401, "unauthenticated")


def test_no_secret_is_in_the_database(engine: Engine) -> None:
    who = person(engine)
    key = who.ask("POST", "/auth/api-keys", json={"name": "k"}).json()["key"]
    ticket = who.ask("POST", "/auth/stream-tickets").json()["ticket"]
    with engine.context.database.connect() as connection:
        kept = "".join(
            str(connection.exec_driver_sql(f"SELECT * FROM {table}").all())
            for table in ("users", "logins", "refresh_tokens", "api_keys", "tickets", "audit_events")
        )
    assert str(who.id) in kept
    for secret in (who.refresh, who.access, key, ticket, "correct horse battery"):
        assert secret not in kept


def test_a_key_has_a_part_of_its_owners_scopes_and_is_shown_once(engine: Engine) -> None:
    who = person(engine, "trader")
    answer = who.ask("POST", "/auth/api-keys", json={"name": "nightly", "scopes": ["read"]})
    assert answer.status_code == 201
    made = answer.json()
    assert made["key"].startswith(made["starts_with"])
    me = who.ask("GET", "/auth/me", made["key"]).json()
    assert (me["id"], me["scopes"]) == (who.principal, ["read"])
    assert httpx.get(f"{engine.url}/api/v1/auth/me", headers={"X-API-Key": made["key"]}).status_code == 200
    problem(who.ask("POST", "/strategies/backtest", made["key"], json={}), 403, "denied")
    listed = who.ask("GET", "/auth/api-keys").json()["items"]
    assert [key["name"] for key in listed] == ["nightly"]
    assert listed[0]["last_used_at"]
    assert made["key"] not in json.dumps(listed)


def test_a_key_may_do_no_more_than_who_made_it(engine: Engine) -> None:
    who = person(engine, "trader")
    for scopes in (["admin"], ["read", "everything"]):
        problem(who.ask("POST", "/auth/api-keys", json={"name": "k", "scopes": scopes}), 422, "refused-input")
    who.log_in(scope="read")
    problem(who.ask("POST", "/auth/api-keys", json={"name": "k", "scopes": ["trade"]}), 422, "refused-input")
    assert who.ask("POST", "/auth/api-keys", json={"name": "k"}).json()["scopes"] == ["read"]


def test_a_key_makes_no_keys_codes_or_passwords(engine: Engine) -> None:
    who = person(engine, "admin")
    key = who.ask("POST", "/auth/api-keys", json={"name": "k"}).json()
    for method, path, body in (
        ("POST", "/auth/api-keys", {"name": "another"}),
        ("DELETE", f"/auth/api-keys/{key['id']}", None),
        ("POST", "/auth/otp/enroll", {"current_password": "x"}),
        ("POST", "/auth/otp/confirm", {"code": "123456"}),
        ("PATCH", "/auth/me", {"current_password": "x", "email": "y@example.com"}),
    ):
        problem(who.ask(method, path, key["key"], json=body), 403, "denied")


def test_a_deleted_key_opens_nothing_at_once_and_an_expired_one_neither(engine: Engine) -> None:
    who = person(engine)
    made = who.ask("POST", "/auth/api-keys", json={"name": "k"}).json()
    assert who.ask("GET", "/auth/me", made["key"]).status_code == 200
    assert who.ask("DELETE", f"/auth/api-keys/{made['id']}").status_code == 204
    problem(who.ask("GET", "/auth/me", made["key"]), 401, "unauthenticated")
    problem(who.ask("DELETE", f"/auth/api-keys/{made['id']}"), 404, "not-found")
    short = who.ask("POST", "/auth/api-keys", json={"name": "k", "expires_in_days": 1e-5}).json()
    assert who.ask("GET", "/auth/me", short["key"]).status_code == 200
    deadline = time.monotonic() + 10
    while who.ask("GET", "/auth/me", short["key"]).status_code == 200:
        assert time.monotonic() < deadline
    assert [entry["event"] for entry in audit(engine, "key.deleted")] != []


def test_a_ticket_opens_one_stream_once(engine: Engine) -> None:
    who = person(engine)
    run_id = uuid4()
    context = engine.context
    context.runs.register(run_id, "backtest", who.principal, {"symbol": "ACME"})
    ticket = who.ask("POST", "/auth/stream-tickets").json()
    assert ticket["expires_in"] == 30
    url = f"{engine.url}/api/v1/workflows/runs/{run_id}/events"
    with httpx.stream("GET", url, params={"ticket": ticket["ticket"]}, timeout=20) as answer:
        assert answer.status_code == 200
    problem(httpx.get(url, params={"ticket": ticket["ticket"]}), 401, "unauthenticated")
    problem(httpx.get(url, params={"ticket": "gtt_nobody"}), 401, "unauthenticated")
    problem(httpx.get(url), 401, "unauthenticated")
    other = person(engine).ask("POST", "/auth/stream-tickets").json()["ticket"]
    problem(httpx.get(url, params={"ticket": other}), 404, "not-found")
    # It is no credential for anything else.
    fresh = who.ask("POST", "/auth/stream-tickets").json()["ticket"]
    problem(who.ask("GET", "/auth/me", fresh), 401, "unauthenticated")
    problem(httpx.get(f"{engine.url}/api/v1/auth/me", params={"ticket": fresh}), 401, "unauthenticated")


def test_a_ticket_that_is_too_old_or_of_a_switched_off_account_opens_nothing(engine: Engine) -> None:
    who = person(engine)
    accounts = engine.context.accounts
    old, late = (who.ask("POST", "/auth/stream-tickets").json()["ticket"] for _ in range(2))
    with engine.context.database.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE tickets SET expires_at = now() - interval '1 second' WHERE principal = %s",
            (who.principal,),
        )
    assert asyncio.run(authenticate_ticket(accounts, old)) is None
    fresh = who.ask("POST", "/auth/stream-tickets").json()["ticket"]
    engine.http.patch(f"/auth/users/{who.id}", json={"is_active": False})
    assert asyncio.run(authenticate_ticket(accounts, fresh)) is None
    assert asyncio.run(authenticate_ticket(accounts, late)) is None


def test_a_ticket_has_what_its_holder_has_and_ends_when_that_does(engine: Engine) -> None:
    who = person(engine, "trader")
    ticket = who.ask("POST", "/auth/stream-tickets").json()["ticket"]
    holder = asyncio.run(engine.context.accounts.tickets.redeem(ticket))
    assert holder is not None
    assert (holder.id, holder.scopes) == (who.principal, {"read", "research", "trade", "live"})
    assert holder.expires_at == jwt.decode(who.access, options={"verify_signature": False})["exp"]
    local = engine.http.post("/auth/stream-tickets").json()["ticket"]
    found = asyncio.run(engine.context.accounts.tickets.redeem(local))
    assert found is not None
    assert found.id == "local"
    assert "admin" in found.scopes


def test_a_rotated_key_signs_and_the_one_before_is_accepted_until_its_tokens_end(engine: Engine) -> None:
    who = person(engine)
    before = jwt.get_unverified_header(who.access)["kid"]
    answer = engine.http.post("/auth/signing-keys", json={})
    assert answer.json()["present_accepted_seconds"] == 1800
    assert who.ask("GET", "/auth/me").status_code == 200
    pair = refreshed(engine, who.refresh).json()
    now = jwt.get_unverified_header(pair["access_token"])["kid"]
    assert (now, now != before) == (answer.json()["kid"], True)
    engine.http.post("/auth/signing-keys", json={"discard_present": True})
    for access in (who.access, pair["access_token"]):
        problem(who.ask("GET", "/auth/me", access), 401, "unauthenticated")
    again = refreshed(engine, pair["refresh_token"]).json()  # the login itself goes on
    assert who.ask("GET", "/auth/me", again["access_token"]).status_code == 200


def test_a_key_rotated_by_another_process_is_found(tmp_path: Path) -> None:
    path = tmp_path / "home" / "account-keys.json"
    one, two = SecretsFile(path), SecretsFile(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert one.current().kid == two.current().kid
    fresh = one.rotate(60)
    assert two.by_kid(fresh.kid) == fresh
    assert two.current() == fresh
    sealed = one.seal("a secret", "user 1")
    assert two.open(sealed, "user 1") == "a secret"
    with pytest.raises(Denied, match="sealed with another key"):
        two.open(sealed, "user 2")


def test_a_key_that_another_process_took_away_is_accepted_no_more(tmp_path: Path) -> None:
    path = tmp_path / "home" / "account-keys.json"
    one, two = SecretsFile(path), SecretsFile(path)
    tokens = AccessTokens(two, 600)
    user = uuid4()
    token = tokens.issue(user, uuid4(), ["read"])
    claims = tokens.read(token)
    assert claims is not None
    assert claims.subject == f"user:{user}"
    assert tokens.read(token) == claims  # by its digest now
    one.rotate(0)
    eventually(lambda: tokens.read(token) is None, seconds=5, what="the key is known to be gone")


def test_a_token_that_is_known_ends_in_time(tmp_path: Path) -> None:
    tokens = AccessTokens(SecretsFile(tmp_path / "account-keys.json"), 2)
    token = tokens.issue(uuid4(), uuid4(), ["read"])
    assert tokens.read(token) is not None
    eventually(lambda: tokens.read(token) is None, seconds=5, what="its end")


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"schema_version": 1, "signing": [], "sealing": "AAAA"}']
)
def test_a_malformed_or_open_secrets_file_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "account-keys.json"
    SecretsFile(path)
    path.chmod(0o644)
    with pytest.raises(Denied, match="chmod 600"):
        SecretsFile(path)
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(Denied, match="is malformed"):
        SecretsFile(path)
    assert path.read_text() == content


def test_logins_that_expired_are_cleared_away_with_their_tokens(engine: Engine) -> None:
    who = person(engine)
    with engine.context.database.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE logins SET expires_at = now() - interval '1 day' WHERE user_id = %s", (UUID(who.id),)
        )
    who.log_in()
    with engine.context.database.connect() as connection:
        counted = "SELECT count(*) FROM refresh_tokens JOIN logins ON id = login_id WHERE user_id = %s"
        assert connection.exec_driver_sql(counted, (UUID(who.id),)).scalar() == 1
