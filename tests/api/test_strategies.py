"""Strategies over REST: the list, the parameters, and storing a file without running it."""

from __future__ import annotations

import hashlib
import stat

import pytest

from gpt_trader.strategies.description import describe
from gpt_trader.strategies.registry import BUILT_IN, strategy_type
from tests.api.conftest import Engine
from tests.api.test_health_and_errors import problem

SOURCE = """
import os
os._exit(3)  # whoever runs this dies

from gpt_trader.strategies.base import Strategy

class Mine(Strategy):
    name = "mine"

class _Plain:
    pass
"""


def test_the_list_has_every_built_in(engine_api: Engine) -> None:
    items = engine_api.http.get("/strategies").json()["items"]
    built_in = [each["name"] for each in items if each["origin"] == "built-in"]
    assert built_in == list(BUILT_IN)
    assert all(each["summary"] for each in items)


@pytest.mark.parametrize("name", ["ma_crossover", "ma-crossover"])
def test_a_strategy_shows_schema_defaults_and_search_space(engine_api: Engine, name: str) -> None:
    shown = engine_api.http.get(f"/strategies/{name}").json()
    assert shown["defaults"] == {"fast": 10, "slow": 30}
    assert set(shown["parameters"]["properties"]) == {"fast", "slow"}
    assert shown["parameters"]["additionalProperties"] is False
    assert shown["search_space"]["fast"] == [5, 10, 15, 20]
    assert shown["warmup"] == 30
    assert shown == describe(name, strategy_type(name)), "what `strategy show` prints without an engine"


def test_an_unknown_strategy_is_404_with_the_nearest(engine_api: Engine) -> None:
    document = problem(engine_api.http.get("/strategies/momentun"), 404, "not-found")
    assert document["errors"][0]["nearest"] == "momentum"


def test_a_file_is_stored_by_its_hash_and_not_run(engine_api: Engine) -> None:
    body = {"filename": "mine.py", "source": SOURCE}
    first = engine_api.http.post("/strategies", json=body)
    assert first.status_code == 201, first.text
    digest = hashlib.sha256(SOURCE.encode()).hexdigest()
    assert first.json() == {"sha256": digest, "strategies": [f"user:{digest}:Mine"]}
    path = engine_api.home.strategies / f"{digest}.py"
    assert path.read_text() == SOURCE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    written = path.stat().st_mtime_ns
    assert engine_api.http.post("/strategies", json=body).json() == first.json()
    assert path.stat().st_mtime_ns == written

    names = [each["name"] for each in engine_api.http.get("/strategies").json()["items"]]
    assert f"user:{digest}:Mine" in names
    accepted = engine_api.http.post(
        "/strategies/backtest", json={"symbol": "ACME", "strategy": f"user:{digest}:Mine", "params": {"a": 1}}
    )
    assert accepted.status_code == 202, accepted.text


def test_a_user_strategy_that_is_not_stored_is_refused(engine_api: Engine) -> None:
    strategy = f"user:{'0' * 64}:Mine"
    answer = engine_api.http.post("/strategies/backtest", json={"symbol": "ACME", "strategy": strategy})
    assert "POST its file" in problem(answer, 404, "not-found")["detail"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f(:", "line 1 is not Python"),
        ("x = 1", "defines no strategy class"),
        ("class A: pass", "defines no strategy class"),
        ("x = '\0'", "is not Python"),
        ("(" * 5000, "is not Python"),
        ("class A(B): pass\n" + "#" * 256 * 1024, "bytes"),
    ],
)
def test_a_file_that_can_be_no_strategy_is_refused(engine_api: Engine, source: str, said: str) -> None:
    answer = engine_api.http.post("/strategies", json={"filename": "mine.py", "source": source})
    assert said in problem(answer, 422, "refused-input")["detail"]
