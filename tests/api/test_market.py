"""The lake over REST: symbols, snapshots and bars in three representations."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from api.negotiation import chosen_media_type, has_current
from tests.api.conftest import BARS, Engine
from tests.api.test_health_and_errors import problem

ARROW = "application/vnd.apache.arrow.stream"


def test_symbols_tell_what_is_stored_and_what_the_source_could_bring(engine_api: Engine) -> None:
    items = {each["symbol"]: each for each in engine_api.http.get("/market/symbols").json()["items"]}
    acme = items["ACME"]
    assert (acme["stored"], acme["bars"], acme["start"][:10]) == (True, BARS, "2020-01-01")
    assert items["AAPL"]["stored"] is False
    assert items["AAPL"]["source"] == "sample"


def test_bars_are_columns_of_one_length_with_utc_times(engine_api: Engine) -> None:
    document = engine_api.http.get("/market/bars/acme").json()
    columns = document["columns"]
    assert {len(column) for column in columns.values()} == {BARS}
    assert columns["time"][0] == "2020-01-01T00:00:00Z"
    assert columns["close"][:3] == [50.0, 50.5, 51.0]  # adjusted by 0.5
    assert document["symbol"] == "ACME"
    assert document["truncated"] is False
    raw = engine_api.http.get("/market/bars/ACME", params={"adjust": "none"}).json()
    assert raw["columns"]["close"][:3] == [100.0, 101.0, 102.0]


def test_a_range_is_inclusive_and_a_limit_keeps_the_newest(engine_api: Engine) -> None:
    query = {"start": "2020-01-10", "end": "2020-01-20", "limit": 3}
    document = engine_api.http.get("/market/bars/ACME", params=query).json()
    assert [t[:10] for t in document["columns"]["time"]] == ["2020-01-18", "2020-01-19", "2020-01-20"]
    assert document["truncated"] is True
    empty = engine_api.http.get("/market/bars/ACME", params={"start": "2031-01-01"}).json()
    assert empty["bars"] == 0
    backwards = engine_api.http.get("/market/bars/ACME", params={"start": "2020-02-01", "end": "2020-01-01"})
    assert "start" in problem(backwards, 422, "refused-input")["detail"]


def test_csv_and_arrow_hold_the_same_bars(engine_api: Engine) -> None:
    json = engine_api.http.get("/market/bars/ACME").json()["columns"]
    csv = engine_api.http.get("/market/bars/ACME", headers={"Accept": "text/csv"})
    assert csv.headers["content-type"].startswith("text/csv")
    table = pa_csv.read_csv(pa.BufferReader(csv.content))
    assert table.column("close").to_pylist() == json["close"]
    arrow = engine_api.http.get("/market/bars/ACME", headers={"Accept": ARROW})
    assert arrow.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(arrow.content).read_all()
    assert table.column("volume").to_pylist() == json["volume"]
    assert table.column_names == ["time", "open", "high", "low", "close", "volume"]


def test_a_representation_that_there_is_not_is_406(engine_api: Engine) -> None:
    answer = engine_api.http.get("/market/bars/ACME", headers={"Accept": "application/xml"})
    assert "text/csv" in problem(answer, 406, "not-acceptable")["detail"]


def test_the_entity_tag_saves_the_second_answer(engine_api: Engine) -> None:
    first = engine_api.http.get("/market/bars/ACME", params={"limit": 10})
    tag = first.headers["etag"]
    again = engine_api.http.get(
        "/market/bars/ACME", params={"limit": 10}, headers={"If-None-Match": f'"other", {tag}'}
    )
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == tag
    others: list[dict[str, object]] = [{"limit": 11}, {"limit": 10, "adjust": "none"}, {}]
    for query in others:
        answer = engine_api.http.get("/market/bars/ACME", params=query, headers={"If-None-Match": tag})
        assert answer.status_code == 200
    csv = engine_api.http.get("/market/bars/ACME", params={"limit": 10}, headers={"Accept": "text/csv"})
    assert csv.headers["etag"] != tag


def test_as_of_names_a_snapshot(engine_api: Engine) -> None:
    snapshots = engine_api.http.get("/market/snapshots").json()["items"]
    newest = snapshots[0]["id"]
    pinned = engine_api.http.get("/market/bars/ACME", params={"as_of": newest}).json()
    assert pinned["snapshot_id"] == newest
    problem(engine_api.http.get("/market/bars/ACME", params={"as_of": "f" * 32}), 404, "not-found")
    problem(engine_api.http.get("/market/bars/ACME", params={"as_of": "no time"}), 422, "refused-input")


@pytest.mark.parametrize(
    "symbol",
    ["..%2F..%2Fetc%2Fpasswd", "'; DROP TABLE runs;--", "A" * 10_000, "😀", "A%00B", "%2e%2e", ".A", "A B"],
)
def test_hostile_symbols_are_refused_before_anything_is_read(engine_api: Engine, symbol: str) -> None:
    document = problem(engine_api.http.get(f"/market/bars/{symbol}"), 422, "refused-input")
    assert document["errors"][0]["field"] == "symbol"
    assert len(document["detail"]) < 1000


def test_an_unknown_symbol_says_how_to_bring_it_in(engine_api: Engine) -> None:
    document = problem(engine_api.http.get("/market/bars/ACMEE"), 404, "not-found")
    assert "gpt-trader data ingest" in document["detail"]
    assert document["errors"][0]["nearest"] == "ACME"
    unknown = engine_api.http.get("/market/bars/ACME", params={"timeframe": "2d"})
    problem(unknown, 422, "unknown-name")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "a/json"),
        ("*/*", "a/json"),
        ("b/csv", "b/csv"),
        ("a/*;q=0.1, b/csv;q=0.2", "b/csv"),
        ("b/csv;q=0, */*", "a/json"),
        ("A/JSON", "a/json"),
        ("b/csv;q=wrong, */*;q=0.1", "a/json"),
    ],
)
def test_negotiation_follows_quality_and_the_most_specific_range(accept: str | None, chosen: str) -> None:
    assert chosen_media_type(accept, ["a/json", "b/csv"]) == chosen


@pytest.mark.parametrize(
    ("given", "current"),
    [(None, False), ('W/"a"', True), ('"a"', True), ('"b", W/"a"', True), ("*", True), ('"b"', False)],
)
def test_if_none_match_compares_weakly(given: str | None, current: bool) -> None:
    assert has_current(given, 'W/"a"') is current
