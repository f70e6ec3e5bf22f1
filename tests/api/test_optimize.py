"""Admission of optimizations: everything that can be known to be wrong is refused by name and reaches nobody."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.api.conftest import Engine, Prefect
from tests.api.test_health_and_errors import problem

ROUTES = ("/strategies/optimize", "/workflows/optimize/runs")
ASKED = {"symbol": "ACME", "strategy": "ma_crossover"}
UNKNOWN_FILE = f"user:{'0' * 64}:Mine"


def runs(prefect: Prefect) -> int:
    counted: int = prefect.http.post("/flow_runs/count", json={}).raise_for_status().json()
    return counted


@pytest.mark.parametrize("route", ROUTES)
def test_a_good_request_is_accepted_and_reaches_prefect_whole(
    engine_api: Engine, prefect: Prefect, route: str
) -> None:
    asked = {
        **ASKED,
        "space": {"fast": {"low": 5, "high": 20, "step": 5}, "slow": [30, 40.0]},
        "objective": "calmar",
        "walk_forward": {"windows": 3},
        "top": 3,
    }
    answer = engine_api.http.post(route, json=asked)
    assert answer.status_code == 202, answer.text
    accepted = answer.json()
    run_id = accepted["run_id"]
    assert (accepted["flow"], accepted["state"]) == ("optimize", "SCHEDULED")
    assert answer.headers["location"] == accepted["links"]["self"] == f"/api/v1/workflows/runs/{run_id}"
    sent = prefect.http.get(f"/flow_runs/{run_id}").json()
    assert sent["parameters"]["request"].items() >= {**asked, "walk_forward": sent_walk(3)}.items()
    assert {"slice:optimize", "symbol:ACME", "strategy:ma_crossover"} <= set(sent["tags"])
    assert engine_api.context.runs.get(UUID(run_id)).owner == "local"


def sent_walk(windows: int) -> dict[str, Any]:
    return {"windows": windows, "train": 4.0, "anchored": False, "purge": 0, "embargo": 0}


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"params": {"slow": 60}},
        {"space": {"fast": [5, 30], "slow": [20, 40]}},
        {"method": "random", "trials": 250_000},
        {"method": "tpe"},
        {"method": "tpe", "trials": 5_000, "patience": 100, "walk_forward": {"purge": 5, "embargo": 20}},
        {"method": "random", "patience": 1},
        {"method": "random", "space": {"fast": {"low": 1, "high": 5000}, "slow": {"low": 2, "high": 5000}}},
        {"space": {"fast": {"low": 1, "high": 500}, "slow": {"low": 501, "high": 1000}}},
        {"min_trades": 0, "max_drawdown": 1, "objective": "max_drawdown"},
    ],
    ids=str,
)
def test_what_can_be_searched_is_accepted(engine_api: Engine, request_: dict[str, Any]) -> None:
    answer = engine_api.http.post(ROUTES[0], json={**ASKED, **request_})
    assert answer.status_code == 202, answer.text


def ranged(low: object, high: object, **step: object) -> dict[str, Any]:
    return {"space": {"fast": {"low": low, "high": high, **step}}}


WRONG: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "unknown strategy": ({"strategy": "ma_crosover"}, "strategy", "ma_crossover"),
    "unknown symbol": ({"symbol": "ACNE"}, "symbol", "ACME"),
    "unknown field": ({"objectiv": "sharpe"}, "objectiv", "objective"),
    "unknown parameter searched": ({"space": {"fats": [5]}}, "space.fats", "fast"),
    "unknown parameter fixed": ({"params": {"slo": 5}}, "params.slo", "slow"),
    "direction searched": ({"space": {"direction": ["long", "both"]}}, "space.direction", None),
    "direction fixed": ({"params": {"direction": "both"}}, "params.direction", None),
    "nameless parameter": ({"space": {"": [1]}}, "space.", None),
    "nothing searched": ({"params": {"fast": 5, "slow": 20}}, "space", None),
    "no values": ({"space": {"fast": []}}, "space.fast", None),
    "too large a grid": (
        {"space": {"fast": {"low": 1, "high": 500}, "slow": {"low": 501, "high": 1001}}},
        "space",
        None,
    ),
    "too long a range": (ranged(1, 1e12), "space.fast", None),
    "a range beyond every float": (ranged(-1e308, 1e308), "space.fast", None),
    "a step that is next to nothing": (ranged(1, 2, step=5e-324), "space.fast", None),
    "an infinite range": (ranged(1, "Infinity"), "space.fast.high", None),
    "a range from nowhere": (ranged("nan", 5), "space.fast.low", None),
    "no step": (ranged(1, 5, step=0), "space.fast.step", None),
    "a step back": (ranged(1, 5, step=-1), "space.fast.step", None),
    "an endless step": (ranged(1, 5, step="inf"), "space.fast.step", None),
    "upside down": (ranged(5, 1), "space.fast", None),
    "half a range": ({"space": {"fast": {"low": 5}}}, "space.fast.high", None),
    "a misspelt range": (ranged(1, 5, stp=2), "space.fast.stp", "step"),
    "a range of words": (ranged("a", "z"), "space.fast.low", None),
    "a range of nothing": (ranged(None, 5), "space.fast.low", None),
    "text for values": ({"space": {"fast": "5,10"}}, "space.fast", None),
    "a number for values": ({"space": {"fast": 5}}, "space.fast", None),
    "null for values": ({"space": {"fast": None}}, "space.fast", None),
    "a null value": ({"space": {"fast": [5, None]}}, "space.fast.1", None),
    "a nested value": ({"space": {"fast": [[5]]}}, "space.fast.0", None),
    "a value that is an object": ({"space": {"fast": [{"low": 1}]}}, "space.fast.0", None),
    "a value of another type": ({"space": {"fast": [5, "many"]}}, "space.fast", None),
    "a fraction of a bar": ({"space": {"fast": [2.5]}}, "space.fast", None),
    "fractions in a range": (ranged(1, 2, step=0.5), "space.fast", None),
    "a value that is never taken": ({"space": {"fast": [5, 0]}}, "space.fast", None),
    "an enormous value": ({"space": {"fast": [10**18]}}, "space.fast", None),
    "space that is a list": ({"space": ["fast"]}, "space", None),
    "params that are a list": ({"params": ["fast"]}, "params", None),
    "a fixed value of another type": ({"params": {"slow": "many"}}, "params.slow", None),
    "a fixed value that is a list": ({"params": {"slow": [50]}}, "params.slow", None),
    "a fixed value that is null": ({"params": {"slow": None}}, "params.slow", None),
    "a fixed value that is not a number": ({"params": {"slow": "NaN"}}, "params.slow", None),
    "fixed and searched": ({"params": {"fast": 5}, "space": {"fast": [5]}}, "request", None),
    "unknown method": ({"method": "bayes"}, "method", None),
    "unknown objective": ({"objective": "sharp"}, "objective", "sharpe"),
    "trials of a grid": ({"trials": 10}, "request", None),
    "no trials": ({"method": "random", "trials": 0}, "trials", None),
    "too many trials": ({"method": "random", "trials": 250_001}, "trials", None),
    "trials in words": ({"method": "random", "trials": "ten"}, "trials", None),
    "half a trial": ({"method": "random", "trials": 1.5}, "trials", None),
    "fewer than no trades": ({"min_trades": -1}, "min_trades", None),
    "no drawdown": ({"max_drawdown": 0}, "max_drawdown", None),
    "a drawdown below nothing": ({"max_drawdown": -0.2}, "max_drawdown", None),
    "a drawdown that is not a number": ({"max_drawdown": "nan"}, "max_drawdown", None),
    "nothing on top": ({"top": 0}, "top", None),
    "too much on top": ({"top": 101}, "top", None),
    "a walk that is a flag": ({"walk_forward": True}, "walk_forward", None),
    "a walk of one": ({"walk_forward": {"windows": 1}}, "walk_forward.windows", None),
    "a walk without end": ({"walk_forward": {"train": "inf"}}, "walk_forward.train", None),
    "a walk that is misspelt": ({"walk_forward": {"anchord": True}}, "walk_forward.anchord", "anchored"),
    "a purge of what is to come": ({"walk_forward": {"purge": -1}}, "walk_forward.purge", None),
    "an embargo from the future": ({"walk_forward": {"embargo": -1}}, "walk_forward.embargo", None),
    "an embargo in words": ({"walk_forward": {"embargo": "a week"}}, "walk_forward.embargo", None),
    "patience with a grid": ({"patience": 10}, "request", None),
    "no patience": ({"method": "tpe", "patience": 0}, "patience", None),
    "too many trials of tpe": ({"method": "tpe", "trials": 5_001}, "request", None),
    "a misspelt patience": ({"method": "tpe", "patince": 10}, "patince", "patience"),
    "dates in disorder": ({"start": "2020-02-01", "end": "2020-01-01"}, "request", None),
    "a seed below nothing": ({"seed": -1}, "seed", None),
    "capital that is not a number": ({"capital": "NaN"}, "capital", None),
    "a path for a symbol": ({"symbol": "../../etc/passwd"}, "symbol", None),
    "a schema to come": ({"schema_version": 2}, "schema_version", None),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_by_name_and_reaches_nobody(
    engine_api: Engine, prefect: Prefect, name: str
) -> None:
    wrong, field, nearest = WRONG[name]
    before = runs(prefect)
    answer = engine_api.http.post(ROUTES[0], json={**ASKED, **wrong})
    assert answer.status_code == 422, answer.text
    errors = {each["field"]: each for each in answer.json()["errors"]}
    assert errors.keys() >= {field}
    assert errors[field]["nearest"] == nearest
    assert not any("union[" in each or "function-" in each for each in errors), "pydantic's own words"
    assert len(answer.content) < 20_000
    assert runs(prefect) == before


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("fast is both fixed by params and searched by space", WRONG["fixed and searched"][0]),
        ("patience is for method random or tpe", WRONG["patience with a grid"][0]),
        ("trials 5,001 are more than tpe takes", WRONG["too many trials of tpe"][0]),
        ("trials is for method random or tpe", WRONG["trials of a grid"][0]),
        ("has 250,500 combinations", WRONG["too large a grid"][0]),
    ],
)
def test_a_contradiction_is_told_in_words(engine_api: Engine, message: str, wrong: dict[str, Any]) -> None:
    answer = engine_api.http.post(ROUTES[1], json={**ASKED, **wrong})
    assert message in problem(answer, 422, "refused-input")["detail"]


def test_every_wrong_field_is_named_at_once(engine_api: Engine) -> None:
    wrong = {
        "top": 0,
        "objective": "luck",
        "walk_forward": {"windows": 0},
        "space": {"fast": [None], "slow": 5},
    }
    answer = engine_api.http.post(ROUTES[0], json={**ASKED, **wrong})
    document = problem(answer, 422, "refused-input")
    fields = {each["field"] for each in document["errors"]}
    assert fields == {"top", "objective", "walk_forward.windows", "space.fast.0", "space.slow"}


def test_a_users_strategy_must_be_stored(engine_api: Engine, prefect: Prefect) -> None:
    before = runs(prefect)
    answer = engine_api.http.post(ROUTES[0], json={"symbol": "ACME", "strategy": UNKNOWN_FILE})
    assert "POST its file to /api/v1/strategies" in problem(answer, 404, "not-found")["detail"]
    assert runs(prefect) == before


@pytest.mark.parametrize(
    "body",
    [b'{"symbol": "ACME", "space": {"fast": [NaN]}}', b'{"symbol": "ACME", "capital": 1e999}', b"{", b""],
)
def test_what_is_no_json_is_malformed(engine_api: Engine, prefect: Prefect, body: bytes) -> None:
    before = runs(prefect)
    headers = {"Content-Type": "application/json"}
    assert engine_api.http.post(ROUTES[0], content=body, headers=headers).status_code == 400
    assert runs(prefect) == before


def test_a_space_of_a_great_many_parameters_is_refused(engine_api: Engine, prefect: Prefect) -> None:
    before = runs(prefect)
    wide = {f"p{number}": [1] for number in range(5000)}
    answer = engine_api.http.post(ROUTES[0], json={**ASKED, "space": wide})
    assert answer.status_code == 422, answer.text
    assert len(answer.content) < 20_000
    assert runs(prefect) == before


def test_only_who_may_research_may_search(engine_api: Engine, prefect: Prefect) -> None:
    before = runs(prefect)
    eve = {"Authorization": "Bearer key-of-eve"}
    problem(engine_api.http.post(ROUTES[0], json=ASKED, headers=eve), 403, "denied")
    nobody = httpx.post(f"{engine_api.url}/api/v1{ROUTES[0]}", json=ASKED, timeout=20)
    problem(nobody, 401, "unauthenticated")
    assert runs(prefect) == before


def test_the_methods_are_an_enumeration_of_the_documentation(engine_api: Engine) -> None:
    document = engine_api.http.get(f"{engine_api.url}/api/v1/openapi.json").json()
    properties = document["components"]["schemas"]["OptimizeRequest"]["properties"]
    assert properties["method"]["enum"] == ["grid", "random", "tpe"]
    assert properties["patience"]["anyOf"][0]["minimum"] == 1
    assert "embargo" in document["components"]["schemas"]["WalkForward"]["properties"]
