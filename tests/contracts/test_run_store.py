"""What is kept of a run: all of its result or nothing, once and for ever; and one run for an idempotency key."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import URL, Engine

from gpt_trader.backtesting.result import BacktestResult, Metrics, Trade
from gpt_trader.crash_points import KILLED
from gpt_trader.errors import Conflict, GptTraderError, NotFound, Refused, UnknownName
from gpt_trader.runs import SYSTEM, channel_of
from gpt_trader.settings import Home
from storage.events import EventLog
from storage.run_folders import staged_folder
from storage.runs import RunOutput, RunStore
from storage.series import backtest_series

REQUEST = {
    "schema_version": 1,
    "symbol": "AAPL",
    "strategy": "momentum",
    "params": {"lookback": 20},
    "seed": 7,
}

_SAVER = """
import sys
from pathlib import Path
from uuid import UUID
import pyarrow as pa
from sqlalchemy import make_url
from gpt_trader.settings import Home
from storage.database import engine_for
from storage.run_folders import staged_folder
from storage.runs import RunOutput, RunStore
url, home, run_id = sys.argv[1:]
store = RunStore(engine_for(make_url(url)), Home(Path(home)))
store.save_result(UUID(run_id), RunOutput("hash", {"from": "killed"}, {"equity": pa.table({"time": [1, 2]})}))
"""

_CLAIMER = """
import sys
from pathlib import Path
from uuid import uuid4
from sqlalchemy import make_url
from gpt_trader.settings import Home
from storage.database import engine_for
from storage.run_folders import staged_folder
from storage.runs import RunStore
store = RunStore(engine_for(make_url(sys.argv[1])), Home(Path("/nonexistent")))
for number in range(20):
    print(store.claim_key("alice", f"key-{number}", "body", uuid4()))
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def store(engine: Engine, home: Home) -> RunStore:
    return RunStore(engine, home)


@pytest.fixture
def run_id(store: RunStore) -> UUID:
    run_id = uuid4()
    store.register(run_id, "backtest", "alice", REQUEST)
    return run_id


def output(result_hash: str = "hash", **summary: object) -> RunOutput:
    series = {"equity": pa.table({"time": [1, 2, 3]}), "trades": pa.table({"pnl": [0.5]})}
    return RunOutput(result_hash, summary, series, "snapshot", "0.1.0", {"numpy": "2.4"})


def files_of(home: Home) -> list[str]:
    return sorted(str(path.relative_to(home.runs)) for path in home.runs.glob("**/*") if path.is_file())


def test_a_registered_run_is_what_was_asked(store: RunStore, run_id: UUID) -> None:
    run = store.get(run_id)
    assert (run.slice, run.owner, run.request, run.seed, run.schema_version) == (
        "backtest",
        "alice",
        REQUEST,
        7,
        1,
    )
    assert list(run.request) == list(REQUEST)
    assert (run.result_hash, run.summary, run.artifacts, run.finished_at) == (None, None, {}, None)
    assert abs((datetime.now(UTC) - run.created_at).total_seconds()) < 60


def test_the_runs_channel_tells_the_result_once(store: RunStore, run_id: UUID, engine: Engine) -> None:
    for _ in range(2):
        store.save_result(run_id, output("hash", metrics={"sharpe": 1.5, "win_rate": None}))
    told = [(event.type, event.data) for event in EventLog(engine).read(channel_of(run_id))]
    assert told == [("result", {"result_hash": "hash", "metrics": {"sharpe": 1.5, "win_rate": None}})]


def test_registering_again_changes_nothing(store: RunStore, run_id: UUID) -> None:
    before = store.get(run_id)
    store.register(run_id, "backtest", "mallory", {"symbol": "MSFT"})
    store.register(run_id, "backtest", SYSTEM, {"symbol": "MSFT"})
    assert store.get(run_id) == before


def test_a_named_owner_takes_over_from_system(store: RunStore) -> None:
    """The run may be faster than the API that started it: it registers itself as system's."""
    run_id = uuid4()
    store.register(run_id, "backtest", SYSTEM, REQUEST)
    store.register(run_id, "backtest", "alice", REQUEST)
    assert store.get(run_id).owner == "alice"


def test_equal_requests_have_equal_hashes(store: RunStore, run_id: UUID) -> None:
    other, different = uuid4(), uuid4()
    store.register(other, "backtest", "bob", dict(reversed(REQUEST.items())))
    store.register(different, "backtest", "bob", {**REQUEST, "seed": 8})
    assert store.get(other).request_hash == store.get(run_id).request_hash
    assert store.get(different).request_hash != store.get(run_id).request_hash


def test_an_unknown_run_is_not_found(store: RunStore) -> None:
    run_id = uuid4()
    calls: list[Callable[[], object]] = [
        lambda: store.get(run_id),
        lambda: store.summary(run_id),
        lambda: store.artifact(run_id, "equity"),
        lambda: store.save_result(run_id, output()),
        lambda: store.save_artifact(run_id, "report", b""),
    ]
    for call in calls:
        with pytest.raises(NotFound, match=str(run_id)):
            call()


def test_a_result_comes_back_as_it_was_saved(store: RunStore, run_id: UUID, home: Home) -> None:
    store.save_result(run_id, output(symbol="AAPL", metrics={"sharpe": 0.5, "calmar": None}, bars=3))
    assert list(store.summary(run_id).items()) == [
        ("symbol", "AAPL"),
        ("metrics", {"sharpe": 0.5, "calmar": None}),
        ("bars", 3),
    ]
    run = store.get(run_id)
    assert (run.result_hash, run.snapshot_id, run.code_version) == ("hash", "snapshot", "0.1.0")
    assert run.libraries == {"numpy": "2.4"}
    assert run.artifacts == {"equity": "equity.parquet", "trades": "trades.parquet"}
    assert run.finished_at is not None
    assert run.finished_at >= run.created_at
    assert pq.read_table(store.artifact(run_id, "trades")).to_pydict() == {"pnl": [0.5]}
    assert files_of(home) == [f"{run_id}/equity.parquet", f"{run_id}/trades.parquet"]


def test_the_same_result_again_changes_nothing(store: RunStore, run_id: UUID) -> None:
    store.save_result(run_id, output(first=True))
    before, content = store.get(run_id), store.artifact(run_id, "equity").stat().st_mtime_ns
    store.save_result(run_id, output(first=False))
    assert store.get(run_id) == before
    assert store.artifact(run_id, "equity").stat().st_mtime_ns == content


def test_another_result_is_refused(store: RunStore, run_id: UUID, home: Home) -> None:
    store.save_result(run_id, output())
    before = store.get(run_id), files_of(home)
    with pytest.raises(Conflict, match="results never change"):
        store.save_result(run_id, output("other"))
    assert (store.get(run_id), files_of(home)) == before


def test_savers_at_the_same_time_make_one_result(store: RunStore, run_id: UUID, home: Home) -> None:
    def save(number: int) -> str:
        try:
            store.save_result(run_id, output(f"hash{number % 2}", by=number % 2))
        except Conflict:
            return "refused"
        return f"hash{number % 2}"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(save, range(8)))
    kept = store.get(run_id).result_hash
    assert outcomes.count("refused") == 4
    assert outcomes.count(str(kept)) == 4
    assert files_of(home) == [f"{run_id}/equity.parquet", f"{run_id}/trades.parquet"]


@pytest.mark.parametrize("place", ["runs.before_rename", "runs.before_commit"])
def test_a_killed_saver_leaves_no_result(
    store: RunStore, run_id: UUID, home: Home, database: URL, place: str
) -> None:
    arguments = [database.render_as_string(), str(home.root), str(run_id)]
    killed = subprocess.run(
        [sys.executable, "-P", "-c", _SAVER, *arguments],
        env={**os.environ, "GPT_TRADER_CRASH_AT": place},
        check=False,
        timeout=60,
    )
    assert killed.returncode == KILLED
    with pytest.raises(NotFound, match="has no result"):
        store.summary(run_id)
    with pytest.raises(NotFound, match="no equity"):
        store.artifact(run_id, "equity")
    store.save_result(run_id, output("hash", by="next"))
    assert store.summary(run_id) == {"by": "next"}
    assert pq.read_table(store.artifact(run_id, "equity")).num_rows == 3
    _age_leftovers(home)
    assert store.sweep_leftovers() == (1 if place == "runs.before_rename" else 0)
    assert files_of(home) == [f"{run_id}/equity.parquet", f"{run_id}/trades.parquet"]


def _age_leftovers(home: Home) -> None:
    for folder in home.runs.glob(".new-*"):
        os.utime(folder, (1, 1))


def test_the_sweep_leaves_living_writers_alone(store: RunStore, run_id: UUID, home: Home) -> None:
    assert store.sweep_leftovers() == 0  # before there is any folder
    with staged_folder(home.runs, run_id) as staged:  # the folder a writer is busy in
        (staged / "equity.parquet").write_bytes(b"half")
        _age_leftovers(home)
        assert store.sweep_leftovers() == 0
        assert (staged / "equity.parquet").exists()
    assert files_of(home) == []


def test_an_undefined_number_is_refused_before_anything_is_kept(
    store: RunStore, run_id: UUID, home: Home
) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        store.save_result(run_id, output(sharpe=float("nan")))
    assert store.get(run_id).result_hash is None
    store.save_result(run_id, output(sharpe=None))
    assert store.summary(run_id) == {"sharpe": None}


def test_a_folder_that_cannot_be_written_says_so(store: RunStore, run_id: UUID, home: Home) -> None:
    home.root.mkdir()
    home.runs.write_text("a file in the way")
    with pytest.raises(GptTraderError, match="cannot write the run's series"):
        store.save_result(run_id, output())
    assert store.get(run_id).result_hash is None


def test_a_report_is_put_beside_its_result(store: RunStore, run_id: UUID, home: Home) -> None:
    with pytest.raises(NotFound, match="no result yet"):
        store.save_artifact(run_id, "report", b"<html>")
    store.save_result(run_id, output())
    path = store.save_artifact(run_id, "report", b"<html>")
    assert path == store.artifact(run_id, "report") == store.artifact_path(run_id, "report")
    assert path.read_bytes() == b"<html>"
    assert set(store.get(run_id).artifacts) == {"equity", "trades", "report"}
    with pytest.raises(NotFound, match=r"no picture; it has: equity, report, trades"):
        store.artifact(run_id, "picture")


@pytest.mark.parametrize("name", ["repotr", "../../key", "", "equity.parquet"])
def test_an_artifact_has_one_of_a_few_names(store: RunStore, run_id: UUID, name: str) -> None:
    store.save_result(run_id, output())
    for call in (store.artifact, store.artifact_path):
        with pytest.raises(UnknownName, match="equity, trades, fills, weights, trials, report, picture"):
            call(run_id, name)


def test_a_lost_file_is_named(store: RunStore, run_id: UUID) -> None:
    store.save_result(run_id, output())
    path = store.artifact(run_id, "equity")
    path.unlink()
    with pytest.raises(GptTraderError, match="is gone"):
        store.artifact(run_id, "equity")


def test_pages_are_stable_while_runs_come_in(store: RunStore) -> None:
    known = [uuid4() for _ in range(7)]
    for run_id in known:
        store.register(run_id, "backtest", "alice", REQUEST)
    first = store.list(limit=3)
    for _ in range(3):
        store.register(uuid4(), "backtest", "alice", REQUEST)
    second = store.list(limit=3, cursor=first.next_cursor)
    third = store.list(limit=3, cursor=second.next_cursor)
    listed = [run.run_id for page in (first, second, third) for run in page.items]
    assert listed == known[::-1]
    assert third.next_cursor is None


def test_a_page_that_ends_exactly_has_no_next(store: RunStore, run_id: UUID) -> None:
    page = store.list(limit=1)
    assert ([run.run_id for run in page.items], page.next_cursor) == ([run_id], None)


def test_a_list_is_of_one_owner_and_slice(store: RunStore, run_id: UUID) -> None:
    bobs, ingest = uuid4(), uuid4()
    store.register(bobs, "backtest", "bob", REQUEST)
    store.register(ingest, "data", "alice", {"symbols": ["AAPL"]})
    assert [run.run_id for run in store.list(owner="alice").items] == [ingest, run_id]
    assert [run.run_id for run in store.list(owner="alice", slice="backtest").items] == [run_id]
    assert [run.run_id for run in store.list(slice="backtest").items] == [bobs, run_id]
    assert store.list(owner="nobody").items == ()


@pytest.mark.parametrize("cursor", ["", "x", "é", "MjAyNi0wMS0wMQ", "MjAyNi0wMS0wMSBub3QtYS11dWlk", "=" * 9])
def test_a_made_up_cursor_is_refused(store: RunStore, cursor: str) -> None:
    with pytest.raises(Refused, match="cursor"):
        store.list(cursor=cursor)


def test_a_key_belongs_to_the_first_run(store: RunStore) -> None:
    first, second = uuid4(), uuid4()
    assert store.claim_key("alice", "k", "body") is None
    assert store.claim_key("alice", "k", "body") is None  # a retry after a crash before the submission
    assert store.claim_key("alice", "k", "body", first) == first
    assert store.claim_key("alice", "k", "body", second) == first
    assert store.claim_key("alice", "k", "body") == first


def test_a_key_with_another_body_is_refused(store: RunStore) -> None:
    first = uuid4()
    store.claim_key("alice", "k", "body", first)
    for run_id in (None, uuid4()):
        with pytest.raises(Conflict, match="another request"):
            store.claim_key("alice", "k", "other body", run_id)
    assert store.claim_key("alice", "k", "body") == first


def test_owners_have_keys_of_their_own(store: RunStore) -> None:
    alices, bobs = uuid4(), uuid4()
    assert store.claim_key("alice", "k", "body", alices) == alices
    assert store.claim_key("bob", "k", "other body", bobs) == bobs


def test_twenty_claims_at_once_have_one_winner(store: RunStore) -> None:
    candidates = [uuid4() for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        winners = set(pool.map(lambda run_id: store.claim_key("alice", "k", "body", run_id), candidates))
    assert len(winners) == 1
    assert winners < set(candidates)


def test_claims_from_several_processes_agree(database: URL) -> None:
    claimers = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", _CLAIMER, database.render_as_string()],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=60)[0].split() for process in claimers]
    assert [process.returncode for process in claimers] == [0, 0, 0]
    assert outputs[0] == outputs[1] == outputs[2]
    assert len(set(outputs[0])) == 20


def test_a_backtest_s_series_survive_the_file(store: RunStore, run_id: UUID) -> None:
    result = _backtest()
    store.save_result(run_id, RunOutput(result.result_hash, {}, backtest_series(result)))
    equity = pq.read_table(store.artifact(run_id, "equity"))
    assert equity.column_names == ["time", "close", "equity", "benchmark_equity", "drawdown", "position"]
    assert str(equity.schema.field("time").type) == "timestamp[us, tz=UTC]"
    for name in equity.column_names[1:]:
        np.testing.assert_array_equal(equity[name].to_numpy(), getattr(result, name))
    np.testing.assert_array_equal(equity["time"].to_numpy().astype("datetime64[us]"), result.time)
    trades = pq.read_table(store.artifact(run_id, "trades")).to_pylist()
    assert [trade["exit_time"] for trade in trades] == [datetime(2020, 1, 3, tzinfo=UTC), None]
    assert [trade["pnl"] for trade in trades] == [1.5, -0.25]
    assert equity.schema.metadata[b"schema_version"] == b"1"


def test_no_trades_make_an_empty_table_of_the_same_shape() -> None:
    full = _backtest()
    empty = BacktestResult(**{**full.__dict__, "trades": ()})
    assert backtest_series(empty)["trades"].schema == backtest_series(full)["trades"].schema
    assert backtest_series(empty)["trades"].num_rows == 0


def _backtest() -> BacktestResult:
    time = np.arange("2020-01-01", "2020-01-05", dtype="datetime64[D]").astype("datetime64[us]")
    metrics = Metrics(
        **dict.fromkeys((each for each in Metrics.__dataclass_fields__), 0.0)  # type: ignore[arg-type]  # zeros all
    )
    trades = (
        Trade(time[0], time[2], 1, 10.0, 1.0, 1.15, 0.0, 0.0, 1.5, 0.15, 2, "target"),
        Trade(time[2], None, 1, 5.0, 1.15, 1.1, 0.0, 0.0, -0.25, -0.04, 2, "open"),
    )
    values = np.array([1.0, 1.1, 1.2, 1.15])
    return BacktestResult(
        symbol="AAPL",
        timeframe="1d",
        strategy="momentum",
        params={},
        request=REQUEST,
        snapshot_id="s",
        bars_hash="b",
        metrics=metrics,
        benchmark=metrics,
        trades=trades,
        drawdowns=(),
        time=time,
        close=values,
        equity=values * 100,
        benchmark_equity=values * 99,
        drawdown=values - 1.2,
        position=np.array([0.0, 1.0, 1.0, 0.0]),
        periods_a_year=252.0,
    )


def test_what_a_run_reads_is_kept_for_its_resumption(store: RunStore, run_id: UUID) -> None:
    store.note_snapshot(run_id, "first")
    store.note_snapshot(run_id, "second")
    assert store.get(run_id).snapshot_id == "first"
    assert store.pinned_snapshots() == {"first"}
    with pytest.raises(NotFound):
        store.note_snapshot(uuid4(), "first")
