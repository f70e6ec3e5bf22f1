"""The lake's versions by REST: what a snapshot changed, collection that spares what runs read, and reproducing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.instruments import Instrument
from gpt_trader.raw_bars import RawBars
from gpt_trader.settings import Home, Settings
from storage.lake import Lake
from storage.runs import RunOutput
from tests.api.conftest import BARS, Engine, Prefect, serving
from tests.api.test_health_and_errors import problem
from tests.api.test_runs import BOB, EVE
from tests.lake_samples import IBM, changed, equal, some_bars

ACME = Instrument(symbol="ACME", name="Acme Corp.")


#: Seeds, another one for each lake: an id names what is stored, and runs of one test would pin another's snapshot.
_seeds = count(1000)


@pytest.fixture
def bars() -> RawBars:
    """Bars of ACME that no other test has."""
    return some_bars(BARS, seed=next(_seeds))


@pytest.fixture
def own(prefect: Prefect, api_settings: Settings, tmp_path: Path, bars: RawBars) -> Iterator[Engine]:
    """An API over a lake of this test's own, with those bars."""
    home = Home(tmp_path / "home")
    Lake(home.lake).upsert(ACME, "1d", bars, source="csv")
    with serving(api_settings, home, prefect.url) as engine:
        yield engine


def restate(lake: Lake, volume: float) -> str:
    """Give one bar of ACME another volume; return the snapshot."""
    one = changed(lake.raw_bars("ACME")[:10], 3, volume=volume)
    return lake.upsert(ACME, "1d", one, source="csv").snapshot_id


def current(engine: Engine) -> str:
    snapshot = engine.context.lake.current()
    assert snapshot is not None
    return snapshot.id


def ids(engine: Engine) -> list[str]:
    return [each["id"] for each in engine.http.get("/market/snapshots").json()["items"]]


def finish(
    engine: Engine,
    prefect: Prefect,
    run_id: str,
    snapshot_id: str,
    *,
    sharpe: float = 1.0,
    numpy: str = "2.4",
) -> str:
    """Save what a run found on a snapshot, as a run does; return its result hash."""
    summary = {"bars_hash": f"bars of {snapshot_id}", "metrics": {"sharpe": sharpe, "trades": 3}}
    output = RunOutput(
        f"{sharpe:064.3f}", summary, {}, snapshot_id, code_version="0.1.0", libraries={"numpy": numpy}
    )
    engine.context.runs.save_result(UUID(run_id), output)
    prefect.set_state(run_id, "COMPLETED")
    return output.result_hash


# What a snapshot holds


def test_a_snapshot_tells_what_it_changed(own: Engine) -> None:
    lake = own.context.lake
    first = current(own)
    lake.upsert(IBM, "1d", some_bars(20), source="sample")
    restated = restate(lake, 7.0)
    lake.edit_instrument("IBM", {"currency": "EUR"})
    lake.replace_actions("IBM", CorporateActions.of(splits={datetime(2020, 1, 10, tzinfo=UTC).date(): 2.0}))

    told = [own.http.get(f"/market/snapshots/{name}").json() for name in reversed(ids(own))]
    nothing: dict[str, list[Any]] = {
        name: [] for name in ("added", "changed", "removed", "instruments", "actions")
    }
    acme = {"symbol": "ACME", "timeframe": "1d", "rows": BARS, "rows_before": None}
    ibm = {"symbol": "IBM", "timeframe": "1d", "rows": 20, "rows_before": None}
    assert [each["changes"] for each in told] == [
        nothing | {"added": [acme]},
        nothing | {"added": [ibm]},
        nothing | {"changed": [acme | {"rows_before": BARS}]},
        nothing | {"instruments": ["IBM"]},
        nothing | {"actions": ["IBM"]},
    ]
    assert [each["parent"] for each in told] == [None, *(each["id"] for each in told[:-1])]
    assert [(each["series"], each["symbols"]) for each in told[:2]] == [(1, ["ACME"]), (2, ["ACME", "IBM"])]
    stored = sum(path.stat().st_size for path in (lake.root / "bars").rglob("*.parquet"))
    actions = sum(path.stat().st_size for path in (lake.root / "actions").rglob("*.parquet"))
    old = sum(file.bytes for file in lake.entry("ACME", snapshot=first).files)
    assert told[-1]["bytes"] == stored + actions - old
    assert told[2]["id"] == restated


@pytest.mark.parametrize("spelling", [lambda s: s.id[:8], lambda s: s.created_at.isoformat()])
def test_a_snapshot_is_found_by_what_as_of_takes(own: Engine, spelling: Any) -> None:
    (old,) = own.context.lake.snapshots()
    restate(own.context.lake, 7.0)
    assert own.http.get(f"/market/snapshots/{spelling(old)}").json()["id"] == old.id


@pytest.mark.parametrize(
    ("given", "status", "kind", "said"),
    [
        ("f" * 32, 404, "not-found", "there are 1, since"),
        ("2001-01-01", 404, "not-found", "no snapshot at 2001-01-01"),
        ("abc", 422, "refused-input", "at least 6 digits"),
        ("yesterday", 422, "refused-input", "neither a snapshot id nor a time"),
    ],
)
def test_a_snapshot_that_is_none_is_refused_everywhere_in_the_same_words(
    engine_api: Engine, prefect: Prefect, given: str, status: int, kind: str, said: str
) -> None:
    before = prefect.http.post("/flow_runs/count", json={}).json()
    request = {"symbol": "ACME", "snapshot": given}
    for answer in (
        engine_api.http.get(f"/market/snapshots/{given}"),
        engine_api.http.post("/strategies/backtest", json=request),
        engine_api.http.post("/workflows/backtest/runs", json=request),
    ):
        assert said in problem(answer, status, kind)["detail"]
    assert prefect.http.post("/flow_runs/count", json={}).json() == before


# Collection


def test_collection_takes_what_nobody_needs_and_a_trial_takes_nothing(own: Engine) -> None:
    old = current(own)
    restate(own.context.lake, 7.0)
    files = set((own.home.lake / "bars").rglob("*.parquet"))

    tried = own.http.post("/market/collect", json={"older_than_days": 0, "dry_run": True}).json()
    assert (tried["dry_run"], tried["snapshots"], tried["kept"]) == (True, [old], 1)
    assert old in ids(own)
    assert set((own.home.lake / "bars").rglob("*.parquet")) == files

    done = own.http.post("/market/collect", json={"older_than_days": 0}).json()
    assert done == tried | {"dry_run": False}
    assert ids(own) == [current(own)]
    assert len(files - set((own.home.lake / "bars").rglob("*.parquet"))) == 1
    problem(own.http.get(f"/market/snapshots/{old}"), 404, "not-found")
    assert own.http.get(f"/market/snapshots/{current(own)}").json()["parent"] is None


def test_what_was_replaced_lately_stays_as_the_settings_say(own: Engine) -> None:
    restate(own.context.lake, 7.0)
    done = own.http.post("/market/collect", json={}).json()
    assert (done["older_than_days"], done["snapshots"], done["files"], done["kept"]) == (90, [], 0, 2)


def test_a_snapshot_that_a_run_read_stays_and_one_that_an_ingest_made_goes(
    own: Engine, prefect: Prefect, bars: RawBars
) -> None:
    read = current(own)
    run_id = own.start()["run_id"]
    finish(own, prefect, run_id, read)
    made = restate(own.context.lake, 7.0)
    ingest = own.http.post("/market/ingest", json={"symbols": ["AAPL"]}).json()["run_id"]
    finish(own, prefect, ingest, made)
    restate(own.context.lake, 8.0)

    done = own.http.post("/market/collect", json={"older_than_days": 0}).json()

    assert done["snapshots"] == [made]
    assert set(ids(own)) == {read, current(own)}
    assert equal(own.context.lake.raw_bars("ACME", snapshot=read), bars)


def test_a_snapshot_that_is_being_read_stays(own: Engine) -> None:
    with own.context.lake.pinned() as reading:
        restate(own.context.lake, 7.0)
        assert own.http.post("/market/collect", json={"older_than_days": 0}).json()["snapshots"] == []
    assert reading is not None
    assert own.http.post("/market/collect", json={"older_than_days": 0}).json()["snapshots"] == [reading.id]


def test_an_empty_lake_has_nothing_to_collect(prefect: Prefect, own: Engine, tmp_path: Path) -> None:
    with serving(own.settings, Home(tmp_path / "empty"), prefect.url) as empty:
        done = empty.http.post("/market/collect", json={"older_than_days": 0}).json()
        assert (done["snapshots"], done["files"], done["kept"]) == ([], 0, 0)


def test_only_an_administrator_collects(engine_api: Engine) -> None:
    for who in (BOB, EVE):
        problem(engine_api.http.post("/market/collect", json={"dry_run": True}, headers=who), 403, "denied")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"older_than_days": -1}, "older_than_days"),
        ({"older_than_days": 1e9}, "older_than_days"),
        ({"older_than_days": "NaN"}, "older_than_days"),
        ({"dryrun": True}, "dryrun"),
    ],
)
def test_a_wrong_collection_is_refused(engine_api: Engine, body: dict[str, Any], field: str) -> None:
    answer = problem(engine_api.http.post("/market/collect", json=body), 422, "refused-input")
    assert [each["field"] for each in answer["errors"]] == [field]


# Reproducing


def reproduce(engine: Engine, run_id: str) -> str:
    answer = engine.http.post(f"/workflows/runs/{run_id}/reproduce")
    assert answer.status_code == 202, answer.text
    found: str = answer.json()["run_id"]
    return found


def test_a_run_that_came_out_the_same_says_so(own: Engine, prefect: Prefect) -> None:
    old = current(own)
    original = own.start()["run_id"]
    hash_ = finish(own, prefect, original, old)
    restate(own.context.lake, 7.0)
    own.http.post("/market/collect", json={"older_than_days": 0})
    again = reproduce(own, original)
    assert own.http.get(f"/workflows/runs/{again}").json()["request"]["snapshot"] == old
    problem(own.http.get(f"/workflows/runs/{again}/reproduction"), 409, "conflict")
    finish(own, prefect, again, old)

    told = own.http.get(f"/workflows/runs/{again}/reproduction").json()

    assert told == {
        "run_id": again,
        "original_run_id": original,
        "snapshot_id": old,
        "result_hash": hash_,
        "equal": True,
        "differences": [],
    }
    assert own.http.get(f"/workflows/runs/{again}/result").json()["reproduction"] == told


def test_a_run_that_came_out_otherwise_says_what_differs(engine_api: Engine, prefect: Prefect) -> None:
    original = engine_api.start()["run_id"]
    finish(engine_api, prefect, original, current(engine_api))
    again = reproduce(engine_api, original)
    finish(engine_api, prefect, again, current(engine_api), sharpe=0.5, numpy="2.5")
    told = engine_api.http.get(f"/workflows/runs/{again}/reproduction").json()
    assert told["equal"] is False
    assert told["differences"] == [
        {"what": "library numpy", "original": "2.4", "now": "2.5"},
        {"what": "metric sharpe", "original": 1.0, "now": 0.5},
    ]


def test_a_run_that_reproduces_none_has_no_comparison(engine_api: Engine, prefect: Prefect) -> None:
    run_id = engine_api.start()["run_id"]
    finish(engine_api, prefect, run_id, current(engine_api))
    assert "reproduction" not in engine_api.http.get(f"/workflows/runs/{run_id}/result").json()
    detail = problem(engine_api.http.get(f"/workflows/runs/{run_id}/reproduction"), 404, "not-found")[
        "detail"
    ]
    assert f"{run_id} reproduces no other" in detail
    problem(engine_api.http.get(f"/workflows/runs/{uuid4()}/reproduction"), 404, "not-found")
    problem(engine_api.http.get(f"/workflows/runs/{run_id}/reproduction", headers=BOB), 404, "not-found")


def test_a_tag_tells_nobody_of_anothers_run(engine_api: Engine, prefect: Prefect) -> None:
    mine = engine_api.start()["run_id"]
    finish(engine_api, prefect, mine, current(engine_api))
    bobs = engine_api.http.post("/strategies/backtest", json={"symbol": "ACME"}, headers=BOB).json()["run_id"]
    finish(engine_api, prefect, bobs, current(engine_api))
    tags = prefect.http.get(f"/flow_runs/{bobs}").json()["tags"]
    prefect.http.patch(f"/flow_runs/{bobs}", json={"tags": [*tags, f"reproduces:{mine}"]}).raise_for_status()
    problem(engine_api.http.get(f"/workflows/runs/{bobs}/reproduction", headers=BOB), 404, "not-found")
    assert engine_api.http.get(f"/workflows/runs/{bobs}/reproduction").json()["equal"] is True


def test_a_snapshot_that_is_gone_is_said_with_the_way_back(own: Engine, prefect: Prefect) -> None:
    lake, old = own.context.lake, current(own)
    run_id = own.start()["run_id"]
    finish(own, prefect, run_id, old)
    restate(lake, 7.0)
    lake.collect(datetime.now(UTC), set)  # as if the database that knows the run had been lost meanwhile
    detail = problem(own.http.post(f"/workflows/runs/{run_id}/reproduce"), 404, "not-found")["detail"]
    assert f"read snapshot {old}" in detail
    assert f"restore {own.home.lake} from a backup, or ingest the same bars into an empty lake" in detail


def test_the_way_back_from_a_lost_snapshot_leads_there(own: Engine, prefect: Prefect, bars: RawBars) -> None:
    old = current(own)
    run_id = own.start()["run_id"]
    finish(own, prefect, run_id, old)
    own.home.lake.rename(own.home.root / "lost")
    problem(own.http.post(f"/workflows/runs/{run_id}/reproduce"), 404, "not-found")
    Lake(own.home.lake).upsert(ACME, "1d", bars, source="csv")
    again = reproduce(own, run_id)
    assert own.http.get(f"/workflows/runs/{again}").json()["request"]["snapshot"] == old


@pytest.mark.parametrize(("damage", "said"), [("cut", "is damaged"), ("gone", "is missing")])
def test_a_damaged_file_is_named_with_the_way_back(
    own: Engine, prefect: Prefect, damage: str, said: str
) -> None:
    old = current(own)
    run_id = own.start()["run_id"]
    finish(own, prefect, run_id, old)
    (file,) = own.context.lake.entry("ACME").files
    path = own.home.lake / file.path
    path.unlink()
    if damage == "cut":
        path.write_bytes(b"PAR1")
    detail = problem(own.http.post(f"/workflows/runs/{run_id}/reproduce"), 500, "corrupt-lake")["detail"]
    for part in (run_id, str(path), said, "gpt-trader data ingest --symbol ACME", "backup", old):
        assert part in detail


def test_a_strategy_file_that_is_gone_is_said(engine_api: Engine) -> None:
    run_id, strategy = uuid4(), f"user:{'0' * 64}:Mine"
    store = engine_api.context.runs
    store.register(run_id, "backtest", "local", {"symbol": "ACME", "timeframe": "1d", "strategy": strategy})
    store.save_result(run_id, RunOutput("cd" * 32, {}, {}, current(engine_api)))
    answer = engine_api.http.post(f"/workflows/runs/{run_id}/reproduce")
    assert f"strategy {strategy} is not stored in this engine" in problem(answer, 404, "not-found")["detail"]
