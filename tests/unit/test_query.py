"""SQL over the lake: what it shows, and what it cannot reach."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import numpy as np
import pytest

from gpt_trader.corporate_actions import CorporateActions
from gpt_trader.errors import BadBars, CorruptLake, NotFound, Refused
from gpt_trader.raw_bars import RawBars
from storage.lake import Lake
from storage.query import connect, query
from tests.lake_samples import AAPL, IBM, changed, some_bars


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "it's a lake")
    lake.upsert(AAPL, "1d", some_bars(100), source="sample")
    lake.upsert(IBM, "1d", some_bars(50, seed=2), source="sample")
    lake.upsert(AAPL, "4h", some_bars(3000, timeframe="4h"), source="csv")
    return lake


def test_bars_are_adjusted_with_the_raw_ones_beside(lake: Lake):
    sql = (
        "SELECT time, open, close, volume, raw_close, factor FROM bars_1d WHERE symbol = 'AAPL' ORDER BY time"
    )
    rows = query(lake, sql).to_pydict()
    bars, raw = lake.bars("AAPL"), lake.raw_bars("AAPL")
    assert rows["open"] == bars.open.tolist()
    assert rows["close"] == bars.close.tolist()
    assert rows["volume"] == bars.volume.tolist()
    assert rows["raw_close"] == raw.close.tolist()
    assert set(rows["factor"]) == {0.5}
    assert rows["time"][0] == datetime(2020, 1, 1, tzinfo=UTC)


ACTIONS = CorporateActions.of(
    {date(2020, 1, 20): 3.0, date(2020, 3, 2): 2.0},
    {date(2019, 12, 1): 9.0, date(2020, 2, 3): 0.07, date(2020, 3, 2): 0.13, date(2021, 1, 1): 1.0},
)


def with_factor(raw: RawBars, factor: np.ndarray) -> RawBars:
    return RawBars(raw.time, raw.open, raw.high, raw.low, raw.close, raw.volume, factor)


def unadjusted(raw: RawBars) -> RawBars:
    return with_factor(raw, np.ones(len(raw)))


@pytest.mark.parametrize("timeframe", ["1d", "4h"])
@pytest.mark.parametrize("actions", [None, CorporateActions.none(), ACTIONS], ids=["unknown", "none", "some"])
@pytest.mark.parametrize("own_ratio", [True, False])
def test_the_views_multiply_by_what_the_lake_multiplies_by(
    tmp_path: Path, timeframe: str, actions: CorporateActions | None, own_ratio: bool
):
    """Bit for bit, beside a series that has no actions."""
    lake = Lake(tmp_path / "lake")
    lake.upsert(IBM, timeframe, some_bars(50, timeframe=timeframe, seed=2), source="sample")
    raw = some_bars(500, timeframe=timeframe, start="2019-12-20")
    ratio = np.random.default_rng(3).uniform(0.2, 1, len(raw))
    raw = with_factor(raw, ratio) if own_ratio else unadjusted(raw)
    lake.upsert(AAPL, timeframe, raw, source="csv", actions=actions)
    for symbol in ("AAPL", "IBM"):
        sql = f"SELECT * FROM bars_{timeframe} WHERE symbol = '{symbol}' ORDER BY time"
        found = query(lake, sql).to_pydict()
        bars, stored = lake.bars(symbol, timeframe), lake.raw_bars(symbol, timeframe)
        for name in ("open", "high", "low", "close", "volume"):
            assert found[name] == getattr(bars, name).tolist(), name
            assert found[f"raw_{name}"] == getattr(stored, name).tolist(), name
        assert [t.replace(tzinfo=None) for t in found["time"]] == bars.time.tolist()
        assert (np.array(found["raw_close"]) * found["factor"]).tolist() == found["close"]


def test_new_actions_change_what_is_seen_and_an_older_snapshot_keeps_its_own(lake: Lake):
    sql = "SELECT sum(volume) v FROM bars_1d WHERE symbol = 'AAPL'"
    before, known = lake.current(), query(lake, sql).to_pylist()[0]["v"]
    assert before is not None
    for ratio in (2.0, 4.0):
        lake.replace_actions("AAPL", CorporateActions.of({date(2021, 1, 1): ratio}))
        assert query(lake, sql).to_pylist() == [{"v": known * ratio}]
    assert query(lake, sql, snapshot=before.id).to_pylist() == [{"v": known}]


def test_actions_are_a_table(lake: Lake):
    assert query(lake, "FROM actions").num_rows == 0
    lake.replace_actions("IBM", ACTIONS)
    rows = query(lake, "FROM Actions WHERE symbol = 'IBM' AND split > 1 ORDER BY ex_date").to_pylist()
    assert rows == [
        {"symbol": "IBM", "ex_date": date(2020, 1, 20), "split": 3.0, "dividend": 0.0},
        {"symbol": "IBM", "ex_date": date(2020, 3, 2), "split": 2.0, "dividend": 0.13},
    ]


def test_actions_that_contradict_the_prices_keep_nobody_from_other_series(lake: Lake):
    """`Lake.bars` refuses that series too; its raw bars can be read to find out why."""
    lake.upsert(AAPL, "1h", unadjusted(some_bars(100, timeframe="1h")), source="csv")
    lake.upsert(IBM, "1h", unadjusted(some_bars(100, timeframe="1h")), source="csv")
    lake.replace_actions("AAPL", CorporateActions.of(None, {date(2020, 1, 3): 1e6}))
    with pytest.raises(BadBars, match="is not below the close"):
        lake.bars("AAPL", "1h")
    for column in ("close", "volume", "factor"):
        with pytest.raises(
            Refused, match=r"AAPL: the dividend of 1e\+06 on 2020-01-03 is not below the close"
        ):
            query(lake, f"SELECT max({column}) FROM bars_1h")
    assert query(lake, "SELECT count(close) n FROM bars_1h WHERE symbol = 'IBM'").to_pylist() == [{"n": 100}]
    assert query(lake, "SELECT count(raw_close) n FROM bars_1h").to_pylist() == [{"n": 200}]


def test_columns_that_share_a_name_are_told_apart(lake: Lake):
    found = query(lake, "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a")
    assert found.column_names == ["a", "a_1", "a_1_1", "a_2"]


def test_each_timeframe_is_a_view_over_all_its_files(lake: Lake):
    assert query(lake, "SELECT symbol, count(*) n FROM bars_1d GROUP BY ALL ORDER BY symbol").to_pylist() == [
        {"symbol": "AAPL", "n": 100},
        {"symbol": "IBM", "n": 50},
    ]
    assert query(lake, "SELECT count(*) n FROM bars_4h").to_pylist() == [{"n": 3000}]
    monthly = "SELECT date_trunc('month', time) m, count(*) n FROM bars_1d WHERE symbol = 'IBM' GROUP BY m ORDER BY m"
    assert query(lake, monthly).column("n").to_pylist() == [31, 19]


def test_series_and_instruments_are_tables(lake: Lake):
    series = query(lake, "SELECT * FROM series WHERE timeframe = '1d' ORDER BY symbol").to_pylist()
    assert [(row["symbol"], row["source"], row["rows"]) for row in series] == [
        ("AAPL", "sample", 100),
        ("IBM", "sample", 50),
    ]
    assert series[1]["last"] == datetime(2020, 2, 19, tzinfo=UTC)
    facts = query(lake, "SELECT symbol, venue, tick FROM instruments ORDER BY symbol").to_pylist()
    assert facts[0] == {"symbol": "AAPL", "venue": "XNAS", "tick": "0.01"}


def test_an_older_snapshot_is_shown_as_it_was(lake: Lake):
    before = lake.current()
    assert before is not None
    lake.upsert(AAPL, "1d", changed(some_bars(100), 5, volume=-0.0), source="sample")
    sql = "SELECT min(volume) low FROM bars_1d WHERE symbol = 'AAPL'"
    assert query(lake, sql).to_pylist() == [{"low": 0.0}]
    assert query(lake, sql, snapshot=before.id).to_pylist() == [{"low": some_bars(100).volume.min()}]
    with pytest.raises(NotFound, match="no snapshot"):
        query(lake, sql, snapshot="0123456789")


def test_rows_beyond_the_limit_are_cut_and_that_is_said(lake: Lake):
    some = query(lake, "FROM bars_1d", limit=149)
    assert (some.num_rows, some.schema.metadata) == (149, {b"truncated": b"true"})
    whole = query(lake, "FROM bars_1d", limit=150)
    assert (whole.num_rows, whole.schema.metadata) == (150, {b"truncated": b"false"})
    with pytest.raises(Refused, match="limit: must be at least 1"):
        query(lake, "FROM bars_1d", limit=0)


def test_an_empty_lake_has_its_tables(tmp_path: Path):
    assert query(Lake(tmp_path / "lake"), "FROM series").num_rows == 0
    with pytest.raises(
        Refused, match=r"(?s)bars_1d does not exist.*allowed: tables series, instruments, actions"
    ):
        query(Lake(tmp_path / "lake"), "FROM bars_1d")


def content(lake: Lake) -> list[tuple[Path, bytes]]:
    return sorted((p, p.read_bytes()) for p in lake.root.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        ("SELECT * FROM read_text('/etc/passwd')", "Permission Error"),
        ("SELECT * FROM read_csv('/etc/passwd')", "Permission Error"),
        ("SELECT * FROM '/etc/passwd'", "does not exist|Permission Error"),
        ("SELECT * FROM read_text('{lake}/CURRENT')", "Permission Error"),
        ("SELECT * FROM read_parquet('{lake}/bars/1d/*/*.parquet')", "Permission Error"),
        ("SELECT * FROM read_parquet('{file}/../../../../../../../../etc/passwd')", "Permission Error"),
        ("SELECT * FROM glob('/etc/*')", "Permission Error"),
        ("SELECT * FROM sniff_csv('/etc/passwd')", "Permission Error"),
        ("SELECT getenv('HOME')", "getenv does not exist"),
        ("SELECT * FROM read_text('/proc/self/environ')", "Permission Error"),
        ("SELECT * FROM query('COPY (SELECT 1) TO x')", "the query failed"),
        ("SELECT " + "(" * 40_000 + "1" + ")" * 40_000, "expression depth limit"),
        ("SELECT * FROM secret_of_this_program", "secret_of_this_program does not exist"),
        ("ATTACH '{lake}/x.db'", "ATTACH is not a query: the lake is read-only"),
        ("INSTALL httpfs", "is not a query"),
        ("LOAD httpfs", "is not a query"),
        ("COPY (SELECT 1) TO '{lake}/x.csv'", "COPY is not a query"),
        ("COPY (SELECT 1 AS a) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)", "COPY is not a query"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false)", "EXPLAIN is not a query"),
        ("EXPORT DATABASE '{lake}/x'", "is not a query"),
        ("SET threads = 4", "SET is not a query"),
        ("PRAGMA enable_profiling", "is not a query"),
        ("DROP VIEW bars_1d", "DROP is not a query"),
        ("INSERT INTO series SELECT * FROM series", "INSERT is not a query"),
        ("SELECT 1; SELECT 2", "give one statement, not 2"),
        ("SELECT 1; DROP VIEW bars_1d", "give one statement, not 2"),
        ("", "give one statement, not 0"),
        ("SELEC 1", "Parser Error"),
        ("SELECT 1 -- " + "x" * 100_001, "more than 100000"),
    ],
)
def test_what_is_not_a_query_over_the_lake_is_refused(lake: Lake, sql: str, complaint: str):
    secret_of_this_program = np.arange(3)
    file = lake.root / lake.entry("AAPL").files[0].path
    before = content(lake)
    quoted = {"lake": str(lake.root).replace("'", "''"), "file": str(file).replace("'", "''")}
    with pytest.raises(Refused, match=complaint):
        query(lake, sql.format(**quoted))
    assert content(lake) == before
    assert len(lake.bars("AAPL")) == 100
    assert len(secret_of_this_program) == 3


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH '/tmp/x.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "COPY (SELECT 1) TO '/tmp/x'",
    ],
)
def test_the_connection_itself_is_locked_down(lake: Lake, sql: str):
    with (
        connect(lake) as connection,
        pytest.raises((duckdb.PermissionException, duckdb.InvalidInputException)),
    ):
        connection.execute(sql)


def test_the_connection_keeps_to_its_bounds(lake: Lake):
    with connect(lake) as connection:
        names = ("threads", "memory_limit", "TimeZone", "temp_directory", "enable_external_access")
        settings = [connection.execute(f"SELECT current_setting('{name}')").fetchone() for name in names]
    assert settings == [(1,), ("953.6 MiB",), ("UTC",), ("",), (False,)]


def test_a_query_that_takes_too_long_is_stopped(lake: Lake):
    started = time.monotonic()
    with pytest.raises(Refused, match=r"took longer than 0\.2 s: narrow it down"):
        query(lake, "SELECT count(*) FROM range(1000000000) a, range(1000000) b", timeout=0.2)
    assert time.monotonic() - started < 20


def test_a_query_that_wants_more_memory_than_there_is_is_refused(lake: Lake):
    with pytest.raises(Refused, match="Out of Memory Error"):
        query(lake, "SELECT list(range) FROM range(300000000)")


def test_a_damaged_file_is_not_read(lake: Lake):
    path = lake.root / lake.entry("IBM").files[0].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(CorruptLake, match="gpt-trader data ingest --symbol IBM --source sample"):
        query(lake, "SELECT count(*) FROM BARS_1D")
    assert query(lake, "SELECT count(*) n FROM bars_4h").to_pylist() == [{"n": 3000}]
