"""The check of stored bars over REST: which series, of when, up to which version, as JSON or as a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gpt_trader.instruments import Instrument
from gpt_trader.quality import Policy
from gpt_trader.settings import Home, Settings
from storage.lake import Lake
from tests.api.conftest import Engine, Prefect, serving
from tests.api.test_health_and_errors import problem
from tests.api.test_runs import BOB, EVE
from tests.lake_samples import exact_bars
from tests.quality_samples import labels, walk, without

ACME = Instrument(symbol="ACME", calendar="XNYS")


@pytest.fixture(scope="module")
def session(
    prefect: Prefect, api_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """An API over a lake with a hole in ACME's days and one in its minutes, and BTC-USDT without any."""
    home = Home(tmp_path_factory.mktemp("quality") / "home")
    lake = Lake(home.lake)
    days = walk(labels("XNYS", "1d", "2024-01-02", "2024-03-28"))
    lake.upsert(ACME, "1d", without(days, slice(20, 23)), source="csv")
    minutes = walk(labels("XNYS", "1m", "2024-07-02", "2024-07-05"))
    lake.upsert(ACME, "1m", without(minutes, 100), source="csv")
    never_closed = Instrument(symbol="BTC-USDT", calendar="24/7")
    lake.upsert(never_closed, "1h", walk(labels("24/7", "1h", "2024-01-01", "2024-01-10")), source="csv")
    lake.upsert(Instrument(symbol="NOCAL"), "1d", exact_bars(40), source="csv")
    with serving(api_settings, home, prefect.url) as engine:
        yield engine


def checked(engine: Engine, path: str = "", **query: Any) -> list[dict[str, Any]]:
    answer = engine.http.get(f"/market/quality{path}", params=query)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["next_cursor"] is None
    items: list[dict[str, Any]] = document["items"]
    return items


def keys(items: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(each["symbol"], each["timeframe"]) for each in items]


ALL = [("ACME", "1m"), ("ACME", "1d"), ("BTC-USDT", "1h"), ("NOCAL", "1d")]


def test_every_series_has_a_verdict(session: Engine) -> None:
    found = checked(session)
    assert keys(found) == ALL
    minutes, days, hours, nocal = found
    assert days == {
        "schema_version": 1,
        "symbol": "ACME",
        "timeframe": "1d",
        "status": "warn",
        "bars": 58,
        "expected": 61,
        "first": "2024-01-02T00:00:00Z",
        "last": "2024-03-28T00:00:00Z",
        "calendar": "XNYS",
        "findings": [
            {
                "rule": "gaps",
                "severity": "warn",
                "first": "2024-01-31T00:00:00Z",
                "last": "2024-02-02T00:00:00Z",
                "count": 3,
                "detail": days["findings"][0]["detail"],
            }
        ],
        "notes": [],
    }
    assert days["findings"][0]["detail"]
    (gap,) = minutes["findings"]
    assert (gap["rule"], gap["first"], gap["count"]) == ("gaps", "2024-07-02T15:10:00Z", 1)
    assert (hours["status"], hours["findings"], hours["expected"]) == ("ok", [], 240)
    assert (nocal["expected"], nocal["calendar"]) == (None, None)
    assert "gaps" not in [each["rule"] for each in nocal["findings"]]


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/acme", {}, ALL[:2]),
        ("/ACME", {"timeframe": "1d"}, ALL[1:2]),
        ("/BTC-USDT", {"timeframe": ["1d", "1w"]}, []),
        ("", {"symbol": "acme"}, ALL[:2]),
        ("", {"symbol": ["NOCAL", "BTC-USDT", "nocal"]}, ALL[2:]),
        ("", {"timeframe": "1d"}, [ALL[1], ALL[3]]),
        ("", {"timeframe": ["1h", "1m", "1m"]}, [ALL[0], ALL[2]]),
        ("", {"symbol": "ACME", "timeframe": "1h"}, []),
    ],
)
def test_some_of_them(
    session: Engine, path: str, query: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert keys(checked(session, path, **query)) == expected


@pytest.mark.parametrize(
    ("query", "bars", "gaps"),
    [
        ({"end": "2024-01-30"}, 20, 0),
        ({"start": "2024-02-05"}, 38, 0),
        ({"start": "2024-01-30", "end": "2024-02-05"}, 2, 3),
        ({"start": "2024-02-01", "end": "2024-02-01"}, 0, 0),
        ({"start": "2031-01-01"}, 0, 0),
        ({"start": "0001-01-01", "end": "9999-12-31"}, 58, 3),
    ],
)
def test_a_range_is_inclusive(session: Engine, query: dict[str, str], bars: int, gaps: int) -> None:
    (found,) = checked(session, "/ACME", timeframe="1d", **query)
    assert found["bars"] == bars
    assert sum(each["count"] for each in found["findings"] if each["rule"] == "gaps") == gaps
    assert (found["first"] is None) == (bars == 0)


def test_as_of_judges_what_was_stored_then(session: Engine) -> None:
    lake = session.context.lake
    old = session.http.get("/market/snapshots").json()["items"][0]["id"]
    then = checked(session, "/ACME", timeframe="1d")
    whole = walk(labels("XNYS", "1d", "2024-01-02", "2024-03-28"))
    lake.upsert(ACME, "1d", whole, source="csv")
    try:
        (now,) = checked(session, "/ACME", timeframe="1d")
        assert (now["bars"], now["findings"]) == (61, [])
        assert checked(session, "/ACME", timeframe="1d", as_of=old) == then
        assert checked(session, "/ACME", timeframe="1d", as_of=old[:8]) == then
    finally:
        lake.remove("ACME", "1d")
        lake.upsert(ACME, "1d", without(whole, slice(20, 23)), source="csv")


@pytest.mark.parametrize(
    ("query", "status", "kind", "field"),
    [
        ({"timeframe": "2d"}, 422, "unknown-name", "timeframe"),
        ({"timeframe": ["1d", "../x"]}, 422, "unknown-name", "timeframe"),
        ({"timeframe": ["1d"] * 8}, 422, "refused-input", "timeframe"),
        ({"start": "2024-02-01", "end": "2024-01-01"}, 422, "refused-input", "start"),
        ({"start": "yesterday"}, 422, "refused-input", "start"),
        ({"end": "2024-02-30"}, 422, "refused-input", "end"),
        ({"as_of": "f" * 32}, 404, "not-found", None),
        ({"as_of": "2001-01-01"}, 404, "not-found", None),
        ({"as_of": "no time"}, 422, "refused-input", "snapshot"),
        ({"as_of": "f" * 65}, 422, "refused-input", "as_of"),
    ],
)
@pytest.mark.parametrize("path", ["", "/ACME"])
def test_a_wrong_question_is_refused(
    session: Engine, path: str, query: dict[str, Any], status: int, kind: str, field: str | None
) -> None:
    document = problem(session.http.get(f"/market/quality{path}", params=query), status, kind)
    assert [each["field"] for each in document["errors"]][:1] == ([field] if field else [])
    assert len(document["detail"]) < 1000


@pytest.mark.parametrize("symbol", ["../../x", "'; DROP", "😀", "A\0B", "x" * 10_000, "", "."])
def test_a_hostile_symbol_is_refused(session: Engine, symbol: str) -> None:
    answer = session.http.get("/market/quality", params={"symbol": ["ACME", symbol]})
    document = problem(answer, 422, "refused-input")
    assert document["errors"][0]["field"] == "symbol.1"
    assert len(answer.content) < 2000


def test_too_many_symbols_are_refused(session: Engine) -> None:
    answer = session.http.get("/market/quality", params={"symbol": ["ACME"] * 501})
    assert problem(answer, 422, "refused-input")["errors"][0]["field"] == "symbol"


def test_an_unknown_symbol_is_404_with_the_nearest(session: Engine) -> None:
    for answer in (
        session.http.get("/market/quality/ACMEE"),
        session.http.get("/market/quality", params={"symbol": ["ACME", "ACMEE"]}),
    ):
        (error,) = problem(answer, 404, "not-found")["errors"]
        assert (error["field"], error["nearest"]) == ("symbol", "ACME")


def test_whoever_may_read_may_check(session: Engine) -> None:
    for who in (BOB, EVE):
        assert session.http.get("/market/quality", headers=who).status_code == 200
    for path in ("", "/ACME"):
        problem(httpx.get(f"{session.url}/api/v1/market/quality{path}"), 401, "unauthenticated")


# Representations


@pytest.mark.parametrize("path", ["", "/ACME"])
@pytest.mark.parametrize("accept", ["text/html", "text/html, application/json;q=0.9", "text/*"])
def test_a_browser_gets_a_page_without_scripts(session: Engine, path: str, accept: str) -> None:
    answer = session.http.get(f"/market/quality{path}", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["vary"] == "Accept"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "<script" not in answer.text
    current = session.context.lake.current()
    assert current is not None
    for part in ("ACME", "2024-01-31", current.id):
        assert part in answer.text
    assert ("BTC-USDT" in answer.text) is (path == "")


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/html;q=0.5, application/json"])
def test_a_program_gets_json(session: Engine, accept: str | None) -> None:
    headers = {"Accept": accept} if accept else {}
    answer = session.http.get("/market/quality/ACME", headers=headers)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["vary"] == "Accept"
    assert keys(answer.json()["items"]) == ALL[:2]


@pytest.mark.parametrize("accept", ["application/xml", "text/csv", "application/json;q=0", "nonsense"])
def test_a_representation_that_there_is_not_is_406(session: Engine, accept: str) -> None:
    for path in ("", "/ACME"):
        answer = session.http.get(f"/market/quality{path}", headers={"Accept": accept})
        document = problem(answer, 406, "not-acceptable")
        assert "application/json, text/html" in document["detail"]
        assert [each["field"] for each in document["errors"]] == ["Accept"]


def test_what_a_user_named_is_escaped_in_the_page(session: Engine) -> None:
    lake = session.context.lake
    name = "<img src=x onerror=alert(1)>"
    lake.upsert(Instrument(symbol="XSS", name=name, venue=name), "1d", exact_bars(9), source="csv")
    try:
        page = session.http.get("/market/quality/XSS", headers={"Accept": "text/html"}).text
    finally:
        lake.remove("XSS", "1d")
    assert "<img" not in page


# Lakes and policies of their own


def test_an_empty_lake_has_nothing_to_check(prefect: Prefect, api_settings: Settings, tmp_path: Path) -> None:
    with serving(api_settings, Home(tmp_path / "home"), prefect.url) as empty:
        assert checked(empty) == []
        page = empty.http.get("/market/quality", headers={"Accept": "text/html"})
        assert page.status_code == 200
        assert "<!doctype html>" in page.text
        problem(empty.http.get("/market/quality/ACME"), 404, "not-found")
        problem(empty.http.get("/market/quality", params={"symbol": "ACME"}), 404, "not-found")
        problem(empty.http.get("/market/quality", params={"as_of": "2024-01-01"}), 404, "not-found")
        assert not (empty.home.lake / "CURRENT").exists()


def test_the_settings_policy_says_what_a_finding_leads_to(
    prefect: Prefect, api_settings: Settings, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    days = without(walk(labels("XNYS", "1d", "2024-01-02", "2024-03-28")), 20)
    Lake(home.lake).upsert(ACME, "1d", days, source="csv")
    for severity, status in (("block", "block"), ("warn", "warn"), ("off", "ok")):
        policy = Policy.model_validate({"rules": {"gaps": severity}})
        settings = api_settings.model_copy(update={"quality": policy})
        with serving(settings, home, prefect.url) as engine:
            (found,) = checked(engine)
            assert found["status"] == status
            assert [each["severity"] for each in found["findings"]] == ([severity] if status != "ok" else [])


def test_a_damaged_file_is_named(prefect: Prefect, api_settings: Settings, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    lake = Lake(home.lake)
    lake.upsert(ACME, "1d", exact_bars(30), source="csv")
    (file,) = lake.entry("ACME").files
    path = home.lake / file.path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    with serving(api_settings, home, prefect.url) as engine:
        document = problem(engine.http.get("/market/quality"), 500, "corrupt-lake")
        assert str(path) in document["detail"]
