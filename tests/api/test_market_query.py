"""SQL and the cache of matrices over REST, and bars page by page."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from tests.api.conftest import BARS, Engine
from tests.api.test_health_and_errors import problem

ARROW = "application/vnd.apache.arrow.stream"


def ask(engine: Engine, sql: str, **body: object) -> dict[str, Any]:
    answer = engine.http.post("/market/query", json={"sql": sql, **body})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    assert all(len(column) == document["rows"] for column in document["columns"].values())
    assert list(document["types"]) == list(document["columns"])
    return document


def test_a_query_gives_columns_of_the_bars_as_the_bars_route_gives_them(engine_api: Engine) -> None:
    document = ask(engine_api, "SELECT time, close FROM bars_1d WHERE symbol = 'ACME' ORDER BY time")
    bars = engine_api.http.get("/market/bars/ACME").json()
    assert document["columns"]["time"] == bars["columns"]["time"]
    assert document["columns"]["close"] == bars["columns"]["close"]
    assert document["snapshot_id"] == bars["snapshot_id"]
    assert (document["rows"], document["truncated"]) == (BARS, False)
    some = ask(engine_api, "FROM bars_1d", limit=7, as_of=bars["snapshot_id"])
    assert (some["rows"], some["truncated"]) == (7, True)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("NULL", None),
        ("1.5::DOUBLE", 1.5),
        ("'NaN'::DOUBLE", "NaN"),
        ("'-inf'::FLOAT", "-Infinity"),
        ("9223372036854775807", 9223372036854775807),
        ("18446744073709551615::UBIGINT", 18446744073709551615),
        ("170141183460469231731687303715884105::HUGEINT", "170141183460469231731687303715884105"),
        ("1.50::DECIMAL(38, 2)", "1.50"),
        ("true", True),
        ("'2020-01-02T03:04:05.25Z'::TIMESTAMPTZ", "2020-01-02T03:04:05.250000Z"),
        ("'2020-01-02 03:04:05'::TIMESTAMP", "2020-01-02T03:04:05"),
        ("'infinity'::TIMESTAMP", "infinity"),
        ("'-infinity'::DATE", "-infinity"),
        ("'12345-06-07'::DATE", "12345-06-07"),
        ("DATE '2020-02-29'", "2020-02-29"),
        ("TIME '10:20:30'", "10:20:30.000000"),
        ("INTERVAL '1 month 2 days 3.5 seconds'", "P1M2DT3.5S"),
        ("'\\x00\\xFF'::BLOB", "AP8="),
        ("[1.0::DOUBLE, NULL, 'inf'::DOUBLE]", [1.0, None, "Infinity"]),
        ("[[DATE '2020-01-01'], []]", [["2020-01-01"], []]),
        ("{'a': 1, 'b': ['x'::BLOB], 'c': {'d': 'nan'::DOUBLE}}", {"a": 1, "b": ["eA=="], "c": {"d": "NaN"}}),
        ("MAP {'k': 1.5::DECIMAL(3, 1)}", [["k", "1.5"]]),
        ("'b'::ENUM ('a', 'b')", "b"),
        ("union_value(n := 1)", "1"),
        ("'<script>\u2028\u0000'", "<script>\u2028\u0000"),
    ],
)
def test_every_type_is_safe_in_json(engine_api: Engine, expression: str, value: object) -> None:
    sql = f"SELECT * FROM (SELECT {expression} AS v UNION ALL SELECT NULL) ORDER BY v NULLS LAST"
    document = ask(engine_api, sql)
    assert document["columns"]["v"] == [value, None]
    csv = engine_api.http.post("/market/query", json={"sql": sql}, headers={"Accept": "text/csv"})
    assert csv.status_code == 200
    assert csv.text.startswith('"v"\n')


def test_csv_and_arrow_hold_the_same(engine_api: Engine) -> None:
    sql = "SELECT symbol, close, [close] AS listed FROM bars_1d WHERE symbol = 'ACME' ORDER BY time"
    columns = ask(engine_api, sql, limit=5)["columns"]
    body = {"sql": sql, "limit": 5}
    csv = engine_api.http.post("/market/query", json=body, headers={"Accept": "text/csv"})
    assert (csv.headers["x-truncated"], csv.headers["content-type"][:8]) == ("true", "text/csv")
    table = pa_csv.read_csv(pa.BufferReader(csv.content))
    assert table.column("close").to_pylist() == columns["close"]
    assert table.column("listed").to_pylist()[0] == f"[{columns['close'][0]}]"
    arrow = engine_api.http.post("/market/query", json=body, headers={"Accept": ARROW})
    assert arrow.headers["content-type"] == ARROW
    assert pa.ipc.open_stream(arrow.content).read_all().to_pydict() == columns
    refused = engine_api.http.post("/market/query", json=body, headers={"Accept": "image/png"})
    problem(refused, 406, "not-acceptable")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "sql"),
        ({"sql": ""}, "sql"),
        ({"sql": "x" * 100_001}, "sql"),
        ({"sql": "COPY bars_1d TO '/tmp/x'"}, "sql"),
        ({"sql": "SELECT * FROM read_csv('/etc/passwd')"}, "sql"),
        ({"sql": "ATTACH '/tmp/x.db'"}, "sql"),
        ({"sql": "SELECT 1", "limit": 0}, "limit"),
        ({"sql": "SELECT 1", "limit": 100_001}, "limit"),
        ({"sql": "SELECT 1", "timeout": 301}, "timeout"),
        ({"sql": "SELECT 1", "as_of": "no time"}, "snapshot"),
        ({"sql": "SELECT 1", "threads": 9}, "threads"),
    ],
)
def test_refusals_name_the_field(engine_api: Engine, body: dict[str, object], field: str) -> None:
    document = problem(engine_api.http.post("/market/query", json=body), 422, "refused-input")
    assert document["errors"][0]["field"] == field
    assert len(str(document)) < 3000


def test_a_snapshot_that_there_is_not_is_404(engine_api: Engine) -> None:
    answer = engine_api.http.post("/market/query", json={"sql": "SELECT 1", "as_of": "f" * 32})
    problem(answer, 404, "not-found")


def test_the_api_answers_while_queries_run_and_refuses_one_too_many(engine_api: Engine) -> None:
    endless = {"sql": "SELECT count(*) FROM range(1000000000) a, range(1000000) b", "timeout": 8}
    answers: list[httpx.Response] = []

    def start() -> None:
        with httpx.Client(base_url=engine_api.http.base_url, headers=engine_api.http.headers) as http:
            answers.append(http.post("/market/query", json=endless, timeout=30))

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    slowest = 0.0
    while not answers:
        started = time.monotonic()
        assert engine_api.http.get("/market/symbols").status_code == 200
        slowest = max(slowest, time.monotonic() - started)
    assert slowest < 3
    for thread in threads:
        thread.join()
    problem(answers[0], 429, "too-many-queries")
    for answer in answers[1:]:
        assert "took longer than 8 s" in problem(answer, 422, "refused-input")["detail"]


def test_scopes(engine_api: Engine) -> None:
    eve = {"Authorization": "Bearer key-of-eve"}
    bob = {"Authorization": "Bearer key-of-bob"}
    http = engine_api.http
    assert http.post("/market/query", json={"sql": "SELECT 1"}, headers=eve).status_code == 200
    assert http.get("/market/cache", headers=eve).status_code == 200
    problem(http.post("/market/cache/warm", json={}, headers=eve), 403, "denied")
    assert http.post("/market/cache/warm", json={"symbols": ["ACME"]}, headers=bob).status_code == 200
    problem(http.delete("/market/cache", headers=bob), 403, "denied")
    nobody = httpx.post(f"{engine_api.url}/api/v1/market/query", json={"sql": "SELECT 1"})
    problem(nobody, 401, "unauthenticated")


def test_the_cache_is_warmed_shown_and_cleared(engine_api: Engine) -> None:
    engine_api.http.delete("/market/cache")
    empty = engine_api.http.get("/market/cache").json()
    assert (empty["entries"], empty["bytes"]) == (0, 0)
    body = {"symbols": ["ACME"], "column": "volume", "end": "2020-01-10"}
    made = engine_api.http.post("/market/cache/warm", json=body).json()
    assert (made["symbols"], made["times"], made["bytes"]) == (1, 10, 80)
    kept = engine_api.http.get("/market/cache").json()
    assert kept["entries"] == 1
    assert 0 < kept["bytes"] < kept["limit_bytes"]
    assert engine_api.http.delete("/market/cache").json() == {"entries": 1, "bytes": kept["bytes"]}
    unknown = engine_api.http.post("/market/cache/warm", json={"timeframe": "2d"})
    problem(unknown, 422, "unknown-name")
    problem(engine_api.http.post("/market/cache/warm", json={"symbols": ["NOPE"]}), 422, "unknown-name")
    problem(engine_api.http.post("/market/cache/warm", json={"symbols": ["../X"]}), 422, "refused-input")


def test_pages_of_bars_hold_all_of_them_once(engine_api: Engine) -> None:
    whole = engine_api.http.get("/market/bars/ACME").json()["columns"]
    times: list[str] = []
    after, as_of = "1800-01-01T00:00:00Z", None
    while True:
        query = {"after": after, "limit": 130, **({"as_of": as_of} if as_of else {})}
        answer = engine_api.http.get("/market/bars/ACME", params=query)
        page = answer.json()
        as_of = answer.headers["x-snapshot-id"]
        assert page["snapshot_id"] == as_of
        assert page["truncated"] is (len(times) + page["bars"] < BARS)
        times += page["columns"]["time"]
        if page["bars"] < 130:
            break
        after = page["columns"]["time"][-1]
    assert times == whole["time"]
    shifted = engine_api.http.get(
        "/market/bars/ACME", params={"after": "2020-01-05T02:00:00+02:00", "limit": 1}
    )
    assert shifted.json()["columns"]["time"] == ["2020-01-06T00:00:00Z"]
    for extreme, bars in (("0001-01-01T00:00:00+14:00", BARS), ("9999-12-31T23:59:59-14:00", 0)):
        answer = engine_api.http.get("/market/bars/ACME", params={"after": extreme})
        assert answer.json()["bars"] == bars
    problem(engine_api.http.get("/market/bars/ACME", params={"after": "2020-01-05"}), 422, "refused-input")
