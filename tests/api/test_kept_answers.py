"""Bars from memory: the same as from the lake, never after a commit, never for whoever may not read."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from starlette.responses import Response

from api.kept_answers import KeptAnswers
from api.principals import Principal
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars
from storage.lake import Lake
from tests.api.conftest import OTHERS, Engine

KEPT = "/market/bars/KEPT?limit=5"


def store(engine: Engine, close: float) -> None:
    days = np.arange("2024-01-01", 8, dtype="datetime64[D]").astype("datetime64[us]")
    level = np.full(8, close)
    raw = RawBars(days, level, level, level, level, np.full(8, 10.0), np.ones(8))
    Lake(engine.home.lake).upsert(Instrument(symbol="KEPT", name="Kept"), "1d", raw, source="csv")


def test_a_kept_answer_is_the_answer_until_the_lake_changes(engine_api: Engine) -> None:
    store(engine_api, 10.0)
    first, again = engine_api.http.get(KEPT), engine_api.http.get(KEPT)
    assert engine_api.context.answers.bytes > len(first.content)
    assert (again.status_code, again.content) == (200, first.content)
    for name in ("ETag", "Vary", "Cache-Control", "X-Snapshot-Id", "Content-Type", "X-Content-Type-Options"):
        assert again.headers[name] == first.headers[name], name
    known = {"If-None-Match": first.headers["ETag"]}
    unchanged = engine_api.http.get(KEPT, headers=known)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["ETag"] == first.headers["ETag"]
    store(engine_api, 20.0)
    changed = engine_api.http.get(KEPT, headers=known)
    assert changed.status_code == 200
    assert changed.json()["columns"]["close"] == [20.0] * 5
    assert changed.headers["X-Snapshot-Id"] != first.headers["X-Snapshot-Id"]


def test_other_questions_have_other_answers(engine_api: Engine) -> None:
    store(engine_api, 10.0)
    assert engine_api.http.get(KEPT).json()["bars"] == 5
    assert engine_api.http.get("/market/bars/KEPT?limit=3").json()["bars"] == 3
    table = engine_api.http.get(KEPT, headers={"Accept": "text/csv"})
    assert table.headers["Content-Type"].startswith("text/csv")
    assert engine_api.http.get(KEPT).json()["bars"] == 5


def test_who_may_not_read_gets_nothing_of_what_is_kept(engine_api: Engine) -> None:
    store(engine_api, 10.0)
    etag = engine_api.http.get(KEPT).headers["ETag"]
    OTHERS.hand_out("key-of-mute", Principal("mute", frozenset()))
    url = f"{engine_api.url}/api/v1{KEPT}"
    for key, status in (("key-of-mute", 403), ("wrong", 401)):
        answer = httpx.get(url, headers={"Authorization": f"Bearer {key}", "If-None-Match": etag})
        assert answer.status_code == status
    OTHERS.take_back("key-of-mute")
    assert httpx.get(url, headers={"If-None-Match": etag}).status_code == 401


def test_a_kept_answer_counts_as_any_other(engine_api: Engine) -> None:
    store(engine_api, 10.0)
    headers = {"Authorization": "Bearer key-of-eve"}
    left = [
        int(httpx.get(f"{engine_api.url}/api/v1{KEPT}", headers=headers).headers["RateLimit-Remaining"])
        for _ in range(3)
    ]
    assert left == [left[0], left[0] - 1, left[0] - 2]


def answered(body: bytes) -> Response:
    return Response(body, headers={"ETag": f'"{len(body)}"'})


@pytest.mark.parametrize("count", [3, 40])
def test_what_is_kept_is_bounded(count: int) -> None:
    answers = KeptAnswers(limit=20_000)
    for number in range(count):
        answers.keep((f"/{number}", b"", ""), answered(b"x" * 1000), (1, 1, 1))
    assert 0 < answers.bytes <= 20_000
    assert answers.find((f"/{count - 1}", b"", ""), None, (1, 1, 1)) is not None
    assert (answers.find(("/0", b"", ""), None, (1, 1, 1)) is None) == (count > 20)
    answers.keep(("/large", b"", ""), answered(b"x" * 5000), (1, 1, 1))
    assert answers.find(("/large", b"", ""), None, (1, 1, 1)) is None


def test_an_answer_of_another_state_of_the_lake_is_dropped() -> None:
    answers = KeptAnswers()
    answers.keep(("/a", b"", ""), answered(b"abc"), (1, 1, 1))
    assert answers.find(("/a", b"", ""), None, (1, 2, 1)) is None
    assert answers.bytes == 0
