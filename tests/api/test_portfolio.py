"""Admission of portfolios: everything that can be known to be wrong is refused by name and reaches nobody."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from tests.api.conftest import Engine, Prefect
from tests.api.test_health_and_errors import problem
from tests.api.test_optimize import UNKNOWN_FILE, runs

ROUTES = ("/portfolio/backtest", "/workflows/portfolio/runs")
ASKED = {"symbols": ["ACME", "AAPL"]}  # one is in the lake, one in the source's list


@pytest.mark.parametrize("route", ROUTES)
def test_a_good_request_is_accepted_and_reaches_prefect_whole(
    engine_api: Engine, prefect: Prefect, route: str
) -> None:
    asked = {"weight": {"acme": 0.6, "AAPL": 0.3}, "rebalance": "quarter", "drift": 0.1}
    answer = engine_api.http.post(route, json=asked)
    assert answer.status_code == 202, answer.text
    accepted = answer.json()
    run_id = accepted["run_id"]
    assert (accepted["flow"], accepted["state"]) == ("portfolio", "SCHEDULED")
    assert answer.headers["location"] == accepted["links"]["self"] == f"/api/v1/workflows/runs/{run_id}"
    sent = prefect.http.get(f"/flow_runs/{run_id}").json()
    whole = {**asked, "symbols": ["AAPL", "ACME"], "weights": "given", "weight": {"AAPL": 0.3, "ACME": 0.6}}
    assert sent["parameters"]["request"].items() >= whole.items()
    assert {"slice:portfolio", "symbol:ACME", "symbol:AAPL"} <= set(sent["tags"])
    assert engine_api.context.runs.get(UUID(run_id)).owner == "local"


WRONG: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "no symbols": ({"symbols": []}, "symbols", None),
    "one symbol": ({"symbols": ["ACME"]}, "symbols", None),
    "text for symbols": ({"symbols": "ACME,AAPL"}, "symbols", None),
    "an unknown symbol": ({"symbols": ["ACME", "AAPLE"]}, "symbol", "AAPL"),
    "a path for a symbol": ({"symbols": ["ACME", "../../etc/passwd"]}, "symbols.1", None),
    "an unknown method": ({"weights": "equl"}, "weights", "equal"),
    "a weight of another symbol": ({"weight": {"ACNE": 0.5, "AAPL": 0.5}}, "weight", "ACME"),
    "a weight below nothing": ({"weight": {"ACME": -0.5, "AAPL": 0.5}}, "weight.ACME", None),
    "a weight that is text": ({"weight": {"ACME": "much", "AAPL": 0.5}}, "weight.ACME", None),
    "weights that are a list": ({"weight": [0.5, 0.5]}, "weight", None),
    "more than all": ({"weight": {"ACME": 0.6, "AAPL": 0.5}}, "request", None),
    "an unknown strategy": ({"strategy": "momentun"}, "strategy", "momentum"),
    "an unknown parameter": ({"strategy": "momentum", "params": {"hlod": 3}}, "params.hlod", "hold"),
    "a parameter of another type": (
        {"strategy": "momentum", "params": {"hold": "long"}},
        "params.hold",
        None,
    ),
    "short": ({"direction": "short"}, "direction", None),
    "a misspelt field": ({"rebalanse": "month"}, "rebalanse", "rebalance"),
    "leverage": ({"exposure": 2}, "exposure", None),
    "an endless drift": ({"drift": "inf"}, "drift", None),
    "capital that is not a number": ({"capital": "NaN"}, "capital", None),
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
    assert runs(prefect) == before


def test_a_users_strategy_must_be_stored(engine_api: Engine, prefect: Prefect) -> None:
    before = runs(prefect)
    answer = engine_api.http.post(ROUTES[0], json={**ASKED, "strategy": UNKNOWN_FILE})
    assert "POST its file to /api/v1/strategies" in problem(answer, 404, "not-found")["detail"]
    assert runs(prefect) == before


def test_only_who_may_research_may_simulate(engine_api: Engine, prefect: Prefect) -> None:
    before = runs(prefect)
    eve = {"Authorization": "Bearer key-of-eve"}
    problem(engine_api.http.post(ROUTES[0], json=ASKED, headers=eve), 403, "denied")
    assert runs(prefect) == before
