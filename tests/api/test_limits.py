"""Rate limits on every route, shared by processes over Redis, and what the frame tells of requests."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from api.app import create_app
from api.errors import ProblemDocument
from api.limits import ROUTES
from api.streams.endpoint import ROUTE as HANDSHAKES
from gpt_trader.settings import Home, Settings
from tests.api.conftest import Engine, Prefect, serving


def routes(settings: Settings, home: Home) -> list[str]:
    """Return every route of the OpenAPI document, `METHOD /template`."""
    paths = create_app(settings, home).openapi()["paths"]
    return [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]


def with_limits(settings: Settings, **changed: object) -> Settings:
    return Settings.model_validate(settings.model_dump() | changed)


def test_every_route_is_limited(
    prefect: Prefect, api_settings: Settings, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    home = Home(tmp_path / "home")
    known = routes(api_settings, home)
    assert len(known) > 40
    limited = with_limits(api_settings, rate_limits=dict.fromkeys(known, "2/minute"))
    with serving(limited, home, prefect.url) as engine:
        for route in known:
            method, _, template = route.partition(" ")
            path = re.sub(r"\{\w+\}", str(uuid4()), template)
            answers = [engine.http.request(method, engine.url + path) for _ in range(3)]
            with subtests.test(route=route):
                assert [answer.status_code == 429 for answer in answers] == [False, False, True]
                refused = answers[2]
                assert refused.json()["type"] == "urn:gpt-trader:problem:too-many-requests"
                assert 0 < int(refused.headers["Retry-After"]) <= 60
                told = [answer.headers["RateLimit-Remaining"] for answer in answers]
                assert (refused.headers["RateLimit-Limit"], told) == ("2", ["1", "0", "0"])


def test_each_principal_has_a_limit_of_its_own_and_wrong_keys_count_by_address(
    prefect: Prefect, api_settings: Settings, tmp_path: Path
) -> None:
    limited = with_limits(api_settings, rate_limit="3/minute")
    with serving(limited, Home(tmp_path / "home"), prefect.url) as engine:

        def asked(key: str) -> list[int]:
            headers = {"Authorization": f"Bearer {key}"}
            url = f"{engine.url}/api/v1/system/info"
            return [httpx.get(url, headers=headers).status_code for _ in range(4)]

        assert asked("key-of-bob") == [200, 200, 200, 429]
        assert asked("key-of-eve") == [200, 200, 200, 429]
        assert asked("guess-1") == [401, 401, 401, 429]
        assert asked("guess-2") == [429] * 4
        assert asked(engine.key) == [200] * 4  # this machine's own user has more


def test_limits_that_the_code_names_are_of_routes_that_exist(api_settings: Settings, tmp_path: Path) -> None:
    known = routes(api_settings, Home(tmp_path / "home"))
    assert set(ROUTES) <= {*known, HANDSHAKES}


@pytest.mark.parametrize("rate", ["100", "0/minute", "many/minute", "5/fortnight", "5/minute; 6/hour"])
def test_what_is_no_rate_is_refused(rate: str) -> None:
    with pytest.raises(ValidationError, match=r"is no rate: give a number and a time, e\.g\. 100/minute"):
        Settings(rate_limit=rate)


def test_two_apis_share_their_limits_and_count_alone_without_redis(
    prefect: Prefect, api_settings: Settings, tmp_path: Path, redis: tuple[int, subprocess.Popen[bytes]]
) -> None:
    port, process = redis
    shared = with_limits(
        api_settings,
        rate_limit="4/minute",
        rate_limit_storage=SecretStr(f"redis://127.0.0.1:{port}/0"),
    )
    with (
        serving(shared, Home(tmp_path / "one"), prefect.url) as one,
        serving(shared, Home(tmp_path / "two"), prefect.url) as two,
    ):

        def asked(engine: Engine) -> int:
            headers = {"Authorization": "Bearer key-of-bob"}
            return httpx.get(f"{engine.url}/api/v1/system/info", headers=headers).status_code

        assert [asked(engine) for engine in (one, two, one, two, one, two)] == [200] * 4 + [429] * 2
        process.terminate()
        process.wait(timeout=10)
        # A storage that is gone is no open door: each process counts by itself.
        assert [asked(one) for _ in range(5)] == [200] * 4 + [429]


def test_metrics_tell_requests_by_template_and_the_state_of_parts(engine_api: Engine) -> None:
    assert engine_api.http.get(f"/workflows/runs/{uuid4()}").status_code == 404
    assert engine_api.http.get("/no/such/thing").status_code == 404
    answer = engine_api.http.get("/system/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=1.0.0")
    told = answer.text
    line = 'gpt_trader_http_requests_total{route="GET /api/v1/workflows/runs/{run_id}",status="404"}'
    assert line in told
    assert 'route="GET unmatched",status="404"' in told
    assert 'gpt_trader_part_up{part="database"} 1.0' in told
    assert 'gpt_trader_part_up{part="worker"} 0.0' in told
    assert "process_resident_memory_bytes" in told
    assert "no/such/thing" not in told


def test_metrics_want_a_credential(engine_api: Engine) -> None:
    assert httpx.get(f"{engine_api.url}/api/v1/system/metrics").status_code == 401


def test_a_page_of_another_origin_is_served_where_the_settings_say_so(
    prefect: Prefect, api_settings: Settings, tmp_path: Path
) -> None:
    open_to = with_limits(api_settings, cors_origins="https://desk.example", public_hosts="trader.example")
    with serving(open_to, Home(tmp_path / "home"), prefect.url) as engine:
        url = f"{engine.url}/api/v1/system/health/live"
        asked = {"Origin": "https://desk.example", "Host": "trader.example"}
        answer = httpx.get(url, headers=asked)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://desk.example"
        before = {**asked, "Access-Control-Request-Method": "POST"}
        assert httpx.options(url, headers=before).status_code == 200
        assert httpx.get(url, headers={**asked, "Origin": "https://evil.example"}).status_code == 403
        assert httpx.get(url, headers={**asked, "Host": "evil.example"}).status_code == 421


def test_a_claimed_address_is_believed_of_a_trusted_proxy_alone(
    prefect: Prefect, api_settings: Settings, tmp_path: Path
) -> None:
    for trusted, statuses in (((), [401, 401, 429]), (("127.0.0.1",), [401, 401, 401])):
        limited = with_limits(api_settings, rate_limit="2/minute", trusted_proxies=trusted)
        with serving(limited, Home(tmp_path / f"home{len(trusted)}"), prefect.url) as engine:
            url = f"{engine.url}/api/v1/system/info"
            asked = [
                httpx.get(url, headers={"X-Forwarded-For": f"192.0.2.{n}"}).status_code for n in range(3)
            ]
            assert asked == statuses


def sent(engine: Engine, *parts: bytes) -> bytes:
    """Send parts over one connection; return everything that comes until the server closes it."""
    host, port = engine.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.patience.HEAD_SECONDS", 0.3)
    monkeypatch.setattr("api.patience.BODY_SECONDS", 0.3)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /api/v1/system/health/live HTT",
        b"GET /api/v1/system/health/live HTTP/1.1\r\nHost: localhost\r\nX-Slow: a",
        b"POST /api/v1/strategies/backtest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{",
    ],
)
def test_a_request_that_drips_in_is_ended(
    engine_api: Engine, begun: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    started = time.monotonic()
    head, _, body = sent(engine_api, begun).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert ProblemDocument.model_validate_json(body).type == "urn:gpt-trader:problem:request-timeout"
    assert time.monotonic() - started < 9
    assert "unexpected error" not in caplog.text


def test_a_huge_head_is_refused_while_it_comes(engine_api: Engine) -> None:
    head = b"GET /api/v1/system/health/live HTTP/1.1\r\nHost: localhost\r\n"
    many = b"".join(b"X-%d: %s\r\n" % (n, b"a" * 1000) for n in range(40))
    assert sent(engine_api, head, many).startswith(b"HTTP/1.1 431 ")
    assert sent(engine_api, b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n").startswith(b"HTTP/1.1 431 ")
    assert httpx.get(f"{engine_api.url}/api/v1/system/health/live").status_code == 200
