"""Instruments over REST: facts set by hand, series taken out, splits and dividends replaced, newest prices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.credentials import write_credential
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars
from gpt_trader.settings import Home, Settings
from storage.lake import Lake
from tests.api.conftest import Engine, Prefect, serving
from tests.api.test_health_and_errors import problem
from tests.api.test_runs import BOB, EVE
from tests.fakes.alpaca_server import KEY, SECRET, AlpacaServer, Fault, asset
from tests.lake_samples import IBM, equal, exact_bars

ACME = Instrument(symbol="ACME", name="Acme Corp.")
AAPL = Instrument(symbol="AAPL", venue="XNAS", calendar="XNYS")
SPLIT = {"ex_date": "2019-12-20", "split": 2.0, "dividend": 0.0}
PAID = {"ex_date": "2020-01-06", "split": 1.0, "dividend": 0.5}

_numbers = count(30)


@pytest.fixture
def bars() -> RawBars:
    """Bars of ACME, another number of them for each test: an id names what is stored."""
    return exact_bars(next(_numbers))


@pytest.fixture
def own(prefect: Prefect, api_settings: Settings, tmp_path: Path, bars: RawBars) -> Iterator[Engine]:
    """An API over a lake of this test's own: ACME from a file, IBM from the sample."""
    home = Home(tmp_path / "home")
    lake = Lake(home.lake)
    lake.upsert(ACME, "1d", bars, source="csv")
    lake.upsert(IBM, "1d", exact_bars(20), source="sample")
    with serving(api_settings, home, prefect.url) as engine:
        yield engine


def snapshots(engine: Engine) -> list[str]:
    return [each["id"] for each in engine.http.get("/market/snapshots").json()["items"]]


def facts(engine: Engine, symbol: str = "ACME", **query: str) -> dict[str, Any]:
    answer = engine.http.get(f"/market/symbols/{symbol}", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["instrument"]
    return found


def stored_again(engine: Engine) -> Lake:
    """Return the lake as another process reads it: nothing is remembered."""
    return Lake(engine.home.lake)


# Facts


def test_an_instrument_is_shown_with_its_series(own: Engine, bars: RawBars) -> None:
    own.context.lake.upsert(ACME, "1h", exact_bars(48, timeframe="1h"), source="sample")
    found = own.http.get("/market/symbols/acme").json()
    assert found["instrument"] == ACME.model_dump(mode="json")
    day, hour = (own.context.lake.entry("ACME", timeframe) for timeframe in ("1d", "1h"))
    first, last = "2019-12-02T00:00:00Z", f"{bars.time[-1].astype('M8[D]')}T00:00:00Z"
    assert found["series"] == [
        {"timeframe": "1h", "source": "sample", "start": first, "end": "2019-12-03T23:00:00Z", "bars": 48,
         "bytes": hour.bytes,
         "origins": [{"source": "sample", "first": first, "last": "2019-12-03T23:00:00Z"}]},
        {"timeframe": "1d", "source": "csv", "start": first, "end": last, "bars": len(bars), "bytes": day.bytes,
         "origins": [{"source": "csv", "first": first, "last": last}]},
    ]  # fmt: skip


def test_a_fact_set_by_hand_makes_a_snapshot_and_no_source_overrules_it(own: Engine) -> None:
    before = snapshots(own)
    answer = own.http.patch("/market/symbols/acme", json={"tick": "0.25", "name": "Acme", "shortable": False})
    assert answer.status_code == 200, answer.text
    expected = {"tick": "0.25", "name": "Acme", "shortable": False, "edited": ["name", "shortable", "tick"]}
    assert answer.json()["instrument"] == ACME.model_dump(mode="json") | expected
    assert len(snapshots(own)) == len(before) + 1
    assert facts(own, as_of=before[0])["tick"] == "0.01"
    own.context.lake.upsert(
        Instrument(symbol="ACME", name="Theirs", tick="0.5", currency="EUR"),
        "1d",
        exact_bars(9),
        source="sample",
    )
    assert facts(own) == ACME.model_dump(mode="json") | expected | {"currency": "EUR"}


def test_a_calendar_brings_its_year_and_session_unless_they_are_given(own: Engine) -> None:
    patch = own.http.patch
    patch("/market/symbols/ACME", json={"calendar": "24/7"})
    found = facts(own)
    assert (found["calendar"], found["bars_a_year"], found["session_minutes"]) == ("24/7", 365, 1440)
    assert found["edited"] == ["bars_a_year", "calendar", "session_minutes"]
    patch("/market/symbols/ACME", json={"calendar": "CMES", "bars_a_year": 250})
    found = facts(own)
    assert (found["calendar"], found["bars_a_year"], found["session_minutes"]) == ("CMES", 250, 1380)


def test_null_leaves_a_fact_to_the_sources_again(own: Engine) -> None:
    own.http.patch("/market/symbols/ACME", json={"currency": "EUR", "venue": "XETR"})
    answer = own.http.patch("/market/symbols/ACME", json={"currency": None, "lot": None})
    assert answer.json()["instrument"]["edited"] == ["venue"]
    assert facts(own)["currency"] == "EUR", "it stays until a source says otherwise"
    theirs = Instrument(symbol="ACME", currency="CHF", venue="XSWX")
    own.context.lake.upsert(theirs, "1d", exact_bars(9), source="sample")
    assert (facts(own)["currency"], facts(own)["venue"]) == ("CHF", "XETR")


@pytest.mark.parametrize("body", [{}, {"calendar": None}, {"name": None, "tick": None}])
def test_what_changes_nothing_makes_no_snapshot(own: Engine, body: dict[str, Any]) -> None:
    before = snapshots(own)
    assert own.http.patch("/market/symbols/ACME", json=body).json()["instrument"]["edited"] == []
    own.http.patch("/market/symbols/ACME", json={"tick": "0.25"})
    again = snapshots(own)
    assert own.http.patch("/market/symbols/ACME", json={"tick": "0.25"}).status_code == 200
    assert snapshots(own) == again
    assert len(again) == len(before) + 1


WRONG_FACTS = [
    ({"nmae": "x"}, "unknown-name", "fact", "name"),
    ({"symbol": "OTHER"}, "unknown-name", "fact", None),
    ({"edited": ["tick"]}, "unknown-name", "fact", None),
    ({"": 1}, "unknown-name", "fact", None),
    ({"x" * 10_000: 1}, "unknown-name", "fact", None),
    ({"__class__": "x"}, "unknown-name", "fact", None),
    ({"calendar": "XNYSE"}, "unknown-name", "calendar", "XNYS"),
    ({"calendar": ""}, "unknown-name", "calendar", None),
    ({"calendar": "../../x"}, "unknown-name", "calendar", None),
    ({"calendar": "X" * 10_000}, "unknown-name", "calendar", None),
    ({"calendar": "XTAE"}, "refused-input", "calendar", None),
    ({"calendar": 5}, "refused-input", "calendar", None),
    ({"calendar": ["XNYS"]}, "refused-input", "calendar", None),
    ({"tick": 0}, "refused-input", "tick", None),
    ({"tick": -1}, "refused-input", "tick", None),
    ({"tick": "NaN"}, "refused-input", "tick", None),
    ({"tick": "Infinity"}, "refused-input", "tick", None),
    ({"tick": "abc"}, "refused-input", "tick", None),
    ({"lot": True}, "refused-input", "lot", None),
    ({"multiplier": {}}, "refused-input", "multiplier", None),
    ({"bars_a_year": 0}, "refused-input", "bars_a_year", None),
    ({"bars_a_year": "NaN"}, "refused-input", "bars_a_year", None),
    ({"bars_a_year": "Infinity"}, "refused-input", "bars_a_year", None),
    ({"bars_a_year": 367}, "refused-input", "bars_a_year", None),
    ({"session_minutes": 1441}, "refused-input", "session_minutes", None),
    ({"session_minutes": -1}, "refused-input", "session_minutes", None),
    ({"fractional": "maybe"}, "refused-input", "fractional", None),
    ({"name": 5}, "refused-input", "name", None),
    ({"currency": "EUR", "tick": 0}, "refused-input", "tick", None),
]


@pytest.mark.parametrize(("body", "kind", "field", "nearest"), WRONG_FACTS)
def test_a_wrong_fact_is_refused_by_name_and_nothing_changes(
    engine_api: Engine, body: dict[str, Any], kind: str, field: str, nearest: str | None
) -> None:
    before = facts(engine_api), snapshots(engine_api)
    document = problem(engine_api.http.patch("/market/symbols/ACME", json=body), 422, kind)
    (error,) = document["errors"]
    assert (error["field"], error["nearest"]) == (field, nearest)
    assert len(document["detail"]) < 1000
    assert (facts(engine_api), snapshots(engine_api)) == before


@pytest.mark.parametrize(
    ("content", "status", "kind"),
    [
        (b"", 400, "malformed-json"),
        (b"{", 400, "malformed-json"),
        (b'{"tick": NaN}', 400, "malformed-json"),
        (b'{"tick": 1e999}', 400, "malformed-json"),
        (b'{"name": "\\ud800"}', 400, "malformed-json"),
        (b'{"name": "\xff"}', 400, "malformed-json"),
        (b'{"name":' * 5000, 400, "malformed-json"),
        (b"null", 422, "refused-input"),
        (b"[]", 422, "refused-input"),
        (b'"name"', 422, "refused-input"),
        (b'{"name": "' + b"x" * 2_000_000 + b'"}', 413, "body-too-large"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else None,
)
def test_a_body_that_is_no_object_is_refused(
    engine_api: Engine, content: bytes, status: int, kind: str
) -> None:
    before = snapshots(engine_api)
    answer = engine_api.http.patch(
        "/market/symbols/ACME", content=content, headers={"Content-Type": "application/json"}
    )
    problem(answer, status, kind)
    assert snapshots(engine_api) == before


def test_text_of_any_script_is_kept_as_it_is(own: Engine) -> None:
    name = "<script>alert(1)</script> Ünïcode 😀 '; DROP TABLE runs;-- ../.."
    own.http.patch("/market/symbols/ACME", json={"name": name})
    assert facts(own)["name"] == name
    assert stored_again(own).instrument("ACME").name == name


# Names

ROUTES = [
    ("GET", "/market/symbols/{}", {}),
    ("PATCH", "/market/symbols/{}", {"json": {"name": "x"}}),
    ("DELETE", "/market/symbols/{}?timeframe=1d", {}),
    ("GET", "/market/actions/{}", {}),
    ("PUT", "/market/actions/{}", {"json": {"items": []}}),
    ("GET", "/market/quotes/{}", {}),
    ("GET", "/market/quality/{}", {}),
]
routes = pytest.mark.parametrize(("method", "path", "body"), ROUTES, ids=lambda each: str(each)[:30])


@routes
@pytest.mark.parametrize(
    "symbol", ["'; DROP TABLE runs;--", "A" * 10_000, "😀", "A%00B", "%2e%2e", ".A", "A B", "A%0aB", "A..B", "ÀB"]
)  # fmt: skip
def test_a_hostile_name_is_refused_before_anything_is_read(
    engine_api: Engine, method: str, path: str, body: dict[str, Any], symbol: str
) -> None:
    before = snapshots(engine_api)
    answer = engine_api.http.request(method, path.format(symbol), **body)
    document = problem(answer, 422, "refused-input")
    assert document["errors"][0]["field"] == "symbol"
    assert len(answer.content) < 2000
    assert snapshots(engine_api) == before


@routes
@pytest.mark.parametrize("symbol", ["..%2F..%2Fx", "%2Fetc%2Fpasswd", "ACME%2F..", "a%2fb"])
def test_a_name_with_slashes_is_no_route(
    engine_api: Engine, method: str, path: str, body: dict[str, Any], symbol: str
) -> None:
    problem(engine_api.http.request(method, path.format(symbol), **body), 404, "no-such-route")


@routes
def test_an_unknown_symbol_is_404_with_the_nearest(
    engine_api: Engine, method: str, path: str, body: dict[str, Any]
) -> None:
    before = snapshots(engine_api)
    answer = engine_api.http.request(method, path.format("ACMEE"), **body)
    document = problem(answer, 404, "not-found")
    (error,) = document["errors"]
    assert (error["field"], error["nearest"]) == ("symbol", "ACME")
    assert snapshots(engine_api) == before


@routes
def test_nobody_without_a_key_gets_in(
    engine_api: Engine, method: str, path: str, body: dict[str, Any]
) -> None:
    url = f"{engine_api.url}/api/v1{path.format('ACME')}"
    problem(httpx.request(method, url, **body), 401, "unauthenticated")
    wrong = {"Authorization": "Bearer gtk_wrong"}
    problem(httpx.request(method, url, headers=wrong, **body), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("method", "path", "body", "bob", "eve"),
    [
        ("GET", "/market/symbols/ACME", {}, 200, 200),
        ("GET", "/market/actions/ACME", {}, 200, 200),
        ("GET", "/market/quotes/ACME", {}, 200, 200),
        ("PATCH", "/market/symbols/ACME", {"json": {}}, 200, 403),
        ("DELETE", "/market/symbols/ACME?timeframe=1w", {}, 422, 403),
        ("PUT", "/market/actions/ACME", {"json": {"items": []}}, 403, 403),
    ],
)
def test_scopes(engine_api: Engine, method: str, path: str, body: dict[str, Any], bob: int, eve: int) -> None:
    before = snapshots(engine_api)
    for who, status in ((BOB, bob), (EVE, eve)):
        answer = engine_api.http.request(method, path, headers=who, **body)
        assert answer.status_code == status, answer.text
        if status == 403:
            problem(answer, 403, "denied")
    assert snapshots(engine_api) == before


@pytest.mark.parametrize("path", ["/market/symbols/ACME", "/market/actions/ACME"])
@pytest.mark.parametrize(
    ("as_of", "status", "kind"),
    [
        ("f" * 32, 404, "not-found"),
        ("2001-01-01", 404, "not-found"),
        ("", 422, "refused-input"),
        ("../x", 422, "refused-input"),
        ("f" * 65, 422, "refused-input"),
    ],
)
def test_a_version_that_there_is_not(
    engine_api: Engine, path: str, as_of: str, status: int, kind: str
) -> None:
    problem(engine_api.http.get(path, params={"as_of": as_of}), status, kind)


def test_an_older_version_does_not_know_what_came_later(own: Engine) -> None:
    old = snapshots(own)[0]
    own.context.lake.upsert(Instrument(symbol="LATER"), "1d", exact_bars(9), source="csv")
    for path in ("/market/symbols/LATER", "/market/actions/LATER"):
        assert own.http.get(path).status_code == 200
        problem(own.http.get(path, params={"as_of": old}), 404, "not-found")


# Series taken out


def test_a_series_taken_out_is_gone_from_the_new_snapshot_alone(own: Engine, bars: RawBars) -> None:
    (old, *_) = snapshots(own)
    files = sorted((own.home.lake / "bars").rglob("*.parquet"))
    answer = own.http.delete("/market/symbols/acme", params={"timeframe": "1d"}, headers=BOB)
    assert answer.status_code == 200, answer.text
    new = snapshots(own)[0]
    assert answer.json() == {"symbol": "ACME", "timeframe": "1d", "snapshot_id": new}
    assert new != old
    assert own.http.get("/market/symbols/ACME").json()["series"] == []
    assert own.http.get("/market/bars/ACME").status_code in (404, 422)
    assert own.http.get("/market/bars/IBM").status_code == 200
    assert own.http.get("/market/bars/ACME", params={"as_of": old}).json()["bars"] == len(bars)
    assert equal(stored_again(own).raw_bars("ACME", snapshot=old), bars)
    assert sorted((own.home.lake / "bars").rglob("*.parquet")) == files
    again = problem(own.http.delete("/market/symbols/ACME", params={"timeframe": "1d"}), 422, "unknown-name")
    assert "ACME is not stored as 1d bars" in again["detail"]
    assert snapshots(own)[0] == new


@pytest.mark.parametrize(
    ("query", "kind", "nearest"),
    [
        ({}, "refused-input", None),
        ({"timeframe": "1w"}, "unknown-name", "1d"),
        ({"timeframe": "2d"}, "unknown-name", "1d"),
        ({"timeframe": "../1d"}, "unknown-name", "1d"),
        ({"timeframe": ""}, "unknown-name", None),
        ({"timeframe": "x" * 10_000}, "unknown-name", None),
    ],
)
def test_a_series_that_is_none_is_not_taken_out(
    engine_api: Engine, query: dict[str, str], kind: str, nearest: str | None
) -> None:
    before = snapshots(engine_api)
    document = problem(engine_api.http.delete("/market/symbols/ACME", params=query), 422, kind)
    (error,) = document["errors"]
    assert (error["field"], error["nearest"]) == ("timeframe", nearest)
    assert len(document["detail"]) < 500
    assert snapshots(engine_api) == before


# Splits and dividends


def replace(engine: Engine, *items: dict[str, Any]) -> httpx.Response:
    return engine.http.put("/market/actions/ACME", json={"items": list(items)})


def test_actions_are_replaced_by_date_and_make_a_snapshot(own: Engine, bars: RawBars) -> None:
    assert own.http.get("/market/actions/ACME").json()["items"] == []
    (old, *_) = snapshots(own)
    answer = replace(
        own, {"ex_date": PAID["ex_date"], "dividend": 0.5}, {"ex_date": "2019-12-20", "split": 2}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["items"] == [SPLIT, PAID]
    (new, *_) = snapshots(own)
    assert new != old
    assert own.http.get("/market/actions/acme").json()["items"] == [SPLIT, PAID]
    assert own.http.get("/market/actions/ACME", params={"as_of": old}).json()["items"] == []
    assert own.http.get("/market/actions/IBM").json()["items"] == []
    assert equal(own.context.lake.raw_bars("ACME"), bars), "stored prices stay as printed"

    assert replace(own, PAID).json()["items"] == [PAID]
    assert own.http.get("/market/actions/ACME").json()["items"] == [PAID]
    assert replace(own).json()["items"] == []
    assert own.http.get("/market/actions/ACME").json()["items"] == []
    again = snapshots(own)
    replace(own)
    assert snapshots(own) == again, "nothing changed"


def test_bars_and_their_tag_follow_the_actions_of_their_own_symbol(own: Engine, bars: RawBars) -> None:
    url = "/market/bars/ACME"
    first = own.http.get(url)
    tag = {"If-None-Match": first.headers["etag"]}
    assert own.http.get(url, headers=tag).status_code == 304

    own.context.lake.upsert(IBM, "1d", exact_bars(25), source="sample")
    own.context.lake.replace_actions("IBM", CorporateActions.of({date(2019, 12, 20): 3.0}))
    own.http.patch("/market/symbols/IBM", json={"currency": "EUR"})
    own.http.patch("/market/symbols/ACME", json={"currency": "EUR"})
    assert own.http.get(url, headers=tag).status_code == 304, "nothing that these bars depend on has changed"

    replace(own, SPLIT)
    halved = own.http.get(url, headers=tag)
    assert halved.status_code == 200
    assert halved.headers["etag"] != first.headers["etag"]
    before = (bars.time < np.datetime64("2019-12-20")).tolist()
    expected = [c / 2 if b else c for c, b in zip(bars.close.tolist(), before, strict=True)]
    assert halved.json()["columns"]["close"] == pytest.approx(expected, rel=1e-12)

    replace(own)
    assert own.http.get(url, headers=tag).json()["columns"] == first.json()["columns"]
    assert own.http.get(url, headers={"If-None-Match": halved.headers["etag"]}).status_code == 200


WRONG_ROWS = [
    ([{"ex_date": "2020-01-10", "splt": 2}], "items.0.splt"),
    ([{"split": 2}], "items.0.ex_date"),
    ([{"ex_date": "2020-13-01"}], "items.0.ex_date"),
    ([{"ex_date": "2020-01-10T10:00:00"}], "items.0.ex_date"),
    ([{"ex_date": None}], "items.0.ex_date"),
    ([SPLIT, {"ex_date": "2020-01-10", "split": 0}], "items.1.split"),
    ([{"ex_date": "2020-01-10", "split": -2}], "items.0.split"),
    ([{"ex_date": "2020-01-10", "split": "NaN"}], "items.0.split"),
    ([{"ex_date": "2020-01-10", "split": "Infinity"}], "items.0.split"),
    ([{"ex_date": "2020-01-10", "split": 1e300}], "items.0.split"),
    ([{"ex_date": "2020-01-10", "split": 1e-300}], "items.0.split"),
    ([{"ex_date": "2020-01-10", "split": "two"}], "items.0.split"),
    ([{"ex_date": "2020-01-10", "split": None}], "items.0.split"),
    ([{"ex_date": "2020-01-10", "dividend": -0.1}], "items.0.dividend"),
    ([{"ex_date": "2020-01-10", "dividend": "inf"}], "items.0.dividend"),
    ([SPLIT, SPLIT | {"split": 3}], "items"),
    ([SPLIT] * 10_001, "items"),
    (None, "items"),
    ({}, "items"),
    (["2020-01-10"], "items.0"),
]


@pytest.mark.parametrize(("items", "field"), WRONG_ROWS, ids=lambda value: str(value)[:60])
def test_wrong_actions_are_refused_by_row_and_nothing_changes(
    engine_api: Engine, items: object, field: str
) -> None:
    before = snapshots(engine_api)
    answer = engine_api.http.put("/market/actions/ACME", json={"items": items})
    assert problem(answer, 422, "refused-input")["errors"][0]["field"] == field
    more = engine_api.http.put("/market/actions/ACME", json={"items": [], "append": True})
    assert problem(more, 422, "refused-input")["errors"][0]["field"] == "append"
    assert snapshots(engine_api) == before


def test_actions_of_any_day_can_be_stored(own: Engine) -> None:
    rows = [{"ex_date": day, "split": 1.0, "dividend": 0.25} for day in ("0001-01-01", "9999-12-31")]
    assert replace(own, *rows).json()["items"] == rows
    assert own.http.get("/market/actions/ACME").json()["items"] == rows
    assert own.http.get("/market/bars/ACME").status_code == 200


# Newest prices


def test_of_a_series_from_a_file_the_newest_close_is_told(own: Engine, bars: RawBars) -> None:
    own.context.lake.upsert(ACME, "1h", exact_bars(5, timeframe="1h"), source="csv")
    found = own.http.get("/market/quotes/acme").json()
    nothing = dict.fromkeys(("bid", "ask", "bid_size", "ask_size"))
    at = f"{bars.time[-1].astype('M8[D]')}T00:00:00Z"
    expected = {"symbol": "ACME", "time": at, "source": "csv", "kind": "bar", "last": bars.close[-1]}
    assert found == expected | nothing
    own.context.lake.upsert(ACME, "1h", exact_bars(5, timeframe="1h", start="2030-01-01"), source="csv")
    assert own.http.get("/market/quotes/ACME").json()["time"] == "2030-01-01T04:00:00Z"


def test_of_a_source_without_quotes_the_newest_close_is_told_unless_it_is_named(own: Engine) -> None:
    assert own.http.get("/market/quotes/IBM").json()["kind"] == "bar"
    for name in ("sample", "csv", "resample", "synthetic"):
        answer = own.http.get("/market/quotes/IBM", params={"source": name})
        assert problem(answer, 422, "refused-input")["errors"][0]["field"] == "source"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("yahooo", "yahoo"), ("nope", None), ("", None), ("../x", None), ("alpaca:x", "alpaca")],
)
def test_a_source_that_is_none_is_a_wrong_query(engine_api: Engine, name: str, nearest: str | None) -> None:
    answer = engine_api.http.get("/market/quotes/ACME", params={"source": name})
    if not name:  # nothing was named
        assert answer.json()["kind"] == "bar"
        return
    assert problem(answer, 422, "unknown-name")["errors"][0]["nearest"] == nearest
    long = engine_api.http.get("/market/quotes/ACME", params={"source": "x" * 10_000})
    problem(long, 422, "refused-input")


def test_what_has_no_bars_any_more_has_no_price(own: Engine) -> None:
    own.http.delete("/market/symbols/ACME", params={"timeframe": "1d"})
    document = problem(own.http.get("/market/quotes/ACME"), 404, "not-found")
    assert "ACME has no bars in the lake, and source sample gives no quotes" in document["detail"]


@pytest.fixture
def alpaca() -> Iterator[AlpacaServer]:
    with AlpacaServer().serving() as fake:
        fake.assets = [asset("AAPL"), asset("KO", "NYSE")]
        at = "2024-01-02T15:30:00.5Z"
        fake.latest["quotes"]["AAPL"] = {"t": at, "bp": 99.5, "bs": 2, "ap": 100.5, "as": 3}
        fake.latest["trades"]["AAPL"] = {"t": at, "p": 100.25, "s": 10}
        yield fake


@pytest.fixture
def vendor(
    prefect: Prefect,
    api_settings: Settings,
    tmp_path: Path,
    alpaca: AlpacaServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Engine]:
    """An API over a lake with bars of a vendor that quotes."""
    for name in [name for name in os.environ if name.startswith("GPT_TRADER_CREDENTIAL_")]:
        monkeypatch.delenv(name)
    home = Home(tmp_path / "home")
    for symbol in ("AAPL", "KO", "GONE"):
        Lake(home.lake).upsert(Instrument(symbol=symbol), "1d", exact_bars(9), source="alpaca")
    settings = api_settings.model_copy(update={"source_urls": {"alpaca": alpaca.url}})
    with serving(settings, home, prefect.url) as engine:
        write_credential("alpaca", {"key": SecretStr(KEY), "secret": SecretStr(SECRET)}, home.credentials)
        yield engine


def test_the_source_of_the_newest_bars_is_asked(vendor: Engine) -> None:
    assert vendor.http.get("/market/quotes/aapl").json() == {
        "symbol": "AAPL",
        "time": "2024-01-02T15:30:00.500000Z",
        "source": "alpaca",
        "kind": "quote",
        "bid": 99.5,
        "ask": 100.5,
        "bid_size": 2.0,
        "ask_size": 3.0,
        "last": 100.25,
    }
    unknown = problem(vendor.http.get("/market/quotes/AAPLL", params={"source": "alpaca"}), 404, "not-found")
    assert unknown["errors"][0]["nearest"] == "AAPL"


@pytest.mark.parametrize("symbol", ["KO", "GONE"])
def test_what_the_source_never_quoted_or_knows_no_more_has_its_newest_close(
    vendor: Engine, symbol: str
) -> None:
    """KO was never traded there; GONE is not listed any more."""
    found = vendor.http.get(f"/market/quotes/{symbol}").json()
    assert (found["kind"], found["source"], found["last"]) == ("bar", "alpaca", exact_bars(9).close[-1])


def test_a_source_without_its_key_says_how_to_give_it(vendor: Engine) -> None:
    vendor.home.credentials.unlink()
    document = problem(vendor.http.get("/market/quotes/AAPL"), 403, "denied")
    assert "gpt-trader data credentials set alpaca" in document["detail"]


def test_no_answer_shows_a_key(vendor: Engine, alpaca: AlpacaServer) -> None:
    alpaca.faults.extend([Fault(status=401, body=f"{KEY} {SECRET}")] * 3)
    answer = vendor.http.get("/market/quotes/AAPL")
    assert answer.status_code in (403, 502)
    assert KEY not in answer.text
    assert SECRET not in answer.text
