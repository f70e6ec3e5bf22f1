"""Comparing finished runs, and the route that walks forward: what is answered, refused, and hidden from others."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
import pyarrow as pa
import pytest

from api.routes.compare import ComparisonView
from storage.runs import RunOutput
from tests.api.conftest import Engine, Prefect
from tests.api.test_health_and_errors import problem
from tests.api.test_runs import BOB, EVE

COMPARE = "/strategies/compare"
WALK = "/strategies/walk-forward"
ASKED = {"symbol": "ACME", "strategy": "ma_crossover"}


def finished(engine: Engine, sharpe: float | None, *, bars: int = 30, **request: Any) -> str:
    """Start a backtest and save a result as it does; return the run's id."""
    run_id: str = engine.start(**request)["run_id"]
    return keep(engine, run_id, bars, metrics={"sharpe": sharpe, "total_return": 0.25})


def keep(engine: Engine, run_id: str, bars: int = 30, **summary: Any) -> str:
    time = pa.array(np.arange("2020-01-01", bars, dtype="datetime64[D]").astype("datetime64[us]"))
    equity = 10_000 * np.cumprod(1 + np.sin(np.arange(bars) + bars) / 50)
    said = {
        "symbol": "ACME", "timeframe": "1d", "strategy": "momentum", "params": {"lookback": 20}, "start": "2020-01-01",
        "end": f"2020-01-{bars}", "bars": bars, "snapshot_id": "snap", "bars_hash": "bars", "result_hash": "ab" * 32,
        "warnings": [], **summary,
    }  # fmt: skip
    table = pa.table({"time": time.cast(pa.timestamp("us", tz="UTC")), "equity": equity})
    engine.context.runs.save_result(UUID(run_id), RunOutput("ab" * 32, said, {"equity": table}))
    return run_id


def compared(engine: Engine, *run_ids: str, **query: Any) -> httpx.Response:
    return engine.http.get(COMPARE, params={"runs": list(run_ids), **query})


def test_runs_stand_side_by_side(engine_api: Engine) -> None:
    first, second = finished(engine_api, 0.5), finished(engine_api, 1.5, bars=20, capital=5000, commission=0)
    answer = compared(engine_api, first, second)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert ComparisonView.model_validate(found).model_dump(mode="json") == found
    assert [run["run_id"] for run in found["runs"]] == [first, second]
    assert (
        found["runs"][1]["terms"].items() >= {"capital": 5000.0, "commission": 0, "stop_loss": None}.items()
    )
    assert found["best"]["sharpe"] == [second]
    assert found["best"]["total_return"] == [first, second]
    told = {warning["field"]: warning["values"] for warning in found["warnings"]}
    assert told == {
        "range": {first: "2020-01-01 to 2020-01-30", second: "2020-01-01 to 2020-01-20"},
        "capital": {first: 10000, second: 5000},
        "commission": {first: 0.001, second: 0},
    }
    assert found["curves"]["bars"] == 20
    assert found["curves"]["growth"].keys() == {first, second}
    assert all(curve[0] == 1 and len(curve) == 20 for curve in found["curves"]["growth"].values())
    assert found["correlation"]["returns"] == 19
    assert found["correlation"]["values"][0][0] == 1


def test_ids_may_be_separated_by_commas_and_sorted(engine_api: Engine) -> None:
    runs = [finished(engine_api, sharpe) for sharpe in (0.5, None, 2.0)]
    answer = compared(engine_api, ",".join(runs[:2]), runs[2], sort="sharpe")
    assert [run["run_id"] for run in answer.json()["runs"]] == [runs[2], runs[0], runs[1]]


def test_an_optimization_is_its_best(engine_api: Engine) -> None:
    run_id = engine_api.http.post("/strategies/optimize", json=ASKED).json()["run_id"]
    best = {"params": {"fast": 5, "slow": 20}, "metrics": {"sharpe": 3.0}, "result_hash": "cd" * 32}
    keep(engine_api, run_id, best=best, overfitting={"trials": 12, "verdict": "reject"})
    found = compared(engine_api, finished(engine_api, 0.5), run_id).json()
    assert (
        found["runs"][1].items() >= {"flow": "optimize", **best, "chosen_of": 12, "verdict": "reject"}.items()
    )
    assert found["best"]["sharpe"] == [run_id]
    assert [warning["field"] for warning in found["warnings"]] == ["trials"]


def test_the_page_comes_by_accept(engine_api: Engine) -> None:
    runs = [finished(engine_api, 0.5), finished(engine_api, 1.0)]
    page = engine_api.http.get(COMPARE, params={"runs": runs}, headers={"Accept": "text/html"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<h1>2 runs on ACME</h1>" in page.text
    assert all(run_id in page.text for run_id in runs)
    other = engine_api.http.get(COMPARE, params={"runs": runs}, headers={"Accept": "image/png"})
    problem(other, 406, "not-acceptable")


def test_a_thousand_dates_are_thinned_to_what_is_asked(engine_api: Engine) -> None:
    runs = [finished(engine_api, 0.5, bars=1000), finished(engine_api, 1.0, bars=1000)]
    curves = compared(engine_api, *runs, points=50).json()["curves"]
    assert curves["bars"] == 1000
    assert len(curves["time"]) <= 50
    problem(compared(engine_api, *runs, points=49), 422, "refused-input")


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([], "runs: is missing"),
        ([""], "are 0 runs; allowed: 2 to 20 runs"),
        ([str(uuid4())], "is one run; allowed: 2 to 20 runs"),
        ([str(uuid4()) for _ in range(21)], "are 21 runs; allowed: 2 to 20 runs"),
        (["../../etc/passwd", "'; DROP"], "'../../etc/passwd' is not a run's id"),
        ([f"{0:032x}", f"{0:032X}"], "is given twice"),
    ],
    ids=["missing", "empty", "one", "21", "words", "twice"],
)
def test_what_cannot_be_compared_is_refused(engine_api: Engine, runs: list[str], said: str) -> None:
    document = problem(compared(engine_api, *runs), 422, "refused-input")
    assert said in document["detail"]
    assert document["errors"][0]["field"] == "runs"


def test_unknown_unfinished_and_without_metrics(engine_api: Engine) -> None:
    good, going = finished(engine_api, 0.5), engine_api.start()["run_id"]
    unknown = str(uuid4())
    assert unknown in problem(compared(engine_api, good, unknown), 404, "not-found")["detail"]
    assert (
        f"run {going} has no result" in problem(compared(engine_api, good, going), 409, "conflict")["detail"]
    )
    ingest = engine_api.http.post("/market/ingest", json={"symbols": ["AAPL"], "source": "sample"}).json()[
        "run_id"
    ]
    keep(engine_api, ingest)
    refused = problem(compared(engine_api, good, ingest), 422, "refused-input")
    assert "is a run of data, which has no metrics" in refused["detail"]


def test_an_unknown_metric_to_sort_by_names_the_nearest(engine_api: Engine) -> None:
    runs = [finished(engine_api, 0.5), finished(engine_api, 1.0)]
    document = problem(compared(engine_api, *runs, sort="sharp"), 422, "unknown-name")
    assert document["errors"][0]["nearest"] == "sharpe"


def test_nobody_compares_anothers_runs(engine_api: Engine) -> None:
    runs = [finished(engine_api, 0.5), finished(engine_api, 1.0)]
    hidden = engine_api.http.get(COMPARE, params={"runs": runs}, headers=BOB)
    assert problem(hidden, 404, "not-found")["detail"].startswith(f"no run {runs[0]}")
    address = f"{engine_api.url}/api/v1{COMPARE}"
    problem(httpx.get(address, params={"runs": runs}, timeout=20), 401, "unauthenticated")


def test_a_strategys_own_route_is_as_before(engine_api: Engine) -> None:
    assert engine_api.http.get("/strategies/momentum").json()["name"] == "momentum"


def test_documented(engine_api: Engine) -> None:
    paths = engine_api.http.get("/openapi.json").json()["paths"]
    described = paths["/api/v1/strategies/compare"]["get"]
    assert described["responses"]["200"]["content"].keys() == {"application/json", "text/html"}
    body = paths["/api/v1/strategies/walk-forward"]["post"]["requestBody"]
    assert "OptimizeRequest" in str(body)


@pytest.mark.parametrize("given", [{}, {"walk_forward": None}, {"walk_forward": {}}], ids=str)
def test_walking_forward_has_defaults(engine_api: Engine, prefect: Prefect, given: dict[str, Any]) -> None:
    answer = engine_api.http.post(WALK, json={**ASKED, **given})
    assert answer.status_code == 202, answer.text
    accepted = answer.json()
    assert accepted["flow"] == "optimize"
    assert answer.headers["location"] == accepted["links"]["self"]
    sent = prefect.http.get(f"/flow_runs/{accepted['run_id']}").json()["parameters"]["request"][
        "walk_forward"
    ]
    assert (sent["windows"], sent["train"], sent["anchored"]) == (8, 4.0, False)


def test_walking_forward_is_an_optimization_like_any(engine_api: Engine, prefect: Prefect) -> None:
    body = {**ASKED, "walk_forward": {"windows": 3}, "objective": "calmar"}
    key = {"Idempotency-Key": uuid4().hex}
    first = engine_api.http.post(WALK, json=body, headers=key).json()["run_id"]
    again = engine_api.http.post(WALK, json=body, headers=key).json()["run_id"]
    same = engine_api.http.post("/strategies/optimize", json=body, headers=key).json()["run_id"]
    assert first == again == same
    without = {name: value for name, value in body.items() if name != "walk_forward"}
    problem(engine_api.http.post(WALK, json=without, headers=key), 409, "conflict")
    sent = prefect.http.get(f"/flow_runs/{first}").json()["parameters"]["request"]
    assert (sent["walk_forward"]["windows"], sent["objective"]) == (3, "calmar")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"walk_forward": True}, "walk_forward"),
        ({"walk_forward": {"windows": 1}}, "walk_forward.windows"),
        ({"symbol": "ACNE"}, "symbol"),
        ({"objective": "luck"}, "objective"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_walk_is_named(engine_api: Engine, wrong: dict[str, Any], field: str) -> None:
    answer = engine_api.http.post(WALK, json={**ASKED, **wrong})
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == [field]
    problem(engine_api.http.post(WALK, content=b"[]"), 422, "refused-input")
    problem(engine_api.http.post(WALK, json=ASKED, headers=EVE), 403, "denied")
