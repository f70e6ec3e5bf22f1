"""Runs: admission, submission once a key, lists, results, cancelling, reproducing, and whose they are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from gpt_trader.report_links import report_url
from gpt_trader.settings import Home
from gpt_trader.slices import SLICES
from storage.runs import RunOutput
from tests.api.conftest import Engine, Prefect, fill_lake, free_port, serving
from tests.api.test_health_and_errors import problem

BOB = {"Authorization": "Bearer key-of-bob"}
EVE = {"Authorization": "Bearer key-of-eve"}


def finish(engine: Engine, prefect: Prefect, run_id: str) -> dict[str, Any]:
    """Save a result as a run does, and let Prefect know."""
    summary = {"run_id": run_id, "state": "COMPLETED", "metrics": {"trades": 1}}
    store = engine.context.runs
    equity = pa.table({"time": [1, 2], "equity": [10_000.0, 10_001.5]})
    snapshot = engine.context.lake.current()
    assert snapshot is not None
    store.save_result(UUID(run_id), RunOutput("ab" * 32, summary, {"equity": equity}, snapshot.id))
    store.save_artifact(UUID(run_id), "report", b"<!doctype html><title>Report</title>")
    store.save_artifact(UUID(run_id), "picture", b"\x89PNG")
    prefect.set_state(run_id, "COMPLETED")
    return summary


@pytest.mark.parametrize("route", ["/strategies/backtest", "/workflows/backtest/runs"])
def test_a_run_is_accepted_with_its_links_and_reaches_prefect(
    engine_api: Engine, prefect: Prefect, route: str
) -> None:
    answer = engine_api.http.post(route, json={"symbol": "acme", "params": {"lookback": 7}})
    assert answer.status_code == 202, answer.text
    accepted = answer.json()
    run_id = accepted["run_id"]
    assert answer.headers["location"] == accepted["links"]["self"] == f"/api/v1/workflows/runs/{run_id}"
    assert (accepted["flow"], accepted["state"]) == ("backtest", "SCHEDULED")

    flow_run = prefect.http.get(f"/flow_runs/{run_id}").json()
    assert flow_run["parameters"]["request"]["symbol"] == "ACME"
    assert flow_run["parameters"]["request"]["params"] == {"lookback": 7}
    assert {"owner:local", "slice:backtest", "symbol:ACME", "strategy:momentum"} <= set(flow_run["tags"])

    shown = engine_api.http.get(f"/workflows/runs/{run_id}").json()
    assert shown["request"]["symbol"] == "ACME"
    assert (shown["owner"], shown["state"], shown["result_hash"]) == ("local", "SCHEDULED", None)
    assert engine_api.context.runs.get(UUID(run_id)).owner == "local"


@pytest.mark.parametrize(
    ("request_", "field", "nearest"),
    [
        ({"symbol": "ACME", "strategy": "momentun"}, "strategy", "momentum"),
        ({"symbol": "ACNE"}, "symbol", "ACME"),
        ({"symbol": "ACME", "params": {"lokback": 3}}, "params.lokback", "lookback"),
        ({"symbol": "ACME", "params": {"direction": "both"}}, "params.direction", None),
        ({"symbol": "ACME", "strategy": "ma_crossover", "params": {"fast": 30, "slow": 10}}, "params", None),
        ({"symbol": "ACME", "start": "2020-02-01", "end": "2020-01-01"}, "request", None),
        ({"symbol": "ACME", "capital": "NaN"}, "capital", None),
        ({"symbol": "../../x"}, "symbol", None),
        ({"symbol": "ACME", "source": "smaple"}, "source", "sample"),
        ({"symbol": "ACME", "comission": 0.1}, "comission", "commission"),
    ],
)
def test_what_is_wrong_is_refused_by_name_and_reaches_nobody(
    engine_api: Engine, prefect: Prefect, request_: dict[str, Any], field: str, nearest: str | None
) -> None:
    before = prefect.http.post("/flow_runs/count", json={}).json()
    answer = engine_api.http.post("/strategies/backtest", json=request_)
    assert answer.status_code == 422, answer.text
    errors = {each["field"]: each for each in answer.json()["errors"]}
    assert errors[field]["nearest"] == nearest
    assert prefect.http.post("/flow_runs/count", json={}).json() == before


def test_a_symbol_that_only_the_source_has_is_accepted(engine_api: Engine) -> None:
    assert engine_api.start(symbol="AAPL")["state"] == "SCHEDULED"


def test_a_snapshot_must_exist_and_hold_the_symbol(engine_api: Engine) -> None:
    answer = engine_api.http.post("/strategies/backtest", json={"symbol": "ACME", "snapshot": "f" * 32})
    problem(answer, 404, "not-found")
    current = engine_api.context.lake.current()
    assert current is not None
    pinned = engine_api.http.post("/strategies/backtest", json={"symbol": "AAPL", "snapshot": current.id})
    problem(pinned, 422, "unknown-name")
    assert engine_api.start(snapshot=current.id)["flow"] == "backtest"


def test_ingest_checks_source_symbols_and_files(engine_api: Engine) -> None:
    post = engine_api.http.post
    assert post("/market/ingest", json={"symbols": ["AAPL"]}).json()["flow"] == "data"
    unknown = problem(post("/market/ingest", json={"symbols": ["AAPLE"]}), 422, "unknown-name")
    assert unknown["errors"][0]["nearest"] == "AAPL"
    problem(post("/market/ingest", json={"source": "yaho"}), 422, "unknown-name")
    file = {"source": "csv", "symbols": ["X"], "file": "bars.csv"}
    assert "absolute" in problem(post("/market/ingest", json=file), 422, "refused-input")["detail"]
    problem(post("/market/ingest", json=file | {"file": "/no/such.csv"}), 404, "not-found")
    denied = post("/market/ingest", json=file | {"file": "/etc/passwd"}, headers=BOB)
    problem(denied, 403, "denied")


def test_the_same_key_gives_the_same_run_and_another_body_is_refused(engine_api: Engine) -> None:
    headers = {"Idempotency-Key": uuid4().hex}
    first = engine_api.http.post("/strategies/backtest", json={"symbol": "ACME"}, headers=headers)
    again = engine_api.http.post("/workflows/backtest/runs", json={"symbol": "acme"}, headers=headers)
    assert first.status_code == again.status_code == 202
    assert first.json()["run_id"] == again.json()["run_id"]
    other = engine_api.http.post("/strategies/backtest", json={"symbol": "AAPL"}, headers=headers)
    problem(other, 409, "conflict")
    slice_ = engine_api.http.post("/market/ingest", json={"symbols": ["AAPL"]}, headers=headers)
    problem(slice_, 409, "conflict")
    bobs = engine_api.http.post("/strategies/backtest", json={"symbol": "AAPL"}, headers=headers | BOB)
    assert bobs.status_code == 202  # a key is its owner's own
    assert bobs.json()["run_id"] != first.json()["run_id"]


def test_one_key_sent_at_once_by_many_is_one_run(engine_api: Engine, prefect: Prefect) -> None:
    key = uuid4().hex

    def send(_: int) -> str:
        answer = httpx.post(
            f"{engine_api.url}/api/v1/strategies/backtest",
            json={"symbol": "ACME", "seed": 77},
            headers={"Authorization": f"Bearer {engine_api.key}", "Idempotency-Key": key},
            timeout=20,
        )
        assert answer.status_code == 202, answer.text
        run_id: str = answer.json()["run_id"]
        return run_id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(send, range(8)))
    assert len(ids) == 1
    filters = {"flow_runs": {"idempotency_key": {"any_": [f"local:{key}"]}}}
    assert len(prefect.http.post("/flow_runs/filter", json=filters).json()) == 1


def test_a_crash_between_claim_and_record_submits_nothing_twice(engine_api: Engine, prefect: Prefect) -> None:
    key = uuid4().hex
    headers = {"Idempotency-Key": key}
    first = engine_api.http.post("/strategies/backtest", json={"symbol": "ACME"}, headers=headers).json()
    with engine_api.context.database.begin() as connection:  # as if we had died before writing the run down
        connection.exec_driver_sql("UPDATE idempotency_keys SET run_id = NULL WHERE key = %s", (key,))
    again = engine_api.http.post("/strategies/backtest", json={"symbol": "ACME"}, headers=headers).json()
    assert again["run_id"] == first["run_id"]


@pytest.mark.parametrize("key", ["", "x" * 201, "a b", "ünicode"])
def test_a_key_that_is_none_is_refused(engine_api: Engine, key: str) -> None:
    headers = {"Idempotency-Key": key.encode()}
    answer = engine_api.http.post("/strategies/backtest", json={"symbol": "ACME"}, headers=headers)
    problem(answer, 422, "refused-input")


def test_lists_filter_and_page_without_loss_or_repetition(engine_api: Engine, prefect: Prefect) -> None:
    started = [engine_api.start(seed=seed)["run_id"] for seed in range(7)]
    prefect.set_state(started[0], "FAILED", "no luck")
    get = engine_api.http.get
    oldest = get(f"/workflows/runs/{started[0]}").json()
    query = {"since": oldest["created_at"], "limit": 3, "name": "backtest"}
    found: list[str] = []
    cursor: dict[str, Any] = {}
    for _ in range(10):
        page = get("/workflows/runs", params={**query, **cursor}).json()
        assert len(page["items"]) <= 3
        found += [each["run_id"] for each in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert set(started) - {started[0]} <= set(found)
    assert len(found) == len(set(found))
    ours = [run for run in found if run in started]
    assert ours == started[::-1][: len(ours)]  # newest first

    failed = get("/workflows/runs", params={"state": "FAILED", "tag": "symbol:ACME"}).json()["items"]
    assert started[0] in {each["run_id"] for each in failed}
    assert {each["state"] for each in failed} == {"FAILED"}
    assert failed[0]["message"]
    assert get("/workflows/runs", params={"tag": ["symbol:ACME", "owner:nobody"]}).json()["items"] == []
    problem(get("/workflows/runs", params={"tag": "a\0b"}), 422, "refused-input")
    assert get("/workflows/runs", params={"until": "2001-01-01T00:00:00Z"}).json()["items"] == []
    problem(get("/workflows/runs", params={"name": "nope"}), 404, "not-found")
    problem(get("/workflows/runs", params={"state": "DONE"}), 422, "refused-input")
    for hostile in ("x", "WzEsMl0", "bnVsbA"):
        problem(get("/workflows/runs", params={"cursor": hostile}), 422, "refused-input")


def test_a_result_is_409_until_it_is_there(engine_api: Engine, prefect: Prefect) -> None:
    run_id = engine_api.start()["run_id"]
    get = engine_api.http.get
    for part in ("result", "report", "report.png", "artifacts/equity"):
        assert "SCHEDULED" in problem(get(f"/workflows/runs/{run_id}/{part}"), 409, "conflict")["detail"]
    prefect.set_state(run_id, "FAILED", "the disk is full")
    failed = problem(get(f"/workflows/runs/{run_id}/result"), 409, "conflict")
    assert "FAILED: the disk is full" in failed["detail"]


def test_a_finished_run_gives_result_report_and_series(engine_api: Engine, prefect: Prefect) -> None:
    run_id = engine_api.start()["run_id"]
    summary = finish(engine_api, prefect, run_id)
    get = engine_api.http.get
    result = get(f"/workflows/runs/{run_id}/result").json()
    assert summary.items() <= result.items()
    assert (result["run_id"], result["flow"], result["state"]) == (run_id, "backtest", "COMPLETED")
    assert set(result["artifacts"]) == {"equity", "picture", "report"}
    assert all(Path(path).is_file() for path in result["artifacts"].values())
    assert result["links"]["report"].endswith(f"{run_id}/report")
    shown = get(f"/workflows/runs/{run_id}").json()
    assert (shown["state"], shown["result_hash"]) == ("COMPLETED", "ab" * 32)
    assert shown["artifacts"] == ["equity", "picture", "report"]

    report = get(f"/workflows/runs/{run_id}/report")
    assert report.headers["content-type"].startswith("text/html")
    assert "sandbox" in report.headers["content-security-policy"]
    assert "<title>Report" in report.text
    assert get(f"/workflows/runs/{run_id}/report.png").headers["content-type"] == "image/png"

    parquet = get(f"/workflows/runs/{run_id}/artifacts/equity")
    assert pq.read_table(pa.BufferReader(parquet.content)).column("equity").to_pylist() == [
        10_000.0,
        10_001.5,
    ]
    csv = get(f"/workflows/runs/{run_id}/artifacts/equity", headers={"Accept": "text/csv"})
    assert pa_csv.read_csv(pa.BufferReader(csv.content)).column("equity").to_pylist() == [10_000.0, 10_001.5]
    assert "run has no trades" in problem(
        get(f"/workflows/runs/{run_id}/artifacts/trades"), 404, "not-found"
    )["detail"].replace(f" {run_id}", "")
    problem(get(f"/workflows/runs/{run_id}/artifacts/report"), 422, "refused-input")


def test_reproduce_pins_the_recorded_request_to_the_recorded_snapshot(
    engine_api: Engine, prefect: Prefect
) -> None:
    run_id = engine_api.start(seed=5)["run_id"]
    problem(engine_api.http.post(f"/workflows/runs/{run_id}/reproduce"), 409, "conflict")
    finish(engine_api, prefect, run_id)
    headers = {"Idempotency-Key": uuid4().hex}
    accepted = engine_api.http.post(f"/workflows/runs/{run_id}/reproduce", headers=headers)
    assert accepted.status_code == 202, accepted.text
    anew = engine_api.http.get(accepted.headers["location"].removeprefix("/api/v1")).json()
    assert anew["run_id"] != run_id
    assert anew["request"]["seed"] == 5
    assert anew["request"]["snapshot"] == engine_api.context.runs.get(UUID(run_id)).snapshot_id
    assert f"reproduces:{run_id}" in anew["tags"]
    again = engine_api.http.post(f"/workflows/runs/{run_id}/reproduce", headers=headers)
    assert again.json()["run_id"] == anew["run_id"]


def test_what_changes_the_lake_cannot_be_reproduced(engine_api: Engine, prefect: Prefect) -> None:
    run_id = engine_api.http.post("/market/ingest", json={"symbols": ["AAPL"]}).json()["run_id"]
    finish(engine_api, prefect, run_id)
    problem(engine_api.http.post(f"/workflows/runs/{run_id}/reproduce"), 409, "conflict")


def test_cancel_ends_a_waiting_run_and_refuses_an_ended_one(engine_api: Engine) -> None:
    run_id = engine_api.start()["run_id"]
    cancelled = engine_api.http.post(f"/workflows/runs/{run_id}/cancel")
    assert cancelled.status_code == 202
    assert cancelled.json()["state"] == "CANCELLED"  # no process ran it yet, so nothing has to stop
    document = problem(engine_api.http.post(f"/workflows/runs/{run_id}/cancel"), 409, "conflict")
    assert "CANCELLED" in document["detail"]


def test_logs_come_oldest_first_and_page(engine_api: Engine, prefect: Prefect) -> None:
    run_id = engine_api.start()["run_id"]
    lines = [
        {
            "name": "prefect.flow_runs",
            "level": 20 + 10 * (n % 2),
            "message": f"line {n}",
            "timestamp": f"2026-01-01T00:00:0{n}Z",
            "flow_run_id": run_id,
        }
        for n in range(5)
    ]
    prefect.http.post("/logs/", json=lines).raise_for_status()
    get = engine_api.http.get
    first = get(f"/workflows/runs/{run_id}/logs", params={"limit": 3}).json()
    second = get(f"/workflows/runs/{run_id}/logs", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [each["message"] for each in first["items"] + second["items"]] == [f"line {n}" for n in range(5)]
    assert second["next_cursor"] is None
    assert first["items"][1] == {"at": "2026-01-01T00:00:01Z", "level": "WARNING", "message": "line 1"}


def test_anothers_run_is_not_there(engine_api: Engine, prefect: Prefect) -> None:
    mine = engine_api.start()["run_id"]
    finish(engine_api, prefect, mine)
    bobs = engine_api.http.post("/strategies/backtest", json={"symbol": "ACME"}, headers=BOB).json()["run_id"]
    nobodys = str(uuid4())
    for run_id in (mine, nobodys):
        for part in ("", "/result", "/report", "/report.png", "/artifacts/equity", "/logs", "/events"):
            answer = engine_api.http.get(f"/workflows/runs/{run_id}{part}", headers=BOB)
            problem(answer, 404, "not-found")
        for action in ("cancel", "reproduce"):
            answer = engine_api.http.post(f"/workflows/runs/{run_id}/{action}", headers=BOB)
            problem(answer, 404, "not-found")
    listed = engine_api.http.get("/workflows/runs", headers=BOB).json()["items"]
    assert {each["owner"] for each in listed} == {"bob"}
    assert engine_api.http.get(f"/workflows/runs/{bobs}", headers=BOB).status_code == 200
    assert engine_api.http.get(f"/workflows/runs/{bobs}").status_code == 200  # the local key is an admin


def test_a_reader_may_not_start_or_cancel(engine_api: Engine) -> None:
    denied = engine_api.http.post("/strategies/backtest", json={"symbol": "ACME"}, headers=EVE)
    assert "'research'" in problem(denied, 403, "denied")["detail"]
    problem(
        engine_api.http.post("/strategies", json={"filename": "a", "source": "b"}, headers=BOB), 403, "denied"
    )
    assert engine_api.http.get("/workflows", headers=EVE).status_code == 200


def test_workflows_show_schema_and_deployment(engine_api: Engine) -> None:
    items = {each["name"]: each for each in engine_api.http.get("/workflows").json()["items"]}
    assert set(items) == set(SLICES)
    backtest = items["backtest"]
    assert backtest["deployed"] is True
    assert backtest["deployment"] == "backtest/backtest"
    assert backtest["request_schema"]["properties"]["symbol"]
    assert engine_api.http.get("/workflows/backtest").json() == backtest
    unknown = problem(engine_api.http.get("/workflows/backtst"), 404, "not-found")
    assert unknown["errors"][0]["nearest"] == "backtest"
    problem(engine_api.http.post("/workflows/backtst/runs", json={"symbol": "ACME"}), 404, "not-found")


def test_a_deployment_made_anew_is_found(engine_api: Engine, prefect: Prefect) -> None:
    engine_api.start()
    known = prefect.http.get("/deployments/name/backtest/backtest").json()
    prefect.http.delete(f"/deployments/{known['id']}").raise_for_status()
    gone = engine_api.http.post("/strategies/backtest", json={"symbol": "ACME"})
    assert "not deployed" in problem(gone, 503, "engine-unreachable")["detail"]
    prefect.deploy("backtest")
    assert engine_api.start()["flow"] == "backtest"


def test_without_prefect_what_needs_it_is_503_and_the_rest_works(engine_api: Engine, tmp_path: Any) -> None:
    home = Home(tmp_path / "home")
    fill_lake(home)
    with serving(engine_api.settings, home, f"http://127.0.0.1:{free_port()}/api") as alone:
        ready = alone.http.get("/system/health/ready")
        assert ready.status_code == 503
        assert ready.json()["parts"]["prefect"]["state"] == "down"
        answer = alone.http.post("/strategies/backtest", json={"symbol": "ACME"})
        assert "gpt-trader up" in problem(answer, 503, "engine-unreachable")["detail"]
        problem(alone.http.get("/workflows"), 503, "engine-unreachable")
        assert alone.http.get("/market/bars/ACME").status_code == 200


def test_a_reports_link_opens_that_report_and_nothing_else(engine_api: Engine, prefect: Prefect) -> None:
    mine, other = (engine_api.start()["run_id"] for _ in range(2))
    for run_id in (mine, other):
        finish(engine_api, prefect, run_id)
    link = httpx.URL(report_url(engine_api.url, engine_api.key, mine))
    ticket = link.params["ticket"]
    assert engine_api.key not in str(link)
    page = httpx.get(link)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    problem(httpx.get(str(link).replace(mine, other)), 401, "unauthenticated")
    problem(
        httpx.get(f"{engine_api.url}/api/v1/workflows/runs/{mine}/report?ticket=0"), 401, "unauthenticated"
    )
    for part in ("result", "logs", "report.png", "events"):
        url = f"{engine_api.url}/api/v1/workflows/runs/{mine}/{part}"
        problem(httpx.get(url, params={"ticket": ticket}), 401, "unauthenticated")
