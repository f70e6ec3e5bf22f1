"""Who gets in: the local key on every route but the open ones, and the key file itself."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from api.principals import ALL_SCOPES, LocalKey, Principal, ensure_key
from gpt_trader.errors import Denied
from tests.api.conftest import Engine, write_private
from tests.api.test_health_and_errors import problem

OPEN = {"/api/v1/system/health/live", "/api/v1/system/health/ready"}

#: Whoever comes here has no credential yet, or proves who they are by the body.
AT_THE_DOOR = {
    f"/api/v1/auth/{name}"
    for name in ("register", "login", "refresh", "logout", "forgot-password", "reset-password")
}


def test_every_route_but_the_open_ones_wants_the_key(engine_api: Engine) -> None:
    document = httpx.get(f"{engine_api.url}/api/v1/openapi.json").json()
    asked = 0
    for path, operations in document["paths"].items():
        real = path.replace("{run_id}", str(uuid4())).replace("{symbol}", "ACME").replace("{name}", "equity")
        for method, operation in operations.items():
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "ünknown".encode()}):
                answer = httpx.request(method, engine_api.url + real, headers=headers, json={})
                if path in OPEN:
                    assert answer.status_code == 200
                    continue
                if path in AT_THE_DOOR:
                    assert answer.status_code == (401 if path.endswith("/logout") else 422), path
                    assert "security" not in operation
                    continue
                problem(answer, 401, "unauthenticated")
                assert answer.headers["www-authenticate"] == "Bearer"
                assert operation["security"], path
                asked += 1
    assert asked > 40


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_key_works_as_bearer(engine_api: Engine, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {engine_api.key}"}
    assert httpx.get(f"{engine_api.url}/api/v1/system/info", headers=headers).status_code == 200


def test_the_key_works_as_a_header_of_its_own(engine_api: Engine) -> None:
    headers = {"X-API-Key": engine_api.key}
    assert httpx.get(f"{engine_api.url}/api/v1/system/info", headers=headers).status_code == 200


def test_the_key_is_in_no_answer(engine_api: Engine) -> None:
    for path in ("/system/info", "/openapi.json", "/workflows"):
        assert engine_api.key not in engine_api.http.get(path).text


async def test_a_part_of_the_key_is_not_the_key() -> None:
    way = LocalKey("gtk_abc")
    assert await way.authenticate("gtk_abc") == Principal("local", ALL_SCOPES)
    for wrong in ("", "gtk_ab", "gtk_abcd", "GTK_ABC", "\udcff"):
        assert await way.authenticate(wrong) is None


def test_a_scope_that_is_missing_is_named() -> None:
    reader = Principal("ann", frozenset({"read"}))
    reader.must("read")
    with pytest.raises(Denied, match=r"'admin'.*'ann' has: read"):
        reader.must("admin")


def test_others_runs_are_seen_by_admins_only() -> None:
    assert Principal("ann", frozenset({"read"})).may_see("ann")
    assert not Principal("ann", frozenset({"read"})).may_see("bob")
    assert Principal("root", frozenset({"admin"})).may_see("bob")


def test_the_key_is_made_once_private_and_long(tmp_path: Path) -> None:
    path = tmp_path / "home" / "key"
    key = ensure_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_text() == key + "\n"
    assert len(key) > 40
    assert ensure_key(path) == key
    assert list(path.parent.iterdir()) == [path]  # no draft is left


def test_a_key_others_could_read_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    exposed = ensure_key(path)
    path.chmod(0o644)
    fresh = ensure_key(path)
    assert fresh != exposed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().strip() == fresh


@pytest.mark.parametrize("content", ["", "short", "gtk_" + "x" * 42 + "!", "a" * 500])
def test_a_malformed_key_is_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    write_private(path, content)
    assert ensure_key(path) == path.read_text().strip() != content


def test_a_key_that_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Denied, match="cannot be read"):
        ensure_key(tmp_path / "link")
    assert (tmp_path / "elsewhere").read_text() == "x"
    (tmp_path / "folder").mkdir()
    with pytest.raises(Denied, match="not a regular file"):
        ensure_key(tmp_path / "folder")
    if os.geteuid() == 0:
        write_private(tmp_path / "theirs", "x")
        os.chown(tmp_path / "theirs", 12345, 12345)
        with pytest.raises(Denied, match="not a regular file of yours"):
            ensure_key(tmp_path / "theirs")
