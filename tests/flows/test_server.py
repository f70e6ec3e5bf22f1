"""Prefect's server as we start it."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx

from tests.flows.conftest import Engine, free_port
from tests.waiting import eventually


def _origin(engine: Engine) -> str:
    return engine.environment["PREFECT_API_URL"].removesuffix("/api")


def test_the_ui_calls_the_origin_that_serves_it(engine_parts: Engine) -> None:
    origin = _origin(engine_parts)

    assert httpx.get(f"{origin}/ui-settings").json()["api_url"] == f"{origin}/api"
    page = httpx.get(origin, headers={"Accept": "text/html"}, follow_redirects=True)
    assert page.is_success
    assert "<title>" in page.text


def test_other_origins_may_not_call_it(engine_parts: Engine) -> None:
    def allowed(origin: str) -> str | None:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = httpx.options(f"{_origin(engine_parts)}/api/flow_runs/filter", headers=asked)
        return answer.headers.get("access-control-allow-origin")

    assert allowed(_origin(engine_parts)) == _origin(engine_parts)
    assert allowed("https://elsewhere.example") is None


def test_telemetry_is_off(engine_parts: Engine) -> None:
    settings = engine_parts.prefect.get("/admin/settings").json()

    assert settings["server"]["analytics_enabled"] is False


def test_a_missing_port_is_refused(engine_parts: Engine, tmp_path: Path) -> None:
    engine = Engine(
        engine_parts.home,
        {**engine_parts.environment, "GPT_TRADER_PREFECT_PORT": "0"},
        engine_parts.prefect,
        engine_parts.events,
    )
    process = engine.start("flows.server", tmp_path / "log")

    assert process.wait(timeout=30) == 2
    assert "GPT_TRADER_PREFECT_PORT" in (tmp_path / "log").read_text()


def test_it_ends_on_sigterm(engine_parts: Engine, tmp_path: Path) -> None:
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    engine = Engine(
        engine_parts.home,
        {**engine_parts.environment, "GPT_TRADER_PREFECT_PORT": str(port)},
        engine_parts.prefect,
        engine_parts.events,
    )
    process = engine.start("flows.server", tmp_path / "log")
    eventually(lambda: _answers(f"{origin}/api/health"), seconds=90, what="a second server")

    process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=20) in (0, -signal.SIGTERM)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False
