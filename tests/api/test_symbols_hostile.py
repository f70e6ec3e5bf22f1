"""A symbol is an id of the catalog and nothing else: whatever else stands in its place is refused, on every route.

The routes come from the OpenAPI document: each `{symbol}`, each query parameter and each field of a body of that name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from api.app import create_app
from gpt_trader.settings import Home, Settings
from gpt_trader.slices import SLICES
from storage.cluster import Cluster
from tests.api.account_samples import account_settings
from tests.api.conftest import Engine, Prefect, fill_lake, serving
from tests.api.sockets import Plain

NAMES = ("symbol", "symbols")
HOSTILE = {
    "parent": "../../x",
    "parents": "../" * 12 + "etc/passwd",
    "absolute": "/etc/passwd",
    "encoded": "%2e%2e%2fx",
    "dots": "..",
    "inner dots": "A..B",
    "windows": "..\\..\\x",
    "sql": "'; DROP TABLE users; --",
    "sql union": "ACME' UNION SELECT hashed_password FROM users --",
    "long": "A" * 10_240,
    "emoji": "🚀",
    "full width": "ＡＣＭＥ",
    "nul": "ACME\x00",
    "nul inside": "AC\x00ME",
    "newline": "ACME\r\nX-Injected: 1",
    "glob": "*",
    "wildcard": "%",
    "template": "{{7*7}}",
    "shell": "$(touch x)",
}


def places() -> list[tuple[str, str, str]]:
    """Return method, path and where the symbol goes (`path`, `query:NAME`, `body:NAME`) of every place for one."""
    document = create_app(Settings(), Home(Path("/nowhere"))).openapi()
    schemas, found = document["components"]["schemas"], set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for each in operation.get("parameters", []):
                if each["name"] in NAMES:
                    place = "path" if each["in"] == "path" else f"query:{each['name']}"
                    found.add((method.upper(), path, place))
            for model in re.findall(r"#/components/schemas/(\w+)", str(operation.get("requestBody", ""))):
                properties = schemas[model].get("properties", {})
                found |= {(method.upper(), path, f"body:{name}") for name in NAMES if name in properties}
    return sorted(found)


PLACES = places()


@pytest.fixture(scope="module")
def engine(prefect: Prefect, postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    home = Home(tmp_path_factory.mktemp("symbols") / "in" / "home")
    fill_lake(home)
    with serving(account_settings(postgres), home, prefect.url) as served:
        yield served


def asked(engine: Engine, method: str, path: str, place: str, symbol: str) -> list[Any]:
    """Return the answers to a symbol in one place: one for each workflow where the path names one."""
    kind, _, field = place.partition(":")
    answers = []
    for name in SLICES if path.endswith("/workflows/{name}/runs") else ("momentum",):
        where = path.replace("{name}", name).replace("{symbol}", quote(symbol, safe=""))
        more: dict[str, Any] = {"params": {field: symbol}} if kind == "query" else {}
        if method in {"POST", "PUT", "PATCH"}:
            more["json"] = {field: [symbol] if field == "symbols" else symbol} if kind == "body" else {}
        answers.append(engine.http.request(method, where.removeprefix("/api/v1"), **more))
    return answers


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts}


def test_no_symbol_gets_anywhere_but_to_the_catalog(
    engine: Engine, postgres: Cluster, figure: Callable[[str], None]
) -> None:
    around = engine.home.root.parent.parent
    before, escapes, tried = files(around), [], 0
    for method, path, place in PLACES:
        for name, symbol in HOSTILE.items():
            for answer in asked(engine, method, path, place, symbol):
                tried += 1
                # 405: a symbol with slashes in a path is another path.
                refused = answer.status_code in {404, 422} or (place == "path" and answer.status_code == 405)
                if not refused or "x-injected" in answer.headers or "root:" in answer.text:
                    escapes.append(
                        f"{method} {path} {place} {name}: {answer.status_code} {answer.text[:200]}"
                    )
                if place != "path" and answer.status_code == 422 and "workflows" not in path:
                    fields = [each["field"] for each in answer.json()["errors"]]
                    named = any(
                        "symbol" in field.split(".")[0] or field.endswith(".symbol") for field in fields
                    )
                    assert named, (path, fields)
    figure(
        f"symbols that are none: {len(HOSTILE)} on {len(PLACES)} places, {tried} requests, escapes = {len(escapes)}"
    )
    assert escapes == []
    assert len(PLACES) > 15
    assert files(around) == before
    assert engine.http.get("/market/bars/ACME").status_code == 200
    assert engine.http.get("/auth/users").status_code == 200  # the table stands


def test_no_symbol_of_a_stream_gets_anywhere(engine: Engine) -> None:
    with Plain(engine, engine.key) as client:
        for name, symbol in HOSTILE.items():
            answer = client.subscribe("market.stream", symbol=symbol)
            assert (answer["type"], answer.get("name")) == ("error", "bad_request"), (name, answer)
