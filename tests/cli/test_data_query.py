"""`data sql`, `data export` and `cache`, against the API's own routes over a real lake."""

from __future__ import annotations

import csv
import io
import json
import socket
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import uvicorn
import yaml
from fastapi import FastAPI
from starlette.middleware import Middleware

from api import errors
from api.front import Front
from api.kept_answers import KeptAnswers
from api.limits import limits_of
from api.metrics import Metrics
from api.middleware import RequestFrame
from api.principals import LocalKey
from api.routes import market, market_cache, market_query
from cli.actions import query as actions
from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.settings import Home, Settings
from storage.lake import Lake
from tests.cli.conftest import Command
from tests.lake_samples import AAPL, IBM, some_bars
from tests.waiting import eventually

KEY = "gtk_a-key-of-the-tests"
ROWS = 'sql "SELECT symbol, count(*) AS n, max(time) AS last FROM bars_1d GROUP BY symbol ORDER BY symbol"'


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(Home(tmp_path_factory.mktemp("lake")).lake)
    splits = CorporateActions.of({date(2020, 2, 3): 2.0})
    lake.upsert(AAPL, "1d", some_bars(100), source="sample", actions=splits)
    lake.upsert(IBM, "1d", some_bars(50, seed=2), source="sample")
    lake.upsert(AAPL, "1h", some_bars(1000, timeframe="1h"), source="csv")
    return lake


@pytest.fixture(scope="module")
def url(lake: Lake) -> Iterator[str]:
    """The address of a server with the routes in question."""
    app = FastAPI(middleware=[Middleware(RequestFrame, metrics=Metrics())])
    for router in (market.router, market.kept, market_query.router(), market_cache.router()):
        app.include_router(router)
    errors.install(app)
    app.router.routes.insert(0, Front(app.router.routes))
    settings = Settings()
    app.state.context = SimpleNamespace(
        lake=lake,
        home=Home(lake.root.parent),
        settings=settings,
        authenticators=(LocalKey(KEY),),
        limits=limits_of(settings),
        answers=KeptAnswers(),
    )
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        eventually(lambda: server.started or not thread.is_alive(), what="the server's start")
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def data(cli: Command, url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("GPT_TRADER_SERVER", url)
    monkeypatch.setenv("GPT_TRADER_API_KEY", KEY)
    return cli


def test_sql_in_every_format(data: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    table = data(f"data {ROWS}")
    assert table.code == 0, table.err
    assert table.out.split()[:3] == ["symbol", "n", "last"]
    assert "2020-02-19T00:00:00Z" in table.out
    answer = json.loads(data(f"--output json data {ROWS}").out)
    assert answer["columns"]["n"] == [100, 50]
    assert yaml.safe_load(data(f"--output yaml data {ROWS}").out) == answer
    rows = list(csv.DictReader(io.StringIO(data(f"--output csv data {ROWS}").out)))
    assert rows[0] == {"symbol": "AAPL", "n": "100", "last": "2020-04-09T00:00:00Z"}
    assert data("data", "sql", "SELECT 1 AS n WHERE false").out == "no rows\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 42 AS answer"))
    assert "42" in data("data", "sql", "-").out


def test_sql_says_what_was_left_out_and_reads_an_older_version(data: Command, lake: Lake) -> None:
    cut = data("--output", "json", "data", "sql", "FROM bars_1d", "--limit", "3")
    assert json.loads(cut.out)["rows"] == 3
    assert "only the first 3 rows" in cut.err
    first = lake.snapshots()[0].id
    old = data("--output", "json", "data", "sql", "SELECT count(*) n FROM bars_1d", "--as-of", first)
    assert json.loads(old.out)["columns"] == {"n": [100]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sql", "COPY bars_1d TO '/tmp/x'"], "COPY is not a query"),
        (["sql", "SELECT nothing"], "the query failed"),
        (["sql", "SELECT 1", "--as-of", "0123456789"], "no snapshot"),
        (["sql", "SELECT count(*) FROM range(1000000000) a, range(1000000) b", "--timeout", "0.3"], "0.3 s"),
        (["export", "--symbol", "AAPL", "--file", "x.txt"], ".parquet, .csv"),
        (["export", "--symbol", "AAPL", "--file", "no/such/folder/x.csv"], "does not exist"),
        (["export", "--symbol", "../X", "--file", "x.csv"], "a symbol is"),
        (["export", "--symbol", "AAPL", "--timeframe", "2d", "--file", "x.csv"], "'2d' is not known"),
        (["export", "--symbol", "AAPL", "--symbol", "NOPE", "--file", "x.csv"], "NOPE is not in the lake"),
        (["export", "--symbol", "AAPL", "--start", "soon", "--file", "x.csv"], "start"),
    ],
)
def test_what_is_refused_leaves_nothing(
    data: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = data("data", *words)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    assert [path for path in tmp_path.iterdir() if path.name != "home"] == []


@pytest.mark.parametrize("adjust", ["all", "split", "none"])
def test_an_export_holds_the_bars_of_the_lake_bit_for_bit(
    data: Command, lake: Lake, tmp_path: Path, adjust: str
) -> None:
    file = tmp_path / "bars.parquet"
    words = ["--symbol", "aapl", "--file", file, "--adjust", adjust]
    done = data("--output", "json", "data", "export", *words)
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert (facts["rows"], facts["symbols"], facts["bytes"]) == (100, {"AAPL": 100}, file.stat().st_size)
    current = lake.current()
    assert current is not None
    assert facts["snapshot_id"] == current.id
    table = pq.read_table(file)
    bars = lake.bars("AAPL", adjust=adjust)  # type: ignore[arg-type]
    assert table.column_names == ["symbol", "time", "open", "high", "low", "close", "volume"]
    assert table.column("close").to_pylist() == bars.close.tolist()
    assert table.column("volume").to_pylist() == bars.volume.tolist()
    assert np.array_equal(table.column("time").to_numpy(), bars.time)


def test_pages_make_one_file_of_several_symbols(
    data: Command, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "_PAGE", 25)  # as many pages as years of minutes have
    for name in ("bars.parquet", "bars.csv"):
        file = tmp_path / name
        words = ["--symbol", "IBM", "--symbol", "AAPL", "--symbol", "IBM", "--file", file]
        done = data("--output", "json", "data", "export", *words)
        assert done.code == 0, done.err
        assert json.loads(done.out)["symbols"] == {"IBM": 50, "AAPL": 100}
        table = pq.read_table(file) if name.endswith("parquet") else pa_csv.read_csv(file)
        assert table.column("symbol").to_pylist() == ["IBM"] * 50 + ["AAPL"] * 100
        both = [*lake.bars("IBM").close.tolist(), *lake.bars("AAPL").close.tolist()]
        assert table.column("close").to_pylist() == both
    ranged = [
        "--timeframe",
        "1h",
        "--start",
        "2020-01-03",
        "--end",
        "2020-01-05",
        "--file",
        tmp_path / "h.csv",
    ]
    hours = data("--output", "json", "data", "export", "--symbol", "AAPL", *ranged)
    assert json.loads(hours.out)["rows"] == 72
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == [
        "bars.csv",
        "bars.parquet",
        "h.csv",
    ]


def test_a_file_that_exists_is_written_over_only_by_force(data: Command, tmp_path: Path) -> None:
    file = tmp_path / "bars.csv"
    file.write_text("mine")
    refused = data("data", "export", "--symbol", "IBM", "--file", file)
    assert refused.code == 2
    assert "--force" in refused.err
    assert file.read_text() == "mine"
    failed = data("data", "export", "--symbol", "NOPE", "--file", file, "--force")
    assert failed.code == 2
    assert file.read_text() == "mine"
    assert data("data", "export", "--symbol", "IBM", "--file", file, "--force").code == 0
    assert file.read_text().startswith('"symbol","time"')


def test_a_folder_that_cannot_be_written_is_said(data: Command, tmp_path: Path) -> None:
    refused = data("data", "export", "--symbol", "IBM", "--file", "/proc/bars.csv")
    assert (refused.code, refused.out) == (2, "")
    assert "/proc/bars.csv cannot be written" in refused.err


def test_the_cache_is_warmed_shown_and_cleared(data: Command) -> None:
    assert data("cache clear").code == 0
    made = json.loads(data("--output", "json", "cache", "warm").out)
    assert (made["symbols"], made["times"]) == (2, 100)
    assert json.loads(data("--output", "json", "cache", "stats").out)["entries"] == 1
    assert "of 2,048 MB" in data("cache", "stats").out
    one = data(
        "--output", "json", "cache", "warm", "--symbol", "IBM", "--column", "volume", "--start", "2020-02-01"
    )
    assert json.loads(one.out)["times"] == 19
    assert "removed 2 matrices" in data("cache", "clear").out
    unknown = data("cache", "warm", "--symbol", "NOPE")
    assert unknown.code == 2
    assert "NOPE is not in the lake" in unknown.err
