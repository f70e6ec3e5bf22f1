"""The frame around every route: health, problem documents, headers, limits."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from api.errors import MEDIA_TYPE, TYPE_PREFIX
from storage.cluster import SUPERUSER, Cluster
from tests.api.account_samples import serving_accounts
from tests.api.conftest import Engine, Prefect


def problem(answer: httpx.Response, status: int, name: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    document: dict[str, Any] = answer.json()
    assert document["type"] == TYPE_PREFIX + name
    assert document["status"] == status
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document["title"]
    assert document["detail"]
    assert "Traceback" not in answer.text
    return document


def test_live_and_ready_are_open_and_tell_each_part(engine_api: Engine) -> None:
    root = f"{engine_api.url}/api/v1/system/health"
    assert httpx.get(f"{root}/live").json() == {"status": "alive"}
    ready = httpx.get(f"{root}/ready")
    assert ready.status_code == 200
    parts = ready.json()["parts"]
    assert {name: part["state"] for name, part in parts.items()} == {
        "database": "ready",
        "prefect": "ready",
        "worker": "down",  # none belongs to this home
        "lake": "ready",
    }


def test_a_worker_of_another_machine_counts_and_a_dead_one_of_this_does_not(
    engine_api: Engine, prefect: Prefect
) -> None:
    def worker() -> dict[str, str]:
        parts = httpx.get(f"{engine_api.url}/api/v1/system/health/ready").json()["parts"]
        found: dict[str, str] = parts["worker"]
        return found

    ended = subprocess.Popen(["true"])
    ended.wait()
    prefect.http.post("/work_pools/", json={"name": "gpt-trader", "type": "process"})
    workers = "/work_pools/gpt-trader/workers"
    names = [f"gpt-trader-{os.uname().nodename}-{ended.pid}", "gpt-trader-another-machine-17"]
    try:
        for name, state in zip(names, ("down", "ready"), strict=True):
            prefect.http.post(f"{workers}/heartbeat", json={"name": name}).raise_for_status()
            assert worker()["state"] == state
        assert worker()["detail"] == names[1]
    finally:
        for name in names:
            prefect.http.delete(f"{workers}/{name}")
    assert worker() == {"state": "down", "detail": "no worker is running"}


def test_a_database_that_is_gone_is_503_and_named_without_its_password(
    postgres: Cluster, tmp_path: Path
) -> None:
    with serving_accounts(postgres, tmp_path) as engine:
        name = str(engine.context.database.url.database)
        with psycopg.connect(postgres.url("postgres", role=SUPERUSER), autocommit=True) as admin:
            database = sql.Identifier(name)
            admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(database))
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            answer = httpx.get(f"{engine.url}/api/v1/auth/me", headers={"X-API-Key": "gtp_somebodys"})
            detail = problem(answer, 503, "engine-unreachable")["detail"]
            assert "does not answer" in detail
            assert "postgresql" not in detail  # no URL, so no password
            ready = httpx.get(f"{engine.url}/api/v1/system/health/ready")
            assert ready.status_code == 503
            assert ready.json()["parts"]["database"]["state"] == "down"
            admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(database))
        answer = httpx.get(f"{engine.url}/api/v1/auth/me", headers={"X-API-Key": "gtp_somebodys"})
        problem(answer, 401, "unauthenticated")  # it is back without a restart


def test_info_names_versions_home_and_the_prefect_ui(engine_api: Engine) -> None:
    info = engine_api.http.get("/system/info").json()
    assert info["home"] == str(engine_api.home.root)
    assert info["libraries"]["prefect"] == "3.8.8"
    assert info["prefect_ui"].startswith("http://127.0.0.1:")
    assert info["owner"] == "local"


def test_an_unknown_route_is_a_problem_that_says_where_the_routes_are(engine_api: Engine) -> None:
    answer = problem(engine_api.http.get("/nope"), 404, "no-such-route")
    assert "/api/v1/docs" in answer["detail"]


def test_a_wrong_method_names_the_right_one(engine_api: Engine) -> None:
    answer = engine_api.http.delete("/workflows")
    assert "GET" in problem(answer, 405, "method-not-allowed")["detail"]
    assert answer.headers["allow"] == "GET"


def test_malformed_json_is_400_and_a_body_that_is_no_object_422(engine_api: Engine) -> None:
    headers = {"Content-Type": "application/json"}
    answer = engine_api.http.post("/strategies/backtest", content=b'{"symbol":', headers=headers)
    problem(answer, 400, "malformed-json")
    problem(engine_api.http.post("/strategies/backtest", json=[1]), 422, "refused-input")
    problem(engine_api.http.post("/strategies/backtest"), 400, "malformed-json")
    deep = engine_api.http.post("/strategies/backtest", content=b"[" * 200_000, headers=headers)
    problem(deep, 400, "malformed-json")
    deep = engine_api.http.post("/strategies", content=b"[" * 200_000, headers=headers)
    assert deep.status_code == 400


def test_a_field_problem_names_field_value_and_nearest(engine_api: Engine) -> None:
    answer = engine_api.http.post("/strategies/backtest", json={"symbl": "ACME"})
    errors = {each["field"]: each for each in problem(answer, 422, "refused-input")["errors"]}
    assert errors["symbl"]["nearest"] == "symbol"
    assert "symbol" in errors


def test_query_and_path_problems_have_the_same_shape(engine_api: Engine) -> None:
    answer = engine_api.http.get("/market/bars/ACME", params={"limit": "many", "start": "yesterday"})
    fields = {each["field"] for each in problem(answer, 422, "refused-input")["errors"]}
    assert fields == {"limit", "start"}
    problem(engine_api.http.get("/workflows/runs/not-a-uuid"), 422, "refused-input")


def test_a_request_id_is_kept_if_it_is_harmless_and_replaced_if_not(engine_api: Engine) -> None:
    given = engine_api.http.get("/system/info", headers={"X-Request-ID": "client-7.a"})
    assert given.headers["x-request-id"] == "client-7.a"
    for hostile in ("a b", "x" * 65, '"; drop', "a\tb"):
        answer = engine_api.http.get("/system/info", headers={"X-Request-ID": hostile})
        assert answer.headers["x-request-id"] != hostile
        assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize("path", ["/system/health/live", "/system/info", "/nope"])
def test_security_headers_are_on_every_answer(engine_api: Engine, path: str) -> None:
    headers = engine_api.http.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "", "[::2]"])
def test_a_foreign_host_header_is_refused(engine_api: Engine, host: str) -> None:
    answer = engine_api.http.get("/system/info", headers={"Host": host})
    problem(answer, 421, "foreign-host")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "[::1]:8000", "LOCALHOST"])
def test_loopback_names_are_known(engine_api: Engine, host: str) -> None:
    assert engine_api.http.get("/system/info", headers={"Host": host}).status_code == 200


def test_a_foreign_origin_is_refused_and_our_own_is_not(engine_api: Engine) -> None:
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        answer = engine_api.http.get("/system/info", headers={"Origin": origin})
        problem(answer, 403, "foreign-origin")
    own = engine_api.http.get("/system/info", headers={"Origin": engine_api.url})
    assert own.status_code == 200
    preflight = engine_api.http.options("/system/info", headers={"Origin": "https://evil.example"})
    problem(preflight, 403, "foreign-origin")


def test_a_body_over_the_limit_is_refused_by_its_announcement(engine_api: Engine) -> None:
    body = b'{"filename": "a.py", "source": "' + b"x" * 1024 * 1024 + b'"}'
    headers = {"Content-Type": "application/json"}
    problem(engine_api.http.post("/strategies", content=body, headers=headers), 413, "body-too-large")


def test_a_body_that_announces_no_length_is_counted(engine_api: Engine) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"filename": "a.py", "source": "'
        for _ in range(20):
            yield b"x" * 64 * 1024
        yield b'"}'

    headers = {"Content-Type": "application/json"}
    answer = engine_api.http.post("/strategies", content=chunks(), headers=headers)
    problem(answer, 413, "body-too-large")


def test_a_body_just_under_the_limit_is_read(engine_api: Engine) -> None:
    body = json.dumps({"symbol": "ACME", "nope": "x" * (1024 * 1024 - 100)}).encode()
    headers = {"Content-Type": "application/json"}
    answer = engine_api.http.post("/strategies/backtest", content=body, headers=headers)
    document = problem(answer, 422, "refused-input")
    assert len(document["errors"][0]["value"]) < 300  # shown, but not echoed whole
