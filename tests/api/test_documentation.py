"""The OpenAPI document and its page: complete, open, and without the internet."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from gpt_trader.slices import SLICES
from tests.api.conftest import Engine


@pytest.fixture
def document(engine_api: Engine) -> dict[str, Any]:
    answer = httpx.get(f"{engine_api.url}/api/v1/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_operation_has_a_summary_typed_answers_and_its_errors(document: dict[str, Any]) -> None:
    problem = {"$ref": "#/components/schemas/ProblemDocument"}
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        responses = operation["responses"]
        assert {"403", "408", "421", "429", "431", "500"} <= set(responses), where
        for status, response in responses.items():
            if status in {"204", "304"}:
                continue
            assert response["content"], f"{where} {status}"
            if status >= "400" and not (path.endswith("/ready") and status == "503"):
                assert response["content"] == {"application/problem+json": {"schema": problem}}, where
        if operation.get("security"):
            assert {"401", "403"} <= set(responses), where
        if method == "post" and "requestBody" in operation:
            assert {"400", "413", "422"} <= set(responses), where
        if "{" in path:
            assert "404" in responses, where


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for name in ids:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name), name  # what a generated client calls it


def test_everything_that_is_sent_has_a_schema(document: dict[str, Any]) -> None:
    assert document["info"]["description"]
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            for media_type, content in response.get("content", {}).items():
                assert content.get("schema"), f"{method} {path} {status} {media_type}"


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r"#/components/schemas/([^'\"]+)", str(document)))
    assert references
    assert references <= set(document["components"]["schemas"])


def test_each_slice_has_its_route_with_its_request(document: dict[str, Any]) -> None:
    assert SLICES
    for row in SLICES.values():
        operation = document["paths"][row.route]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        name = row.request_type().__name__
        assert schema == {"$ref": f"#/components/schemas/{name}"}
        assert set(document["components"]["schemas"][name]["properties"]) == set(
            row.request_type().model_fields
        )
        assert "202" in operation["responses"]
        assert "Idempotency-Key" in {each["name"] for each in operation["parameters"]}


def test_the_page_is_open_and_loads_nothing_from_elsewhere(engine_api: Engine) -> None:
    page = httpx.get(f"{engine_api.url}/api/v1/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 3
    for address in loaded:
        assert address.startswith("/api/v1/docs-assets/")
        asset = httpx.get(engine_api.url + address)
        assert asset.status_code == 200
        assert len(asset.content) > 1000
    assert "/api/v1/openapi.json" in page.text
